"""Detections that agree, whatever the order of equal scores, which rounding decides."""

from __future__ import annotations

import numpy as np

from sambench.detectors.base import Detections


def alike(one: Detections, other: Detections) -> bool:
    """Whether each box of one has a box of the other within 0.01 pixel whose score is within 1e-5, and the reverse."""
    apart = np.abs(one.boxes[:, None] - other.boxes[None]).max(axis=-1) > 1e-2
    apart |= np.abs(one.scores[:, None] - other.scores[None]) > 1e-5
    return len(one.scores) == len(other.scores) and not (apart.all(axis=0).any() or apart.all(axis=1).any())
