"""Images in batches with their ground-truth boxes, gone through again and again: what speed and energy are measured on.

A batch of images goes through the encoder at once, then every image's boxes are decoded and the chosen masks enlarged:
the calls of the accuracy runs. Images are read from disk and prepared by threads ahead of the batch that is computed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sambench.datasets.pictures import View, read_image, view_of
from sambench.device import synchronize
from sambench.prefetch import WORKERS, prefetch
from sambench.variants.base import Prompts, Variant


@dataclass(frozen=True)
class ImageBoxes:
    """One image: its file, (height, width), and its boxes (K, 4) float32 as x0, y0, x1, y1."""

    path: str
    size: tuple[int, int]
    boxes: np.ndarray
    view: View | None = None


class Batch(NamedTuple):
    """What became of a batch: its boxes, seconds of waiting for its images and of encoding, and when it ended."""

    boxes: int
    wait_seconds: float
    encode_seconds: float
    ended: float


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


@contextmanager
def in_batches(variant: Variant, tasks: Sequence[ImageBoxes], size: int) -> Iterator[Callable[[], Batch]]:
    """Gives a function that puts the next batch of `size` images through; after the last task the first one follows."""
    with closing(prefetch(partial(load, variant), itertools.cycle(tasks), size + WORKERS)) as source:

        def step() -> Batch:
            start = time.perf_counter()
            loaded = [next(source) for _ in range(size)]
            ready = time.perf_counter()
            features = variant.encode_prepared([prepared for _, prepared in loaded])
            synchronize()
            encoded = time.perf_counter()
            for (task, _), values in zip(loaded, features, strict=True):
                answer(variant, values, task.boxes)
            synchronize()
            boxes = sum(len(task.boxes) for task, _ in loaded)
            return Batch(boxes, ready - start, encoded - ready, time.perf_counter())

        yield step
