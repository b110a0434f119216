"""Cutting the cube that a network sees out of a volume, as torchio's CropOrPad(mask_name="label") does it."""

from __future__ import annotations

import numpy as np


def cube_start(mask: np.ndarray, side: int) -> tuple[int, int, int]:
    """Where the cube around a mask (X, Y, Z) begins: the middle of its bounding box is the middle of the cube.

    A middle that lies on no voxel's edge is rounded down by half a voxel. Negative where the cube begins outside.
    """
    starts = []
    for axis in range(3):
        covered = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        starts.append((int(covered[0]) + int(covered[-1]) + 1) // 2 - side // 2)
    return starts[0], starts[1], starts[2]


def cut(volume: np.ndarray, start: tuple[int, int, int], side: int) -> np.ndarray:
    """The cube (side, side, side) of a volume (X, Y, Z) that begins at `start`; zeros where it lies outside."""
    cube = np.zeros((side,) * 3, dtype=volume.dtype)
    inside = [(max(0, at), min(length, at + side)) for at, length in zip(start, volume.shape, strict=True)]
    if all(low < high for low, high in inside):
        source = tuple(slice(low, high) for low, high in inside)
        target = tuple(slice(low - at, high - at) for (low, high), at in zip(inside, start, strict=True))
        cube[target] = volume[source]
    return cube
