"""Promptable segmentation: one shard of one dataset with one variant, runtime and prompt group."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from sambench.digests import digest
from sambench.evaluate.detections import DetectedMasks, box_prompts
from sambench.evaluate.judged import indexed_truth, judged
from sambench.evaluate.segany import ChosenIous, evaluate, image_blocks, plan, result_table
from sambench.jobs import parse_shard, shard_images
from sambench.parquet import inputs, parquet_parts, read_parquet, refuse, write_parquet
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
    where = ("image_id", part["image_id"].tolist())
    truth = read_parquet(instances, INSTANCES, where=where).to_pandas()
    made_of = inputs(instances=instances)
    prompted = read_parquet(prompts, PROMPTS, where=where, made_of=made_of).to_pandas()
    found = {}
    for name, file in detectors.items():
        found[name] = read_parquet(file, BOXES, where=where, made_of=inputs(images=images)).to_pandas()
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
    title, wanted_truth = f"segany {what.name} {shard}", bool(network and network.uses_ground_truth)
    origin = provenance([model, selections], device, weights_sha256=",".join(digests))
    origin |= inputs(images=images, instances=instances, prompts=prompts)
    sources = {f"boxes_sha256.{name}": digest(file) for name, file in detectors.items()}
    sources |= inputs(**{f"boxes.{name}": file for name, file in detectors.items()})
    parts, done = [], 0
    with parquet_parts(masks, MASKS, origin | sources) if found and masks else nullcontext() as keep:
        for block in image_blocks(part, [prompted, *found.values()]):
            own = of_images(prompted, block)
            scores, planned, kept = ChosenIous(len(own), selections, start, boundary=boundary), own, None
            if keep:
                boxes = {name: of_images(rows, block) for name, rows in found.items()}
                detected = box_prompts(boxes, of_images(truth, block) if wanted_truth else None)
                kept = DetectedMasks(len(detected), len(own), selections, start)
                planned = pd.concat([own.assign(detected=False), detected])
            if network:
                tasks = plan(block, of_images(truth, block), planned.reset_index(drop=True))
                place = f", images {done + 1}-{done + len(block)} of {len(part)}" if len(block) < len(part) else ""
                evaluate(network, tasks, scores, kept, title + place)
            if kept and keep:
                keep(kept.table(detected, block))
            done += len(block)
            parts.append(result_table(own.reset_index(drop=True), truth, scores).set_index(own.index))
    # In the order of the prompts, however images came in blocks.
    write_parquet(segany, pd.concat(parts).sort_index(), SEGANY, origin)


def of_images(table: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The rows of these images, with their places in the table."""
    return table[table["image_id"].isin(images["image_id"])]


if __name__ == "__main__":
    run(main)
