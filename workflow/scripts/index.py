"""Index a COCO-format dataset: one table of images, one of instances, and notes on what was found."""

import json
import sys
from pathlib import Path
from typing import Any

from sambench.datasets import coco
from sambench.datasets.inspection import Reading
from sambench.parquet import inputs, write_parquet
from sambench.provenance import provenance
from sambench.records import IMAGES, INSTANCES, NOTES
from sambench.script import run


def main(
    *,
    annotations: list[Path],
    folder: Path,
    reading: dict[str, Any],
    images: Path,
    instances: Path,
    notes: Path,
    faults: Path,
    image_limit: int | None = None,
) -> None:
    """Check a COCO-format annotation file and its image files, and write both as Parquet.

    annotations: polygons, uncompressed and compressed RLE are all valid. folder: of the image files. reading: how they
    are looked at (`Study.reading`). faults: a text file for everything that is wrong, where it is more than one thing.
    image_limit: only the first so many images by id.
    """
    index = coco.index(
        annotations,
        folder,
        image_limit=image_limit,
        reading=Reading(reading["exif"], reading["scaling"], whole=reading["check_images"] == "full"),
        on_bad_image=reading["on_bad_image"],
        report=faults,
    )
    origin = provenance([list(map(str, annotations)), str(folder), reading, image_limit]) | inputs(
        annotations=annotations
    )
    names = {"category_names": json.dumps(index.category_names)}
    write_parquet(instances, index.instances, INSTANCES, origin | names)
    write_parquet(images, index.images, IMAGES, origin)
    table = index.notes()
    write_parquet(notes, table, NOTES, origin)
    for note in table.itertuples():
        print(f"{annotations[0]}: {note.kind}: {note.note}: {note.count}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
