"""Where segment-everything puts its prompts: point grids, crops, TinySAM's second round, and the names of samplers.

Points are (N, 2) float64 as x, y in fractions of the image (or crop), 0 to 1, unless said otherwise. Their order is
that of the official generators, because ties between masks are broken by it.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

import numpy as np

from sambench.errors import InputError, near_matches

GRID, HIERARCHICAL, OBJECT_AWARE, ORACLE_BOXES, NATIVE = (
    "grid",
    "hierarchical",
    "object_aware",
    "oracle_boxes",
    "native",
)
DEFAULT_SIDE = 32
COARSER = 4  # TinySAM's first round has a grid of a quarter of the points on each side


@dataclass(frozen=True)
class Sampler:
    """How prompts come about.

    kind: `grid` (every point of a grid), `hierarchical` (TinySAM: a coarse grid, then points where no confident mask
        is yet), `object_aware` (MobileSAMv2: boxes of a detector), `oracle_boxes` (boxes of the ground truth),
        `native` (a detector-style variant's own instances, no prompts).
    points_per_side: of the (full) grid; 0 for samplers without one.
    """

    kind: str
    points_per_side: int = 0

    @property
    def needs_boxes(self) -> bool:
        return self.kind in (OBJECT_AWARE, ORACLE_BOXES)


def parse_sampler(name: str) -> Sampler:
    """`grid_32`, `hierarchical` (of a grid of 32) or `hierarchical_16`, `object_aware`, `oracle_boxes`, `native`.

    Raises InputError with near matches for any other name.
    """
    if match := re.fullmatch(r"(grid|hierarchical)_([1-9]\d{0,2})", name):
        sampler = Sampler(match[1], int(match[2]))
        if sampler.kind == GRID or sampler.points_per_side >= COARSER:
            return sampler
    if name == HIERARCHICAL:
        return Sampler(name, DEFAULT_SIDE)
    if name in (OBJECT_AWARE, ORACLE_BOXES, NATIVE):
        return Sampler(name)
    known = ["grid_16", "grid_32", "grid_64", HIERARCHICAL, OBJECT_AWARE, ORACLE_BOXES, NATIVE]
    raise InputError("sampler", name, expected="a sampler", remedy=near_matches(name, known))


def point_grid(side: int) -> np.ndarray:
    """(side², 2): the centres of side x side equal cells, row by row."""
    offset = 1 / (2 * side)
    line = np.linspace(offset, 1 - offset, side)
    x, y = np.meshgrid(line, line)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def crop_boxes(
    height: int, width: int, layers: int, overlap_ratio: float
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The image and its crops as (layer, (x0, y0, x1, y1)) in pixels; layer i > 0 has 2^i x 2^i crops.

    Neighbours of the first layer of crops overlap by `overlap_ratio` of the image's shorter side, those of the
    layers below by as much less as they are smaller (generate_crop_boxes in segment_anything/utils/amg.py).
    """
    boxes = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / count))
        crop_width, crop_height = (math.ceil((overlap * (count - 1) + length) / count) for length in (width, height))
        for column, row in itertools.product(range(count), repeat=2):
            x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
            boxes.append((layer, (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))))
    return boxes


def second_round(coarse: np.ndarray, side: int, covered: np.ndarray) -> np.ndarray:
    """TinySAM's fine points: those of the `side` grid's neighbourhood of each coarse point that are not covered.

    coarse: (N, 2) fractions, the first round's grid. covered: (H, W) bool, pixels that a confident mask has.
    Returns (M, 2) fractions, possibly none.

    Around each coarse point, at whole strides of W // side and H // side pixels: its eight neighbours, then what lies
    two strides to the right, below, and both, as long as that is inside of the image (tinysam's
    hierarchical_mask_generator.py). Fractions are made from pixels as there: they come back to the same pixels.
    """
    height, width = covered.shape
    stride_x, stride_y = width // side, height // side
    neighbours = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
    points = []
    for fraction_x, fraction_y in coarse:
        x, y = fraction_x * width, fraction_y * height
        right, below = x + stride_x * 2 < width, y + stride_y * 2 < height
        offsets = list(neighbours)
        if right:
            offsets += [(2, dy) for dy in (-1, 0, 1)]
        if below:
            offsets += [(dx, 2) for dx in (-1, 0, 1)]
        if right and below:
            offsets.append((2, 2))
        for dx, dy in offsets:
            there = x + stride_x * dx, y + stride_y * dy
            if not covered[int(there[1]), int(there[0])]:
                points.append((there[0] / width, there[1] / height))
    return np.array(points, dtype=np.float64).reshape(-1, 2)
