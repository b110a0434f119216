"""How many images per second a variant gets through with their ground-truth boxes, at several batch sizes.

Images are gone through as in `batches`; how long the model had to wait for them is measured. Batches grow until memory
ends, or the limit that is set to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from sambench import records
from sambench.measure.batches import ImageBoxes, in_batches, plan
from sambench.measure.session import Measured, MeasuringJob, as_table, observe, out_of_memory
from sambench.memory import OutOfMemory, memory_guard, peak_mib, reset_peak, total_mib
from sambench.status import MEMORY_LIMIT, OK
from sambench.variants.base import Variant

RECORD = records.THROUGHPUT
SHARE = 0.9  # of the memory of the device or the host, where no limit is set


def pace(variant: Variant, tasks: Sequence[ImageBoxes], batch: int, min_seconds: float) -> dict[str, Any]:
    """Go through all tasks in batches, again and again until `min_seconds` have passed; one batch before to warm up.

    Returns images and boxes done, and seconds: in all, of encoding, and of waiting for images.
    """
    images = boxes = 0
    waited = encoding = 0.0
    with in_batches(variant, tasks, batch) as step:
        start = now = step().ended
        while images < len(tasks) or now - start < min_seconds:
            done = step()
            images, boxes = images + batch, boxes + done.boxes
            waited, encoding = waited + done.wait_seconds, encoding + done.encode_seconds
            now = done.ended
    return {
        "images": images,
        "boxes": boxes,
        "seconds": now - start,
        "encode_seconds": encoding,
        "wait_seconds": waited,
    }


def measure(
    variant: Variant,
    tasks: Sequence[ImageBoxes],
    device: torch.device,
    *,
    batches: Sequence[int],
    memory_limit_mib: float | None,
    min_seconds: float,
) -> pd.DataFrame:
    """Rows with the columns of records.THROUGHPUT, one per batch size, the smallest first.

    memory_limit_mib: of the GPU, or of the process on the CPU; None: nine tenths of what there is. The last row says
    why batches grew no further: memory ran out, or the next batch would be over the limit by the growth so far (on a
    CPU the system kills a process that takes too much, so that cannot be tried).
    """
    limit = SHARE * total_mib(device) if memory_limit_mib is None else memory_limit_mib
    reset_peak(device)
    rows: list[dict[str, Any]] = []
    known = [(0, peak_mib(device))]  # batch size and peak memory, of the last two
    for batch in sorted(batches):
        needed = _extrapolate(known, batch)
        if needed > limit:
            rows.append({"batch": batch, "requested_mib": needed, "status": MEMORY_LIMIT})
            break
        reset_peak(device)
        try:
            with memory_guard():
                done = pace(variant, tasks, batch, min_seconds)
        except OutOfMemory as error:
            rows.append({"batch": batch, **out_of_memory(error, device)})
            break
        peak = peak_mib(device)
        rows.append({"batch": batch, **done, "peak_memory_mib": peak, "status": OK})
        print(f"{variant.name}: batch {batch}: {done['images'] / done['seconds']:.2f} images/s", file=sys.stderr)
        if peak > limit:
            break
        known = [known[-1], (batch, peak)]
    return as_table(rows, RECORD)


def _extrapolate(known: Sequence[tuple[int, float]], batch: int) -> float:
    """Peak memory of a batch size on the line through the last two; what is known where there is but one."""
    if len(known) < 2:
        return known[-1][1]
    (small, less), (large, more) = known
    return more + max(0.0, more - less) / (large - small) * (batch - large)


def run(job: MeasuringJob) -> Measured:
    """Count the images per second of a variant at several batch sizes; it has the machine to itself."""

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        limits = {name: job.settings[name] for name in ("batches", "memory_limit_mib", "min_seconds")}
        return measure(model, plan(*job.annotated()), device, **limits), {}

    return observe("throughput", job, RECORD, measurement)
