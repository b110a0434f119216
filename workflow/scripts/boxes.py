"""The boxes of one detector in one shard of a dataset: found by its network, or out of a published file."""

import sys
from pathlib import Path
from typing import Any

from sambench.detectors.registry import Detector
from sambench.detectors.stage import shard_boxes
from sambench.parquet import inputs, write_parquet
from sambench.provenance import provenance, why_none
from sambench.records import BOXES
from sambench.script import run
from sambench.status import OK


def main(
    *,
    dataset: str,
    detector: str,
    card: dict[str, Any],
    settings: dict[str, Any],
    folders: list[Path],
    annotations: list[Path],
    images: Path,
    shard: str,
    threads: int,
    boxes: Path,
) -> None:
    """Write one row per box. Where there can be none, the file is empty and its provenance says why.

    card: the part of the detector's card that decides about the boxes. settings: `detection` of the config. folders:
    with checkpoint files. annotations: of the dataset, for its categories and its rules, COCO's or LVIS's.
    """
    what = Detector(name=detector, family="", **card)
    found = shard_boxes(what, dataset, annotations, images, shard, folders, settings, threads)
    if found.status != OK:
        print(f"boxes {detector} {shard}: {found.status}: {found.reason}", file=sys.stderr)
    origin = provenance([card, settings, shard], found.device, status=found.status, **found.facts)
    origin |= inputs(annotations=annotations, images=images) | why_none(found.status, found.reason)
    write_parquet(boxes, found.table, BOXES, origin)


if __name__ == "__main__":
    run(main)
