"""Time one variant under one runtime on the first images of a dataset. Runs alone on its machine."""

import json
import sys
from pathlib import Path

import numpy as np

from sambench.datasets.coco import read_image
from sambench.errors import InputError
from sambench.files import sha256
from sambench.provenance import provenance
from sambench.results.schemas import IMAGES, INSTANCES, LATENCY, read_parquet, write_parquet
from sambench.script import run
from sambench.status import NO_NETWORK, NO_WEIGHTS, OK, UNSUPPORTED_PROMPT
from sambench.variants.base import BOX, Runtime
from sambench.variants.registry import Card, build


def main(
    *,
    variant: str,
    card: str,
    runtime: str,
    weights: str,
    images: Path,
    instances: Path,
    settings: str,
    threads: int,
    output: Path,
) -> None:
    """Write one row an image and pass, or one row with a status. Without a checkpoint, weights are random.

    Parameters
    ----------
    variant
        the variant's name
    card
        JSON, the part of its card that decides what it computes
    runtime
        JSON: name, device, dtype, compile, threads
    weights
        JSON list of the folders with checkpoint files
    images
        Parquet file of images
    instances
        Parquet file of instances
    settings
        JSON: images, boxes, warmup, min_seconds
    threads
        CPU threads, unless the runtime fixes them
    output
        Parquet file to write
    """
    from sambench.measure import latency, machine

    what, how, wanted = Card(name=variant, family="", **json.loads(card)), json.loads(runtime), json.loads(settings)
    folders = [Path(folder) for folder in json.loads(weights)]
    execution = Runtime(**{**how, "threads": how.get("threads") or threads})
    device = execution.torch_device()
    state = what.availability(folders, execution)
    facts = {"weights": "checkpoint" if state == OK and what.checkpoints else "random" if what.checkpoints else "none"}
    table = latency.as_table([{"status": state}])
    if state in (OK, NO_WEIGHTS):
        others = machine.sample_others()
        try:
            model = build(what, execution, folders, random_weights=state == NO_WEIGHTS)
            if model.uses_ground_truth:
                table["status"] = NO_NETWORK
            elif BOX not in model.prompt_kinds:
                table["status"] = UNSUPPORTED_PROMPT
            else:
                loaded = first_images(images, instances, wanted["images"])
                boxes, before = latency.relative_boxes(wanted["boxes"]), machine.CpuClock.now()
                table, first = latency.measure(
                    model, loaded, boxes, device, warmup=wanted["warmup"], min_seconds=wanted["min_seconds"]
                )
                during = before.others(machine.CpuClock.now())
                facts |= {"first_ms": 1000 * first, "others": during, "busy": machine.is_busy(max(others, during))}
        except InputError as error:
            if state == OK:
                raise
            print(error, file=sys.stderr)  # an ONNX encoder cannot have random weights
        facts["others_before"] = others
        if facts.get("busy"):
            print(f"latency {variant}: others keep {max(others, facts['others']):.1f} cores busy", file=sys.stderr)
    else:
        print(f"latency {variant}: {state}: {what.explain(folders, execution)}", file=sys.stderr)
    digests = ",".join(sha256(path) for path in what.weights(folders) or []) if state == OK else ""
    origin = provenance(
        [card, runtime, settings],
        execution.device_name(),
        weights_sha256=digests,
        machine=json.dumps(machine.record(device), sort_keys=True),
        run=json.dumps(facts, sort_keys=True),
    )
    write_parquet(output, table, LATENCY, origin)


def first_images(images: Path, instances: Path, count: int) -> list[tuple[int, np.ndarray]]:
    """(id, image) of the first images by id that have annotations, in memory."""
    annotated = set(read_parquet(instances, INSTANCES)["image_id"].to_pylist())
    rows = read_parquet(images, IMAGES).to_pandas().sort_values("image_id")
    rows = rows[rows["image_id"].isin(annotated)].head(count)
    return [(int(row.image_id), read_image(row.path, row.width, row.height)) for row in rows.itertuples()]


if __name__ == "__main__":
    run(main)
