"""Interactive clicks: where a user would click next, from the truth and what was predicted so far.

The rule is that of the official EfficientViT-SAM evaluation (Clicker in
applications/efficientvit_sam/sam_eval_utils.py, after RITM): the pixel that lies deepest inside the larger
error. A click is x, y (column and row of a pixel) and a label, 1 on a missed part of the object, 0 on a part
that does not belong to it.

Depths are compared as squares, which are integers. A distance transform in float32, the official code's, has last bits
that depend on the width of the array and on the number of threads, and so had the first of two equal depths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

# How far a squared float32 distance may be off, in pixels and in units of (height + width)^2. OpenCV finds which of two
# zeros is nearer by a quotient of numbers up to that size: 2^-23 of it is 0.12e-6.
TOLERANCE = (0.5, 1e-6)
FAR = 1 << 20  # rows, more than any image has
AT_ONCE = 1 << 20  # pairs of a pixel and a column that are compared at once


def first_click(target: np.ndarray) -> tuple[int, int]:
    """(H, W) bool mask, not empty -> x, y of the pixel deepest inside it."""
    x, y, _ = _deepest(target, ())
    return x, y


def next_click(
    target: np.ndarray, prediction: np.ndarray, clicked: Iterable[tuple[int, int]] = ()
) -> tuple[int, int, int]:
    """The click that corrects a prediction the most: x, y, label.

    target, prediction: (H, W) bool masks. clicked: x, y of the clicks so far, which are not clicked again.

    The depths of both kinds of error are compared; a tie, and so a perfect prediction, gives a negative click
    (at the first pixel when there is no error at all), as in the official code.
    """
    clicked = list(clicked)
    miss_x, miss_y, miss = _deepest(target & ~prediction, clicked)
    extra_x, extra_y, extra = _deepest(prediction & ~target, clicked)
    return (miss_x, miss_y, 1) if miss > extra else (extra_x, extra_y, 0)


def _deepest(region: np.ndarray, clicked: Iterable[tuple[int, int]]) -> tuple[int, int, int]:
    """x, y and squared depth of the first pixel, in raster order, that is farthest from the outside of the region.

    The depth is the Euclidean distance to the nearest pixel outside; beyond the image is outside.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not len(rows):
        return 0, 0, 0
    # The nearest outside pixel is never beyond the frame of the region's bounding box, which is far smaller.
    top, left = int(rows[0]), int(columns[0])
    part = region[top : rows[-1] + 1, left : columns[-1] + 1]
    padded = cv2.copyMakeBorder(part.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    for x, y in clicked:
        if 0 <= y - top < part.shape[0] and 0 <= x - left < part.shape[1]:
            depth[y - top + 1, x - left + 1] = 0
    largest = float(depth.max())
    if not largest:
        return 0, 0, 0
    # All that rounding may have kept from being the largest; few pixels, whose squared depths are then made exactly.
    bar = largest**2 - TOLERANCE[0] - TOLERANCE[1] * sum(padded.shape) ** 2
    candidates = np.argwhere(depth >= math.sqrt(max(bar, 0.5)))
    squares = _squared_depths(padded, candidates, math.ceil(largest) + 1)
    first = int(squares.argmax())
    row, column = candidates[first]
    return left + int(column) - 1, top + int(row) - 1, int(squares[first])


def _squared_depths(region: np.ndarray, pixels: np.ndarray, reach: int) -> np.ndarray:
    """(N,) int64 squared distances of pixels (N, 2), as row and column, to the nearest zero of a (H, W) region.

    reach: more than any of these distances.
    """
    (top, left), (bottom, right) = np.maximum(pixels.min(axis=0) - reach, 0), pixels.max(axis=0) + reach + 1
    inside = region[top:bottom, left:right] != 0
    # For every pixel of the window, rows to the nearest zero in its column, above or below.
    rows = np.arange(inside.shape[0], dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(inside, -FAR, rows), axis=0)
    below = np.minimum.accumulate(np.where(inside, FAR, rows)[::-1], axis=0)[::-1]
    vertical = np.minimum(rows - above, below - rows).astype(np.int64) ** 2
    y, x = (pixels - (top, left)).T
    offsets = np.arange(-reach, reach + 1)
    squares = np.empty(len(pixels), dtype=np.int64)
    step = max(1, AT_ONCE // len(offsets))
    for start in range(0, len(pixels), step):
        part = slice(start, start + step)
        # Beyond the window its last column stands in, which is nearer than its offset says: no smaller than the truth.
        columns = np.clip(x[part, None] + offsets, 0, inside.shape[1] - 1)
        squares[part] = (vertical[y[part, None], columns] + offsets**2).min(axis=1)
    return squares
