"""Clicks in a volume, and how good an answer is."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt


def next_click(truth: np.ndarray, answer: np.ndarray) -> tuple[tuple[int, int, int], int] | None:
    """The voxel deepest inside the larger error of an answer, and its label: 1 where the object was missed, else 0.

    truth, answer: (X, Y, Z) bool. The rule of RITM (arXiv 2102.06583), with one axis more: the error whose deepest
    voxel is farther from its edge counts, on a tie the one outside of the object; the edge of the volume is an edge;
    of equally deep voxels it is the first one in the order of the array. None where the answer is right.
    """
    depths = [_depth(wrong) for wrong in (truth & ~answer, answer & ~truth)]
    missed, too_much = (float(depth.max(initial=0.0)) for depth in depths)
    if not (missed or too_much):
        return None
    label = int(missed > too_much)
    depth = depths[1 - label]
    x, y, z = np.unravel_index(int(depth.argmax()), depth.shape)
    return (int(x), int(y), int(z)), label


def _depth(mask: np.ndarray) -> np.ndarray:
    """(X, Y, Z), the distance of each voxel of a mask to the nearest one outside of it."""
    depth = np.zeros(mask.shape, dtype=np.float64)
    covered = [np.flatnonzero(mask.any(axis=tuple(o for o in range(3) if o != axis))) for axis in range(3)]
    if covered[0].size:
        box = tuple(slice(int(c[0]), int(c[-1]) + 1) for c in covered)  # beyond it everything is outside
        depth[box] = distance_transform_edt(np.pad(mask[box], 1))[1:-1, 1:-1, 1:-1]
    return depth


def overlap(truth: np.ndarray, answer: np.ndarray) -> tuple[float, float]:
    """(Dice, IoU) of two masks (X, Y, Z) bool; 1 for two empty ones."""
    common, total = int((truth & answer).sum()), int(truth.sum()) + int(answer.sum())
    return (1.0, 1.0) if total == 0 else (2 * common / total, common / (total - common))
