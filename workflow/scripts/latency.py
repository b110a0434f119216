"""Time one variant under one runtime on the first images of a dataset. Runs alone on its machine."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sambench.provenance import provenance
from sambench.results.schemas import LATENCY, write_parquet
from sambench.script import run
from sambench.variants.base import Variant
from sambench.variants.options import VariantOptions


def main(
    *,
    options: VariantOptions,
    images: Path,
    instances: Path,
    settings: str,
    output: Path,
) -> None:
    """Write one row an image and pass, or one row with a status. Without a checkpoint, weights are random.

    Parameters
    ----------
    options
        the variant and how to run it
    images
        Parquet file of images
    instances
        Parquet file of instances
    settings
        JSON: images, boxes, warmup, min_seconds
    output
        Parquet file to write
    """
    from sambench.measure import latency
    from sambench.measure.session import annotated, load_images, observe

    (what, execution, folders), wanted = options.parsed(), json.loads(settings)

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        rows, _ = annotated(images, instances, wanted["images"])
        boxes = latency.relative_boxes(wanted["boxes"])
        table, first = latency.measure(
            model, load_images(rows), boxes, device, warmup=wanted["warmup"], min_seconds=wanted["min_seconds"]
        )
        return table, {"first_ms": 1000 * first}

    table, facts = observe("latency", what, execution, folders, LATENCY, measurement)
    origin = provenance([options.card, options.runtime, settings], execution.device_name(), **facts)
    write_parquet(output, table, LATENCY, origin)


if __name__ == "__main__":
    run(main)
