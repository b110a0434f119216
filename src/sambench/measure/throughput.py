"""How many images per second a variant gets through with their ground-truth boxes, at several batch sizes.

A batch of images goes through the encoder at once, then every image's boxes are decoded and the chosen masks enlarged:
the calls of the accuracy runs. Images are read from disk and prepared by threads ahead of the batch that is computed;
how long the model had to wait for them is measured. Batches grow until memory ends, or the limit that is set to it.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import records
from sambench.datasets.pictures import View, read_image, view_of
from sambench.device import synchronize
from sambench.measure.session import Measured, MeasuringJob, as_table, observe, out_of_memory
from sambench.memory import OutOfMemory, memory_guard, peak_mib, reset_peak, total_mib
from sambench.prefetch import WORKERS, prefetch
from sambench.status import MEMORY_LIMIT, OK
from sambench.variants.base import Prompts, Variant

RECORD = records.THROUGHPUT
SHARE = 0.9  # of the memory of the device or the host, where no limit is set


@dataclass(frozen=True)
class ImageBoxes:
    """One image: its file, (height, width), and its boxes (K, 4) float32 as x0, y0, x1, y1."""

    path: str
    size: tuple[int, int]
    boxes: np.ndarray
    view: View | None = None


def plan(images: pd.DataFrame, instances: pd.DataFrame) -> list[ImageBoxes]:
    """One task per image. Tables carry the columns of results/records.py; every image has instances."""
    xywh = instances[["x", "y", "w", "h"]].to_numpy(dtype=np.float64)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
    rows_of = instances.groupby("image_id").indices
    return [
        ImageBoxes(image.path, (image.height, image.width), boxes[rows_of[image.image_id]], view_of(image))
        for image in images.itertuples(index=False)
    ]


def load(variant: Variant, task: ImageBoxes) -> tuple[ImageBoxes, Any]:
    """A task with its prepared image; runs in a thread."""
    height, width = task.size
    return task, variant.prepare(read_image(task.path, width, height, task.view))


def answer(variant: Variant, features: Any, boxes: np.ndarray) -> None:
    """Decode the boxes of one image and enlarge the masks that the headline rule chooses; they stay on the device."""
    for start in range(0, len(boxes), variant.decode_chunk):
        candidates = variant.decode(features, Prompts(boxes=boxes[start : start + variant.decode_chunk]))
        logits, _ = candidates.take(candidates.argmax())
        candidates.upsampling.masks(logits)


def pace(variant: Variant, tasks: Sequence[ImageBoxes], batch: int, min_seconds: float) -> dict[str, Any]:
    """Go through all tasks in batches, again and again until `min_seconds` have passed; one batch before to warm up.

    Returns images and boxes done, and seconds: in all, of encoding, and of waiting for images.
    """
    images = boxes = 0
    waited = encoding = 0.0
    with closing(prefetch(partial(load, variant), itertools.cycle(tasks), batch + WORKERS)) as source:
        clock = start = time.perf_counter()
        warm = False
        while not warm or images < len(tasks) or clock - start < min_seconds:
            loaded = [next(source) for _ in range(batch)]
            ready = time.perf_counter()
            features = variant.encode_prepared([prepared for _, prepared in loaded])
            synchronize()
            encoded = time.perf_counter()
            for (task, _), values in zip(loaded, features, strict=True):
                answer(variant, values, task.boxes)
            synchronize()
            waited, encoding = waited + ready - clock, encoding + encoded - ready
            images, boxes = images + batch, boxes + sum(len(task.boxes) for task, _ in loaded)
            clock = time.perf_counter()
            if not warm:
                warm, start = True, clock
                images = boxes = 0
                waited = encoding = 0.0
    return {
        "images": images,
        "boxes": boxes,
        "seconds": clock - start,
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
