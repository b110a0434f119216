"""Count the images a second of one variant under one runtime, at several batch sizes. Runs alone on its machine."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sambench.provenance import provenance
from sambench.results.schemas import THROUGHPUT_RUN, write_parquet
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
    """Write one row a batch size, or one row with a status. Without a checkpoint, weights are random.

    Parameters
    ----------
    options
        the variant and how to run it
    images
        Parquet file of images
    instances
        Parquet file of instances
    settings
        JSON: images, batches, memory_limit_mib, min_seconds
    output
        Parquet file to write
    """
    from sambench.measure import throughput
    from sambench.measure.session import annotated, observe

    (what, execution, folders), wanted = options.parsed(), json.loads(settings)

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        tasks = throughput.plan(*annotated(images, instances, wanted["images"]))
        limits = {name: wanted[name] for name in ("batches", "memory_limit_mib", "min_seconds")}
        return throughput.measure(model, tasks, device, **limits), {}

    table, facts = observe("throughput", what, execution, folders, THROUGHPUT_RUN, measurement)
    origin = provenance([options.card, options.runtime, settings], execution.device_name(), **facts)
    write_parquet(output, table, THROUGHPUT_RUN, origin)


if __name__ == "__main__":
    run(main)
