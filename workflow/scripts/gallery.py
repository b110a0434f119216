"""Decode the instances of a gallery once more with one variant and keep the masks."""

import sys
from pathlib import Path
from typing import Any

from sambench.evaluate.segany import evaluate, plan
from sambench.gallery.masks import KeptMasks, table
from sambench.parquet import inputs, read_parquet, write_parquet
from sambench.provenance import provenance
from sambench.records import GALLERY, IMAGES, PICKS
from sambench.script import run
from sambench.variants.options import configured
from sambench.variants.registry import attempt


def main(*, model: dict[str, Any], threads: int, images: Path, picks: Path, gallery: Path) -> None:
    """Write one row per pick: the mask with its IoU, or a status that says why there is none."""
    what, execution, folders = configured(model, threads)
    wanted = read_parquet(picks, PICKS, made_of=inputs(images=images)).to_pandas()
    network, state, reason = attempt(what, execution, folders)
    kept = KeptMasks(len(wanted), "" if network else state)
    if network:
        truth = wanted.drop_duplicates("annotation_id").reset_index(drop=True)
        tasks = plan(read_parquet(images, IMAGES).to_pandas(), truth, wanted)
        evaluate(network, tasks, kept, title=f"gallery {what.name}")
    else:
        print(f"gallery {what.name}: {state}: {reason}", file=sys.stderr)
    origin = provenance(model, execution.device_name() if network else "", status=state)
    write_parquet(gallery, table(wanted, kept), GALLERY, origin | inputs(images=images, picks=picks))


if __name__ == "__main__":
    run(main)
