"""Compare the masks of one variant under one runtime with those of eager float32 on the same images and boxes."""

import gc
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sambench.provenance import provenance
from sambench.results.schemas import AGREEMENT_RUN, write_parquet
from sambench.script import run
from sambench.variants.base import Runtime, Variant
from sambench.variants.options import VariantOptions


def main(
    *,
    options: VariantOptions,
    images: Path,
    instances: Path,
    settings: str,
    output: Path,
) -> None:
    """Write one row an image and box, or one row with a status. Without a checkpoint, weights are random.

    Parameters
    ----------
    options
        the variant and how to run it
    images
        Parquet file of images
    instances
        Parquet file of instances
    settings
        JSON: images, boxes
    output
        Parquet file to write
    """
    from sambench.measure import agreement
    from sambench.measure.latency import relative_boxes
    from sambench.measure.session import annotated, build_seeded, load_images, observe

    (what, execution, folders), wanted = options.parsed(), json.loads(settings)

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        rows, _ = annotated(images, instances, wanted["images"])
        loaded, boxes = load_images(rows), relative_boxes(wanted["boxes"])
        plain = build_seeded(what, Runtime(device=execution.device, threads=execution.threads), folders)
        reference = agreement.answers(plain, loaded, boxes)
        del plain
        gc.collect()
        tokens = [answer.chosen for answer in reference]
        return agreement.compare(reference, agreement.answers(model, loaded, boxes, tokens)), {}

    table, facts = observe("agreement", what, execution, folders, AGREEMENT_RUN, measurement)
    origin = provenance([options.card, options.runtime, settings], execution.device_name(), **facts)
    write_parquet(output, table, AGREEMENT_RUN, origin)


if __name__ == "__main__":
    run(main)
