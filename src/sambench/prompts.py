"""Prompts from ground truth: one function a type, the same for every variant.

Coordinates are pixels of the original image, x to the right and y down. A point names a pixel by its column and row
(the pixel in the corner is (0, 0)); a box is given by its edges x0, y0, x1, y1, so that a box around the single
pixel (0, 0) is 0, 0, 1, 1. These are the conventions of COCO's boxes and of SAM's predictor.

Random types are seeded by (dataset, annotation id, type), so subsets and shards get the prompts of the whole. They
draw from numpy's RandomState, whose streams are frozen: the same prompts on every machine and numpy version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sambench.clicks import first_click
from sambench.errors import InputError, near_matches
from sambench.masks import decode_rle

if TYPE_CHECKING:
    import pandas as pd

NOISE = 0.1  # standard deviation of `noisy_box`, in units of the box side
NOISE_LIMIT = 20.0  # pixels


@dataclass(frozen=True)
class Instance:
    """One annotation, as the prompt functions see it.

    box: (4,) float64, the annotation box x0, y0, x1, y1. mask: (H, W) bool, not empty.
    """

    dataset: str
    annotation_id: int
    box: np.ndarray
    mask: np.ndarray

    def random(self, prompt: str) -> np.random.RandomState:
        """The random stream of one prompt type on this annotation."""
        text = f"{self.dataset}/{self.annotation_id}/{prompt}"
        return np.random.RandomState(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))


@dataclass(frozen=True)
class Prompt:
    """points: (P, 2) x, y; labels: (P,) 1 inside, 0 outside, -1 padding; box: (4,) x0, y0, x1, y1."""

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    box: np.ndarray | None = None


def _point(x: float, y: float) -> Prompt:
    return Prompt(points=np.array([[x, y]]), labels=np.array([1]))


def box(instance: Instance) -> Prompt:
    """The annotation's own box."""
    return Prompt(box=instance.box)


def tight_box(instance: Instance) -> Prompt:
    """The tightest box around the pixels of the mask; it differs from the annotation's by rounding and by errors."""
    rows, columns = np.flatnonzero(instance.mask.any(axis=1)), np.flatnonzero(instance.mask.any(axis=0))
    return Prompt(box=np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]))


def noisy_box(instance: Instance) -> Prompt:
    """The annotation's box, every side moved on its own.

    Each of x0, y0, x1, y1 moves by a normal of standard deviation 10 % of the box's extent along that axis, cut at
    20 pixels to either side. Sides that cross are swapped and the box is clipped to the image.
    """
    x0, y0, x1, y1 = instance.box
    sigma = NOISE * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    noise = np.clip(instance.random("noisy_box").normal(size=4) * sigma, -NOISE_LIMIT, NOISE_LIMIT)
    moved = instance.box + noise
    height, width = instance.mask.shape
    xs, ys = np.clip(np.sort(moved[[0, 2]]), 0, width), np.clip(np.sort(moved[[1, 3]]), 0, height)
    return Prompt(box=np.array([xs[0], ys[0], xs[1], ys[1]]))


def box_center(instance: Instance) -> Prompt:
    """The centre of the annotation's box; it need not lie on the object."""
    x0, y0, x1, y1 = instance.box
    return _point((x0 + x1) / 2, (y0 + y1) / 2)


def mask_center(instance: Instance) -> Prompt:
    """The pixel deepest inside the mask: the first maximum of the Euclidean distance transform."""
    return _point(*first_click(instance.mask))


def random_points(count: int) -> Callable[[Instance], Prompt]:
    """`count` pixels of the mask, uniform without replacement; a smaller mask gives all it has, padded with -1."""

    def function(instance: Instance) -> Prompt:
        rows, columns = np.nonzero(instance.mask)
        random = instance.random(f"random_{count}")
        chosen: list[int] = []
        while len(chosen) < min(count, len(rows)):
            pixel = int(random.randint(len(rows)))
            if pixel not in chosen:
                chosen.append(pixel)
        points, labels = np.zeros((count, 2)), np.full(count, -1)
        points[: len(chosen)] = np.stack([columns[chosen], rows[chosen]], axis=1)
        labels[: len(chosen)] = 1
        return Prompt(points, labels)

    return function


def click(count: int) -> Callable[[Instance], Prompt]:
    """The first of `count` interactive clicks; the others depend on what the variant predicts (see segany)."""
    return mask_center


TYPES: dict[str, Callable[[Instance], Prompt]] = {
    "box": box,
    "tight_box": tight_box,
    "noisy_box": noisy_box,
    "box_center": box_center,
    "mask_center": mask_center,
}
COUNTED_TYPES: dict[str, Callable[[int], Callable[[Instance], Prompt]]] = {
    "random": random_points,
    "click": click,
}


def prompt_function(name: str, also: Iterable[str] = ()) -> Callable[[Instance], Prompt]:
    """The function of a prompt type such as `box` or `random_3`.

    Raises InputError for an unknown name, with near matches among the types and `also`.
    """
    counted = re.fullmatch(r"(random|click)_([1-9][0-9]?)", name)
    if counted:
        return COUNTED_TYPES[counted[1]](int(counted[2]))
    if name not in TYPES:
        known = [*TYPES, "random_1", "random_3", "random_5", "click_1", "click_3", "click_5", *also]
        expected = "a prompt type or a detector" if also else "a prompt type"
        raise InputError("prompts", name, expected=expected, remedy=near_matches(name, known))
    return TYPES[name]


def clicks_of(name: str) -> int:
    """The number of interactive clicks of a prompt type; 0 for a type that is complete before any prediction."""
    kind, _, count = name.rpartition("_")
    return int(count) if kind == "click" else 0


def make_prompts(dataset: str, instances: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Prompts of several types for the instances of a dataset, rows in the order of the instances.

    Returns the columns of records.PROMPTS. Raises InputError for an unknown type.
    """
    import pandas as pd  # here, because Snakemake checks prompt types in every job and needs no tables for it

    functions = {name: prompt_function(name) for name in names}
    rows = []
    for row in instances.itertuples(index=False):
        mask = decode_rle(tuple(row.rle_size), row.rle_counts)
        edges = np.array([row.x, row.y, row.x + row.w, row.y + row.h])
        instance = Instance(dataset, row.annotation_id, edges, mask)
        for name, function in functions.items():
            prompt = function(instance)
            rows.append(
                (
                    row.annotation_id,
                    row.image_id,
                    name,
                    None if prompt.points is None else prompt.points.astype(np.float32).ravel(),
                    None if prompt.labels is None else prompt.labels.astype(np.int8),
                    None if prompt.box is None else prompt.box.astype(np.float32),
                )
            )
    return pd.DataFrame(rows, columns=["annotation_id", "image_id", "prompt", "points", "labels", "box"])
