"""The device that torch computes on."""

from __future__ import annotations

import torch


def synchronize() -> None:
    """Wait until a GPU has finished its work, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
