"""Prompts from ground truth: one function per type, the same for every variant.

Coordinates are pixels of the original image, x to the right and y down. A point names a pixel by its column and row
(the pixel in the corner is (0, 0)); a box is given by its edges x0, y0, x1, y1, so that a box around the single
pixel (0, 0) is 0, 0, 1, 1. These are the conventions of COCO's boxes and of SAM's predictor.

Random types are seeded by (dataset, annotation id, type), so subsets and shards get the prompts of the whole. They
draw from numpy's RandomState, whose streams are frozen: the same prompts on every machine and numpy version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sambench.clicks import first_click
from sambench.errors import InputError, near_matches
from sambench.masks import decode_inside
from sambench.prompt_names import counted

if TYPE_CHECKING:
    import pandas as pd

NOISE = 0.1  # standard deviation of `noisy_box`, in units of the box side
NOISE_LIMIT = 20.0  # pixels
_STREAM = np.random.RandomState()


@dataclass(frozen=True)
class Instance:
    """One annotation, as the prompt functions see it.

    box: (4,) float64, the annotation box x0, y0, x1, y1.
    mask: (h, w) bool, not empty: the mask, or a part of it that holds all its pixels.
    corner: column and row in the image of the first pixel of `mask`.
    image_size: (H, W) of the image; of `mask` where it is not given.
    """

    dataset: str
    annotation_id: int
    box: np.ndarray
    mask: np.ndarray
    corner: tuple[int, int] = (0, 0)
    image_size: tuple[int, int] | None = None

    @classmethod
    def of_rle(cls, dataset: str, annotation_id: int, box: np.ndarray, size: Sequence[int], counts: bytes) -> Instance:
        """From compressed COCO run-lengths of `size` [H, W]; only the pixels of the mask's own box are drawn."""
        part, (x, y) = decode_inside(size, counts)
        return cls(dataset, annotation_id, box, part, (x, y), (size[0], size[1]))

    @cached_property
    def pixels_until(self) -> np.ndarray:
        """(h,) int64: how many pixels of the mask there are in each row and those above."""
        return np.cumsum(np.count_nonzero(self.mask, axis=1))

    def pixel(self, number: int) -> tuple[int, int]:
        """x, y in the image of pixel `number` of the mask, counted from 0 in raster order."""
        row = int(np.searchsorted(self.pixels_until, number, side="right"))
        before = int(self.pixels_until[row - 1]) if row else 0
        column = int(np.flatnonzero(self.mask[row])[number - before])
        return self.corner[0] + column, self.corner[1] + row

    def random(self, prompt: str) -> np.random.RandomState:
        """The random stream of one prompt type on this annotation, to be drawn from before the next is asked for."""
        text = f"{self.dataset}/{self.annotation_id}/{prompt}"
        # Seeded anew each time: a new RandomState asks the system for entropy first, which costs 75 times as much.
        _STREAM.seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))
        return _STREAM


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
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return Prompt(box=edges + np.array(2 * instance.corner))


def noisy_box(instance: Instance) -> Prompt:
    """The annotation's box, every side moved on its own.

    Each of x0, y0, x1, y1 moves by a normal of standard deviation 10 % of the box's extent along that axis, cut at
    20 pixels to either side. Sides that cross are swapped and the box is clipped to the image.
    """
    x0, y0, x1, y1 = instance.box
    sigma = NOISE * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    noise = np.clip(instance.random("noisy_box").normal(size=4) * sigma, -NOISE_LIMIT, NOISE_LIMIT)
    moved = instance.box + noise
    height, width = instance.image_size or instance.mask.shape
    xs, ys = np.clip(np.sort(moved[[0, 2]]), 0, width), np.clip(np.sort(moved[[1, 3]]), 0, height)
    return Prompt(box=np.array([xs[0], ys[0], xs[1], ys[1]]))


def box_center(instance: Instance) -> Prompt:
    """The centre of the annotation's box; it need not lie on the object."""
    x0, y0, x1, y1 = instance.box
    return _point((x0 + x1) / 2, (y0 + y1) / 2)


def mask_center(instance: Instance) -> Prompt:
    """The pixel deepest inside the mask: the first maximum of the Euclidean distance transform."""
    x, y = first_click(instance.mask)
    return _point(instance.corner[0] + x, instance.corner[1] + y)


def random_points(count: int) -> Callable[[Instance], Prompt]:
    """`count` pixels of the mask, uniform without replacement; a smaller mask gives all it has, padded with -1."""

    def function(instance: Instance) -> Prompt:
        area = int(instance.pixels_until[-1])
        random = instance.random(f"random_{count}")
        chosen: list[int] = []
        while len(chosen) < min(count, area):
            pixel = int(random.randint(area))
            if pixel not in chosen:
                chosen.append(pixel)
        points, labels = np.zeros((count, 2)), np.full(count, -1)
        points[: len(chosen)] = [instance.pixel(number) for number in chosen]
        labels[: len(chosen)] = 1
        return Prompt(points, labels)

    return function


def _clipped(instance: Instance, edges: np.ndarray) -> Prompt:
    """A box x0, y0, x1, y1 inside the image; edges that crossed are swapped."""
    height, width = instance.image_size or instance.mask.shape
    xs, ys = np.clip(np.sort(edges[[0, 2]]), 0, width), np.clip(np.sort(edges[[1, 3]]), 0, height)
    return Prompt(box=np.array([xs[0], ys[0], xs[1], ys[1]]))


def _extent(instance: Instance) -> np.ndarray:
    """Width and height of the annotation's box, for each of its four edges."""
    x0, y0, x1, y1 = instance.box
    return np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])


def box_pad(percent: int) -> Callable[[Instance], Prompt]:
    """The annotation's box, every side moved outwards by so many per cent of the box's extent."""

    def function(instance: Instance) -> Prompt:
        return _clipped(instance, instance.box + percent / 100 * _extent(instance) * [-1, -1, 1, 1])

    return function


def box_jitter(percent: int) -> Callable[[Instance], Prompt]:
    """The annotation's box, every side moved on its own, uniformly up to so many per cent of the box's extent."""

    def function(instance: Instance) -> Prompt:
        draws = instance.random(f"box_jitter_{percent}").uniform(-1, 1, size=4)
        return _clipped(instance, instance.box + percent / 100 * _extent(instance) * draws)

    return function


def box_shift(percent: int) -> Callable[[Instance], Prompt]:
    """The annotation's box as a whole, moved by so many per cent of its extent in a random direction."""

    def function(instance: Instance) -> Prompt:
        angle = instance.random(f"box_shift_{percent}").uniform(0, 2 * np.pi)
        way = np.array([np.cos(angle), np.sin(angle)] * 2)
        return _clipped(instance, instance.box + percent / 100 * _extent(instance) * way)

    return function


def point_shift(percent: int) -> Callable[[Instance], Prompt]:
    """A pixel of the mask, so many per cent of the way from the deepest one to a random one.

    Where the way leaves the mask it is the pixel of the mask that is nearest, the first of equals in raster order.
    """

    def function(instance: Instance) -> Prompt:
        corner = np.array(instance.corner)
        number = int(instance.random(f"point_shift_{percent}").randint(int(instance.pixels_until[-1])))
        start, end = np.array(first_click(instance.mask)), np.array(instance.pixel(number)) - corner
        x, y = start + percent / 100 * (end - start)
        rows, columns = np.nonzero(instance.mask)
        nearest = int(((columns - x) ** 2 + (rows - y) ** 2).argmin())
        return _point(*(corner + (columns[nearest], rows[nearest])))

    return function


def sample(number: int) -> Callable[[Instance], Prompt]:
    """One uniform pixel of the mask; each number gives another one."""

    def function(instance: Instance) -> Prompt:
        chosen = int(instance.random(f"sample_{number}").randint(int(instance.pixels_until[-1])))
        return _point(*instance.pixel(chosen))

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
    "box_pad": box_pad,
    "box_jitter": box_jitter,
    "box_shift": box_shift,
    "point_shift": point_shift,
    "sample": sample,
}
EXAMPLES = (
    *("random_1", "random_3", "random_5", "click_1", "click_3", "click_5"),
    *("box_pad_10", "box_jitter_10", "box_shift_10", "point_shift_10", "sample_1"),
)


def prompt_function(name: str, also: Iterable[str] = ()) -> Callable[[Instance], Prompt]:
    """The function of a prompt type such as `box` or `random_3`.

    Raises InputError for an unknown name, with near matches among the types and `also`.
    """
    kind, count = counted(name)
    if kind:
        return COUNTED_TYPES[kind](count)
    if name not in TYPES:
        known = [*TYPES, *EXAMPLES, *also]
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
        edges = np.array([row.x, row.y, row.x + row.w, row.y + row.h])
        instance = Instance.of_rle(dataset, row.annotation_id, edges, row.rle_size, row.rle_counts)
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
