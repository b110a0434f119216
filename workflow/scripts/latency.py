"""Time one variant under one runtime on the first images of a dataset. Runs alone on its machine."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sambench.provenance import provenance
from sambench.results.schemas import LATENCY, write_parquet
from sambench.script import run
from sambench.variants.base import Runtime, Variant
from sambench.variants.registry import Card


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
        JSON: name, device, dtype, attention, compile, engine, threads
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
    from sambench.measure import latency
    from sambench.measure.session import annotated, load_images, observe

    what, how, wanted = Card(name=variant, family="", **json.loads(card)), json.loads(runtime), json.loads(settings)
    execution = Runtime(**{**how, "threads": how.get("threads") or threads})

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        rows, _ = annotated(images, instances, wanted["images"])
        boxes = latency.relative_boxes(wanted["boxes"])
        table, first = latency.measure(
            model, load_images(rows), boxes, device, warmup=wanted["warmup"], min_seconds=wanted["min_seconds"]
        )
        return table, {"first_ms": 1000 * first}

    folders = [Path(folder) for folder in json.loads(weights)]
    table, facts = observe("latency", what, execution, folders, LATENCY, measurement)
    origin = provenance([card, runtime, settings], execution.device_name(), **facts)
    write_parquet(output, table, LATENCY, origin)


if __name__ == "__main__":
    run(main)
