"""The stability score of a mask: how little it changes when the threshold moves."""

from __future__ import annotations

import torch


def stability_score(logits: torch.Tensor, threshold: float = 0.0, offset: float = 1.0) -> torch.Tensor:
    """Pixels above threshold + offset, over pixels above threshold - offset: (..., h, w) -> (...) float32.

    One mask contains the other, so this is their IoU. It is NaN where both are empty. Official file:
    segment_anything/utils/amg.py.
    """
    inner = (logits > threshold + offset).sum(dim=(-2, -1))
    outer = (logits > threshold - offset).sum(dim=(-2, -1))
    return inner / outer
