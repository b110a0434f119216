"""What the variants share that stretch an image to a square: SAM 2 and its relatives, and EfficientSAM.

Unlike SAM, nothing is padded: width and height are scaled apart, prompts with them, and a box is not a prompt
of its own kind but two labelled points in front of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sambench.variants.base import Features, Prompts, Runtime
from sambench.variants.neural import NeuralVariant

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TOP_LEFT, BOTTOM_RIGHT = 2, 3  # labels of the corners of a box


@dataclass(frozen=True)
class Stretched:
    """What the encoder gets, (1, 3, S, S) float32 on the CPU, and the (height, width) of the image."""

    pixels: torch.Tensor
    original_size: tuple[int, int]


class StretchVariant(NeuralVariant):
    """A variant whose frame is the whole image, stretched to `pixel_size` x `pixel_size`.

    mean, std: of the normalization, on [0, 1].
    antialias: torchvision's Resize filters when it shrinks, plain interpolation does not.
    whole: pixels are resized as whole numbers, and rounded to such, before they are scaled to [0, 1].
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    antialias = True
    whole = False

    def __init__(
        self,
        module: nn.Module,
        runtime: Runtime,
        rename: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
        *,
        pixel_size: int = 1024,
    ) -> None:
        super().__init__(module, runtime, rename)
        self.pixel_size = pixel_size

    def prepare(self, image: np.ndarray) -> Stretched:
        x = torch.tensor(image).permute(2, 0, 1)[None].contiguous()
        size = (self.pixel_size, self.pixel_size)
        x = x if self.whole else x.float().div(255)
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=self.antialias)
        x = x.float().div(255) if self.whole else x
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return Stretched((x - mean) / std, image.shape[:2])

    def pixels(self, prepared: Stretched) -> torch.Tensor:
        return self.on_device(prepared.pixels)

    def sizes(self, prepared: Stretched) -> tuple[tuple[int, int], tuple[int, int]]:
        return prepared.original_size, (self.pixel_size, self.pixel_size)

    def labelled_points(self, features: Features, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts -> points (N, P, 2) as x, y in the square, and labels (N, P); corners come first."""
        height, width = features.original_size
        scale = (self.pixel_size / width, self.pixel_size / height)
        points, labels, boxes = self.tensor_points(prompts, scale)
        if boxes is None:
            assert points is not None and labels is not None  # Prompts holds boxes or points
            return points, labels
        corners = boxes.view(-1, 2, 2)
        corner_labels = self.on_device(torch.tensor([TOP_LEFT, BOTTOM_RIGHT])).expand(len(boxes), 2)
        if points is None or labels is None:
            return corners, corner_labels
        return torch.cat([corners, points], dim=1), torch.cat([corner_labels, labels], dim=1)
