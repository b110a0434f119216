"""What an image with its boxes costs in joules, where the machine has a meter.

The images are gone through again and again as in `batches`, while the meters of GPU and processors are read; before
that the machine is left alone, so that the power that it takes anyway can be subtracted. Clocks are recorded in any
case, with the reasons why they were held down.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import records
from sambench.measure.batches import ImageBoxes, in_batches, plan
from sambench.measure.meters import Meter, meters, watching
from sambench.measure.session import Measured, MeasuringJob, as_table, observe
from sambench.status import NO_METER, OK
from sambench.variants.base import Variant

RECORD = records.ENERGY


def measure(
    variant: Variant,
    tasks: Sequence[ImageBoxes],
    found: Sequence[Meter],
    *,
    batch: int,
    min_seconds: float,
    idle_seconds: float,
) -> pd.DataFrame:
    """Rows with the columns of records.ENERGY, one per meter.

    tasks: gone through until `min_seconds` have passed, each at least once; one batch before to warm up.
    """
    with watching(found) as idle:
        time.sleep(idle_seconds)
    images = boxes = 0
    with in_batches(variant, tasks, batch) as step:
        step()
        with watching(found) as work:
            start = time.perf_counter()
            while images < len(tasks) or time.perf_counter() - start < min_seconds:
                boxes += step().boxes
                images += batch
    common = {"batch": batch, "images": images, "boxes": boxes, "seconds": work.seconds}
    rows = []
    for before, usage in zip(idle.usages, work.usages, strict=True):
        row = common | {"part": usage.meter.part, "meter": usage.meter.source, "throttled": ", ".join(usage.throttled)}
        if usage.mhz:
            row |= {"mhz": float(np.mean(usage.mhz)), "mhz_low": min(usage.mhz)}
        if usage.joules is None:
            print(f"{usage.meter.part}: {NO_METER}: {usage.meter.missing}", file=sys.stderr)
        else:
            row |= {"joules": usage.joules, "idle_watts": (before.joules or 0.0) / idle.seconds}
        rows.append(row | {"status": NO_METER if usage.joules is None else OK})
    return as_table(rows, RECORD)


def run(job: MeasuringJob) -> Measured:
    """Count the joules of a variant; it has the machine to itself."""

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        wanted = {name: job.settings[name] for name in ("batch", "min_seconds", "idle_seconds")}
        return measure(model, plan(*job.annotated()), meters(device), **wanted), {}

    return observe("energy", job, RECORD, measurement)
