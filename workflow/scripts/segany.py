"""Promptable segmentation: one shard of one dataset with one variant, runtime and prompt group."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from sambench.digests import digest
from sambench.evaluate.detections import DetectedMasks, box_prompts
from sambench.evaluate.judged import indexed_truth, judged
from sambench.evaluate.segany import ChosenIous, evaluate, plan, result_table
from sambench.jobs import parse_shard, shard_images
from sambench.parquet import inputs, read_parquet, refuse, write_parquet
from sambench.provenance import provenance
from sambench.record_checks import strange_boxes
from sambench.records import BOXES, IMAGES, INSTANCES, MASKS, PROMPTS, SEGANY
from sambench.script import run
from sambench.variants.options import configured
from sambench.variants.registry import attempt


def main(
    *,
    model: dict[str, Any],
    threads: int,
    images: Path,
    instances: Path,
    prompts: Path,
    selections: list[str],
    shard: str,
    segany: Path,
    detectors: dict[str, Path],
    keep_unjudged: bool,
    masks: Path | None = None,
    boundary: bool = False,
) -> None:
    """Write one row per prompt: the IoU of the chosen mask with its instance, or a status that says why there is none.

    For boxes of detectors (`detectors`: name -> Parquet file) the masks themselves are written to `masks`, one row per
    box and selection rule; of boxes that no average precision can see only if `keep_unjudged`.
    """
    what, execution, folders = configured(model, threads)
    part = shard_images(read_parquet(images, IMAGES).to_pandas(), *parse_shard(shard))
    truth = of_images(read_parquet(instances, INSTANCES).to_pandas(), part)
    made_of = inputs(instances=instances)
    prompted = of_images(read_parquet(prompts, PROMPTS, made_of=made_of).to_pandas(), part)
    found = {}
    for name, file in detectors.items():
        found[name] = of_images(read_parquet(file, BOXES, made_of=inputs(images=images)).to_pandas(), part)
        refuse(file, strange_boxes(found[name], part))
    if not keep_unjudged:
        rules = indexed_truth(part)
        found = {name: boxes[judged(rules, boxes)].reset_index(drop=True) for name, boxes in found.items()}

    network, state, reason = attempt(what, execution, folders)
    device, digests = "", []
    if network:
        device = execution.device_name()
        digests = [digest(path) for path in what.weights(folders) or []]
    else:
        print(f"segany {what.name}: {state}: {reason}", file=sys.stderr)
    # Rows that are not decoded have the reason as their status.
    start = "" if network else state
    scores, planned, kept = ChosenIous(len(prompted), selections, start, boundary=boundary), prompted, None
    if found:
        detected = box_prompts(found, truth if network and network.uses_ground_truth else None)
        kept = DetectedMasks(len(detected), len(prompted), selections, start)
        planned = pd.concat([prompted.assign(detected=False), detected], ignore_index=True)
    if network:
        evaluate(network, plan(part, truth, planned), scores, kept, f"segany {what.name} {shard}")

    origin = provenance([model, selections], device, weights_sha256=",".join(digests))
    origin |= inputs(images=images, instances=instances, prompts=prompts)
    if kept and masks:
        sources = {f"boxes_sha256.{name}": digest(file) for name, file in detectors.items()}
        sources |= inputs(**{f"boxes.{name}": file for name, file in detectors.items()})
        write_parquet(masks, kept.table(detected, part), MASKS, origin | sources)
    write_parquet(segany, result_table(prompted, truth, scores), SEGANY, origin)


def of_images(table: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The rows of these images."""
    return table[table["image_id"].isin(images["image_id"])].reset_index(drop=True)


if __name__ == "__main__":
    run(main)
