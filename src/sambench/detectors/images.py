"""What detectors do to an image before their network: a size by the shorter side, PIL's resampling, normalization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def detr_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """(height, width) whose shorter side is `short`, or less where the longer one would exceed `longest`.

    The longer side is cut to an integer (datasets/transforms.py of DETR).
    """
    low, high = min(height, width), max(height, width)
    if high / low * short > longest:
        short = max(1, round(longest * low / high))
    other = int(short * high / low)
    return (short, other) if height <= width else (other, short)


def detectron_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """The same with both sides rounded half up (ResizeShortestEdge of detectron2)."""
    scale = short / min(height, width)
    # In the official order of products, which decides about ties of rounding.
    high, wide = (float(short), scale * width) if height < width else (scale * height, float(short))
    if max(high, wide) > longest:
        scale = longest / max(high, wide)
        high, wide = high * scale, wide * scale
    return max(1, int(high + 0.5)), max(1, int(wide + 0.5))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3) uint8 of `size`, bilinear with antialiasing, by Pillow."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def normalize(image: np.ndarray, mean: Sequence[float], std: Sequence[float], scale: float = 1.0) -> torch.Tensor:
    """(h, w, 3) uint8 -> (1, 3, h, w) float32: (pixel / scale - mean) / std."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    if scale != 1:
        pixels = pixels / scale
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
