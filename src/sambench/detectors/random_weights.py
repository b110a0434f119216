"""Random weights for a detector that has no file: the same ones each time, and boxes that differ from each other."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def randomize(network: nn.Module, loud: tuple[str, ...] = (), seed: int = 0) -> None:
    """Draw all parameters anew: matrices keep the scale of what goes through them, norms are 1, the rest is near 0.

    loud: endings of the names of matrices that get three times the scale. The scores of an untrained classifier are
    otherwise all about the same, and below every threshold.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2:
            scale = (3.0 if name.endswith(loud) else 1.0) / math.sqrt(parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        elif name.endswith(".weight"):
            parameter.fill_(1.0)
        else:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
