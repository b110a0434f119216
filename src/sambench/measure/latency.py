"""How long a variant takes: one image after the other, one box after the other, everything in memory and warmed up.

The survey's SegAny time (arXiv 2410.04960): 100 images, 50 fixed boxes on each, the time so far at every tenth box.
The code is that of the accuracy runs (`encode_prepared`, `decode`, `Upsampling`), in runs of its own. The device is
synchronized at both ends of every step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import records
from sambench.device import synchronize
from sambench.measure.session import Measured, MeasuringJob, as_table, load_images, observe, out_of_memory
from sambench.memory import OutOfMemory, memory_guard, peak_mib, reset_peak
from sambench.progress import track
from sambench.status import OK
from sambench.variants.base import Prompts, Variant

RECORD = records.LATENCY
BOX_SEED = 0
SIDES = (0.05, 0.6)  # shortest and longest side of a box, as a share of the image's


def relative_boxes(count: int, seed: int = BOX_SEED) -> np.ndarray:
    """`count` boxes (count, 4) float64 as x0, y0, x1, y1 in [0, 1]; the first ones are the same for every count."""
    draws = np.random.RandomState(seed).uniform(size=(count, 2, 2))  # its streams are frozen
    extent = SIDES[0] + (SIDES[1] - SIDES[0]) * draws[:, 0]
    corner = (1 - extent) * draws[:, 1]
    return np.concatenate([corner, corner + extent], axis=1)


@dataclass(frozen=True)
class ImageTime:
    """Seconds of one image: of its preparation on the CPU, its encoding, and of each box decoding and upsampling."""

    prepare: float
    encode: float
    decode: list[float]
    upsample: list[float]


def time_image(variant: Variant, image: np.ndarray, boxes: np.ndarray, device: torch.device) -> ImageTime:
    """Time one image, (H, W, 3) uint8, with relative boxes (K, 4), one decode per box.

    `encode` takes the image to the device; masks stay there, enlarged to the image's size.
    """
    height, width = image.shape[:2]
    absolute = (boxes * [width, height, width, height]).astype(np.float32)
    synchronize()
    start = time.perf_counter()
    prepared = variant.prepare(image)
    ready = time.perf_counter()
    features: Any = variant.encode_prepared([prepared])[0]
    synchronize()
    last = time.perf_counter()
    encode, decodes, upsamples = last - ready, [], []
    for box in absolute:
        candidates = variant.decode(features, Prompts(boxes=box[None]))
        chosen, _ = candidates.take(candidates.argmax())
        synchronize()
        decoded = time.perf_counter()
        candidates.upsampling.masks(chosen)
        synchronize()
        done = time.perf_counter()
        decodes.append(decoded - last)
        upsamples.append(done - decoded)
        last = done
    return ImageTime(ready - start, encode, decodes, upsamples)


def measure(
    variant: Variant,
    images: Sequence[tuple[int, np.ndarray]],
    boxes: np.ndarray,
    device: torch.device,
    *,
    warmup: int,
    min_seconds: float,
) -> tuple[pd.DataFrame, float]:
    """Rows with the columns of records.LATENCY, and the seconds of the very first call, compilation included.

    images: (id, image) in memory. warmup: further calls on the first image before the clock counts. The images are gone
    through again until `min_seconds` have passed, so that a fast variant is not judged by a moment.

    Exhausted memory ends the measurement with a row that says how much was in use and asked for.
    """
    reset_peak(device)
    rows: list[dict[str, Any]] = []
    first = float("nan")
    number = 0
    try:
        with memory_guard():
            if warmup:
                begin = time.perf_counter()
                time_image(variant, images[0][1], boxes[:2], device)
                first = time.perf_counter() - begin
            for _ in range(warmup - 1):
                time_image(variant, images[0][1], boxes[:2], device)
            begin = time.perf_counter()
            while not number or time.perf_counter() - begin < min_seconds:
                for image_id, image in track(images, len(images), f"latency {variant.name}"):
                    seconds = time_image(variant, image, boxes, device)
                    rows.append(
                        {
                            "image_id": image_id,
                            "pass": number,
                            "prepare_ms": 1e3 * seconds.prepare,
                            "encode_ms": 1e3 * seconds.encode,
                            "decode_ms": [1e3 * value for value in seconds.decode],
                            "upsample_ms": [1e3 * value for value in seconds.upsample],
                            "peak_memory_mib": peak_mib(device),
                            "status": OK,
                        }
                    )
                number += 1
    except OutOfMemory as error:
        rows = [{"image_id": images[0][0], "pass": number, **out_of_memory(error, device)}]
    return as_table(rows, RECORD), first


def run(job: MeasuringJob) -> Measured:
    """Time a variant on the first images of a data set; it has the machine to itself."""
    wanted = job.settings

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        images, _ = job.annotated()
        table, first = measure(
            model,
            load_images(images),
            relative_boxes(wanted["boxes"]),
            device,
            warmup=wanted["warmup"],
            min_seconds=wanted["min_seconds"],
        )
        return table, {"first_ms": 1000 * first}

    return observe("latency", job, RECORD, measurement)
