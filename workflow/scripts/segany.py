"""Promptable segmentation: one shard of one dataset with one variant, runtime and prompt group."""

import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sambench.digests import digest
from sambench.evaluate.detections import DetectedMasks
from sambench.evaluate.judged import indexed_truth, judged
from sambench.evaluate.segany import BLOCK_ROWS, ChosenIous, evaluate_loaded, load, result_table
from sambench.evaluate.shard import Shard
from sambench.jobs import parse_shard, shard_images
from sambench.parquet import inputs, read_parquet, refuse, write_batches, write_parquet
from sambench.partial import Partial, partial_folder
from sambench.prefetch import prefetch
from sambench.progress import track
from sambench.provenance import deciding, provenance, why_none
from sambench.provenance import digest as digest_of
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
    code: str = "",
) -> None:
    """Write one row per prompt: the IoU of the chosen mask with its instance, or a status that says why there is none.

    For boxes of detectors (`detectors`: name -> Parquet file) the masks themselves are written to `masks`, one row per
    box and selection rule; of boxes that no average precision can see only if `keep_unjudged`.

    What is finished is kept every few minutes (sambench.partial); code: a digest of what computes, which is part of
    what decides whether it can be used.
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
    origin |= inputs(images=images, instances=instances, prompts=prompts) | why_none(state, reason)
    sources = {f"boxes_sha256.{name}": digest(file) for name, file in detectors.items()}
    sources |= inputs(**{f"boxes.{name}": file for name, file in detectors.items()})

    most = BLOCK_ROWS["gpu" if network and execution.torch_device().type != "cpu" else "cpu"]
    blocks = Shard(part, truth, prompted, found, most, with_truth=wanted_truth)
    # A network rounds otherwise on another number of threads.
    key = digest_of([code, deciding(origin | sources), execution.threads, most, boundary, keep_unjudged, start])
    schemas = {"segany": SEGANY} | ({"masks": MASKS} if found and masks else {})
    finished = Partial(partial_folder(segany), key, schemas, title)
    first, total = finished.pieces, blocks.prompted()
    if first:
        print(f"{title}: resuming: {blocks.prompted(0, first):,} of {total:,} images are there", file=sys.stderr)
    images_ahead = iter(())
    if network:
        ahead = prefetch(partial(load, network), blocks.tasks(first))
        images_ahead = track(ahead, total, title, blocks.prompted(0, first))
    for number in range(first, len(blocks)):
        block = blocks.take(number)
        scores, kept = ChosenIous(len(block.prompts), selections, start, boundary=boundary), None
        if block.detected is not None:
            kept = DetectedMasks(len(block.detected), len(block.prompts), selections, start)
        if network:
            evaluate_loaded(network, islice(images_ahead, len(block.tasks)), scores, kept)
        tables = {"segany": result_table(block.prompts.reset_index(drop=True), block.instances, scores)}
        if kept:
            tables["masks"] = kept.table(block.detected, block.images)
        finished.add(tables)

    if "masks" in schemas:
        write_batches(masks, MASKS, origin | sources, partial(finished.batches, "masks"))
    rows = pa.Table.from_batches(finished.batches("segany"), SEGANY)
    # In the order of the prompts, however images came in blocks.
    write_parquet(segany, rows.take(np.argsort(blocks.prompt_rows(), kind="stable")), SEGANY, origin)
    finished.remove()


if __name__ == "__main__":
    run(main)
