"""Interactive clicks: where a user would click next, from the truth and what was predicted so far.

The rule is that of the official EfficientViT-SAM evaluation (Clicker in
applications/efficientvit_sam/sam_eval_utils.py, after RITM): the pixel that lies deepest inside the larger
error. A click is x, y (column and row of a pixel) and a label, 1 on a missed part of the object, 0 on a part
that does not belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np


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


def _deepest(region: np.ndarray, clicked: Iterable[tuple[int, int]]) -> tuple[int, int, float]:
    """x, y and depth of the first pixel, in raster order, that is farthest from the outside of the region.

    The depth is the exact Euclidean distance to the nearest pixel outside; beyond the image is outside.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not len(rows):
        return 0, 0, 0.0
    # The nearest outside pixel is never beyond the frame of the region's bounding box, which is far smaller.
    top, left = int(rows[0]), int(columns[0])
    part = region[top : rows[-1] + 1, left : columns[-1] + 1]
    padded = np.pad(part.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    for x, y in clicked:
        if 0 <= y - top < depth.shape[0] and 0 <= x - left < depth.shape[1]:
            depth[y - top, x - left] = 0
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    if not depth[row, column]:
        return 0, 0, 0.0
    return left + int(column), top + int(row), float(depth[row, column])
