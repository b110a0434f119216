"""Score one variant on one shard of a dataset with one group of prompts."""

import json
import sys
from pathlib import Path

import pandas as pd

from sambench.files import sha256
from sambench.jobs import parse_shard, shard_images
from sambench.provenance import provenance
from sambench.results.schemas import BOXES, IMAGES, INSTANCES, MASKS, PROMPTS, SEGANY, read_parquet, write_parquet
from sambench.script import run
from sambench.status import OK
from sambench.variants.options import VariantOptions
from sambench.variants.registry import build


def main(
    *,
    options: VariantOptions,
    images: Path,
    instances: Path,
    prompts: Path,
    selections: str,
    shard: str,
    output: Path,
    boxes: str = "{}",
    masks: Path | None = None,
) -> None:
    """Write one row a prompt: the IoU of the chosen mask with its instance, or a status that says why there is none.

    For boxes of detectors the masks themselves are written, one row a box and selection rule.

    Parameters
    ----------
    options
        the variant and how to run it
    images
        Parquet file of images
    instances
        Parquet file of instances
    prompts
        Parquet file of prompts
    selections
        JSON list of selection rules
    shard
        such as 0-of-4
    output
        Parquet file to write
    boxes
        JSON, detector -> Parquet file of its boxes
    masks
        Parquet file of their masks to write
    """
    from sambench.evaluate.detections import DetectedMasks, box_prompts
    from sambench.evaluate.segany import Scores, evaluate, plan, result_table

    (what, execution, folders), rules = options.parsed(), json.loads(selections)
    part = shard_images(read_parquet(images, IMAGES).to_pandas(), *parse_shard(shard))
    truth, prompted = (
        of_images(read_parquet(*file).to_pandas(), part) for file in ((instances, INSTANCES), (prompts, PROMPTS))
    )
    found = {
        detector: of_images(read_parquet(Path(file), BOXES).to_pandas(), part)
        for detector, file in json.loads(boxes).items()
    }

    state = what.availability(folders, execution)
    model, device, digests = None, "", []
    if state == OK:
        model, device = build(what, execution, folders), execution.device_name()
        digests = [sha256(path) for path in what.weights(folders) or []]
    else:
        print(f"segany {what.name}: {state}: {what.explain(folders, execution)}", file=sys.stderr)
    # Rows that are not decoded have the reason as their status.
    start = "" if model else state
    scores, planned, kept = Scores(len(prompted), rules, start), prompted, None
    if found:
        detected = box_prompts(found, truth if model and model.uses_ground_truth else None)
        kept = DetectedMasks(len(detected), len(prompted), rules, start)
        planned = pd.concat([prompted.assign(detected=False), detected], ignore_index=True)
    if model:
        evaluate(model, plan(part, truth, planned), scores, kept, f"segany {what.name} {shard}")

    origin = provenance([options.card, options.runtime, selections, shard], device, weights_sha256=",".join(digests))
    if kept and masks:
        sources = {f"boxes_sha256.{detector}": sha256(Path(file)) for detector, file in json.loads(boxes).items()}
        write_parquet(masks, kept.table(detected, part), MASKS, origin | sources)
    write_parquet(output, result_table(prompted, truth, scores), SEGANY, origin)


def of_images(table: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The rows of these images."""
    return table[table["image_id"].isin(images["image_id"])].reset_index(drop=True)


if __name__ == "__main__":
    run(main)
