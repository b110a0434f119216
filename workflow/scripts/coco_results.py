"""Write the masks of one detector and selection rule as a COCO results file, for other tools."""

import json
from pathlib import Path

from sambench.files import atomic
from sambench.parquet import read_parquet
from sambench.records import MASKS
from sambench.script import run
from sambench.status import OK


def main(*, masks: list[Path], detector: str, selection: str, coco_results: Path) -> None:
    """Write a JSON list of image_id, category_id, segmentation and score; without `bbox`, so areas are those of masks.

    masks: Parquet files of masks, one per shard.
    """
    with atomic(coco_results) as temporary, temporary.open("w", encoding="utf-8") as file:
        opening = "["
        for path in masks:
            rows = read_parquet(path, MASKS).to_pandas()
            wanted = (rows["detector"] == detector) & (rows["selection"] == selection) & (rows["status"] == OK)
            for row in rows[wanted].itertuples(index=False):
                segmentation = {"size": [int(side) for side in row.rle_size], "counts": row.rle_counts.decode()}
                result = {"image_id": row.image_id, "category_id": row.category_id, "segmentation": segmentation}
                file.write(f"{opening}\n{json.dumps(result | {'score': row.score})}")
                opening = ","
        file.write("]\n" if opening == "," else "[]\n")


if __name__ == "__main__":
    run(main)
