"""The contract of a variant that segments volumes: encode a cube of voxels once, then answer clicks in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sambench.errors import InputError
from sambench.variants.base import MaskCandidates, Prompts
from sambench.variants.neural import NeuralVariant

SINGLE = 0  # the mask token of a single answer; the others are those of the multimask output


class VolumeVariant(NeuralVariant):
    """A variant for cubes of voxels. It takes no prompt of an image: stages of images say `unsupported prompt`.

    side: voxels along each side of the cube that the network sees. low_side: those of its logits.
    """

    prompt_kinds = frozenset()
    side: int = 128
    low_side: int = 32

    @abstractmethod
    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """A cube of voxels, (side, side, side) of any real type -> the network's input (1, 1, side, side, side)."""

    @abstractmethod
    def encode_volume(self, prepared: torch.Tensor) -> torch.Tensor:
        """What `prepare` gives -> the embedding, which all clicks share."""

    @abstractmethod
    def answer(
        self, embedding: torch.Tensor, points: np.ndarray, labels: np.ndarray, previous: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clicks of one object -> logits (tokens, low_side, low_side, low_side) and predicted IoU (tokens,).

        points: (P, 3), indices along the axes of the cube. labels: (P,), 1 inside the object and 0 outside. previous:
        the logits (low_side, low_side, low_side) of the answer before; None at the first click.
        """

    def enlarge(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (N, low_side, low_side, low_side) -> (N, side, side, side) float32."""
        return F.interpolate(logits[:, None].float(), (self.side,) * 3, mode="trilinear", align_corners=False)[:, 0]

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        raise InputError(self.name, expected="a volume", found="an image", remedy="see docs/volumes.md")

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        raise InputError(self.name, "prompts", expected="clicks in a volume", found="prompts of an image")
