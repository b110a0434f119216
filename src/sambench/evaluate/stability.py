"""The stability score of a mask: how little it changes when the threshold moves (segment_anything/utils/amg.py)."""

from __future__ import annotations

import torch


def stability_score(logits: torch.Tensor, threshold: float = 0.0, offset: float = 1.0) -> torch.Tensor:
    """(..., h, w) logits -> (...) float32: pixels above threshold + offset, over pixels above threshold - offset.

    One mask contains the other, so this is their IoU. It is NaN where both are empty.
    """
    inner = (logits > threshold + offset).sum(dim=(-2, -1))
    outer = (logits > threshold - offset).sum(dim=(-2, -1))
    return inner / outer
