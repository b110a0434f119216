"""Boundary IoU: how well the outline of a mask is met, whatever the size of the object.

Cheng et al., Boundary IoU, CVPR 2021 (arXiv 2103.16562): the IoU of the pixels of both masks that lie within d pixels
of their own contour. As in the authors' code (boundary_iou/utils/boundary_utils.py), d is 2 % of the image's diagonal,
rounded, at least 1; distance is by rows and columns (a square is eroded), and what is beyond the image is outside.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

RATIO = 0.02  # of the diagonal


class Boundary(NamedTuple):
    """The boundary of a mask: (h, w) bool, the column and row of its first pixel in the image, and its pixels."""

    pixels: np.ndarray
    corner: tuple[int, int]
    area: int


def width_of(height: int, width: int) -> int:
    """How many pixels wide the boundary is in an image of that size."""
    return max(1, round(RATIO * float(np.hypot(height, width))))


def boundary(mask: np.ndarray, width: int) -> Boundary:
    """The pixels of a (H, W) bool mask that are at most `width` pixels from one outside, along rows and columns."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return Boundary(mask[:0, :0], (0, 0), 0)
    part = mask[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(part.any(axis=0))
    part = part[:, columns[0] : columns[-1] + 1]
    corner = int(columns[0]), int(rows[0])
    if min(part.shape) > 2 * width:  # else no pixel lies deeper
        part = np.ascontiguousarray(part)
        square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
        inner = cv2.erode(part.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
        part = part & ~inner.view(bool)
    return Boundary(part, corner, int(np.count_nonzero(part)))


def boundary_iou(a: Boundary, b: Boundary) -> float:
    """Intersection over union of two boundaries in one image; 0 where both are empty."""
    (left, top), (right, bottom) = (
        tuple(choose(ends) for ends in zip(*corners, strict=True))
        for choose, corners in ((max, (a.corner, b.corner)), (min, (_end(a), _end(b))))
    )
    shared = 0
    if left < right and top < bottom:
        parts = [
            each.pixels[top - each.corner[1] : bottom - each.corner[1], left - each.corner[0] : right - each.corner[0]]
            for each in (a, b)
        ]
        shared = int(np.count_nonzero(parts[0] & parts[1]))
    union = a.area + b.area - shared
    return shared / union if union else 0.0


def _end(boundary: Boundary) -> tuple[int, int]:
    return boundary.corner[0] + boundary.pixels.shape[1], boundary.corner[1] + boundary.pixels.shape[0]
