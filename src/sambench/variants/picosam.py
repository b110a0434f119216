"""PicoSAM2 and PicoSAM3: a U-Net of 1.3 M parameters on the crop around a box (arXiv 2506.18807, 2603.11917).

Official code: pbonazzi/picosam3, model_compression (networks; the box padded to a square) and demo_picosam3.py (how a
mask goes back into the image). The prompt is the crop itself, so nothing but the image is shared between the prompts
of an image: the whole network runs once per box, on 96 x 96 pixels, and `encodes_prompts` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sambench.variants.base import BOX, Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.neural import NeuralVariant, renamer
from sambench.variants.stretch import IMAGENET_MEAN, IMAGENET_STD

SIDE = 96
PADDING = 0.1  # of the box's width and height, on every side
WIDTHS = (48, 96, 160, 256)  # of the encoder's levels, each half as wide as the one before
UP_WIDTHS = (40, 80, 128, 192)
BOTTOM = 320
RENAMES = [(r"^up(\d)\.1\.", r"up\1.")]


def square_crop(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """A box x0, y0, x1, y1 -> its padded square, cut off at the image, in whole pixels; never empty."""
    x0, y0, x1, y1 = (float(value) for value in box)
    # In the order of the official code, since a rounding may decide which whole pixel is next.
    pad_x, pad_y = PADDING * (x1 - x0), PADDING * (y1 - y0)
    padded_width, padded_height = x1 - x0 + 2 * pad_x, y1 - y0 + 2 * pad_y
    centre_x, centre_y = x0 - pad_x + padded_width / 2, y0 - pad_y + padded_height / 2
    side = max(padded_width, padded_height)
    left, top = int(max(0, centre_x - side / 2)), int(max(0, centre_y - side / 2))
    left, top = min(left, width - 1), min(top, height - 1)
    right = int(min(width, centre_x - side / 2 + side))
    bottom = int(min(height, centre_y - side / 2 + side))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def separable(inputs: int, outputs: int, dilation: int = 1) -> list[nn.Module]:
    """A 3x3 convolution by channel and a 1x1 convolution, each with a norm and a ReLU."""
    return [
        nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


class ChannelAttention(nn.Module):
    """(B, C, h, w) scaled by channel with what a layer makes of the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv1x1(x.mean(dim=(2, 3), keepdim=True)).sigmoid()


class PicoSamNetwork(nn.Module):
    """Crops (B, 3, 96, 96) -> logits (B, 1, 96, 96).

    third: PicoSAM3, which has a second, dilated pair of convolutions at the bottom and refines what comes out.
    """

    def __init__(self, *, third: bool) -> None:
        super().__init__()
        for level, (inputs, width) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False), start=1):
            self.add_module(f"encoder_stage{level}", nn.Sequential(*separable(inputs, width)))
            self.add_module(f"down{level}", nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
            self.add_module(f"skip_conn{level}", nn.Conv2d(width, UP_WIDTHS[level - 1], 1))
        bottom = separable(WIDTHS[-1], BOTTOM)
        self.bottleneck = (
            nn.Sequential(nn.Sequential(*bottom), *separable(BOTTOM, BOTTOM, dilation=2))
            if third
            else nn.Sequential(*bottom)
        )
        coarse_to_fine = (BOTTOM, *UP_WIDTHS[::-1])
        for step, (inputs, width) in enumerate(pairwise(coarse_to_fine), start=1):
            self.add_module(f"up{step}", nn.Sequential(*separable(inputs, width)))
        finest = UP_WIDTHS[0]
        if third:
            self.eca = ChannelAttention(finest)
            self.refine = nn.Sequential(
                nn.Conv2d(finest, finest, 3, padding=1, groups=finest, bias=False),
                nn.BatchNorm2d(finest),
                nn.ReLU(),
                nn.Conv2d(finest, 1, 1),
            )
        else:
            self.output_head = nn.Conv2d(finest, 1, 1)
        self.third = third

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        part, maps = self.get_submodule, []
        for level in (1, 2, 3, 4):
            x = part(f"encoder_stage{level}")(x)
            maps.append(x)
            x = part(f"down{level}")(x)
        x = self.bottleneck(x)
        for step in (1, 2, 3, 4):
            x = part(f"up{step}")(F.interpolate(x, scale_factor=2, mode="nearest"))
            x = x + part(f"skip_conn{5 - step}")(maps.pop())
        return self.refine(self.eca(x)) if self.third else self.output_head(x)


class PicoSamVariant(NeuralVariant):
    """A PicoSAM: encoding keeps the image; decoding crops it around each box and runs the network on the crops."""

    module: PicoSamNetwork
    prompt_kinds = frozenset({BOX})
    encodes_prompts = True

    def __init__(self, runtime: Runtime, *, third: bool) -> None:
        super().__init__(PicoSamNetwork(third=third), runtime, renamer(RENAMES))
        self.decode_chunk = 64

    def compile(self) -> None:
        self.module.compile()

    def encode_prepared(self, prepared: Sequence[np.ndarray]) -> list[Features]:
        return [Features({"image": image}, image.shape[:2], (SIDE, SIDE)) for image in prepared]

    def crop_pixels(self, image: np.ndarray, crops: Sequence[tuple[int, int, int, int]]) -> torch.Tensor:
        """(H, W, 3) uint8 RGB and N crops -> normalized (N, 3, 96, 96) float32 on the device."""
        whole = Image.fromarray(image)
        resized = [whole.crop(crop).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for crop in crops]
        x = torch.tensor(np.stack([np.asarray(one) for one in resized])).permute(0, 3, 1, 2).float().div(255)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self.on_device((x - mean) / std)

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        """Masks of the size of the image, bool: each probability map is enlarged in its own crop."""
        assert prompts.boxes is not None  # prompt_kinds has boxes alone
        height, width = features.original_size
        crops = [square_crop(box, width, height) for box in prompts.boxes]
        logits = self.module(self.crop_pixels(features.maps["image"], crops).to(self.dtype)).float()
        masks = torch.zeros(len(crops), 1, height, width, dtype=torch.bool, device=self.device)
        for mask, (left, top, right, bottom), own in zip(masks, crops, logits.sigmoid(), strict=True):
            size = (bottom - top, right - left)
            enlarged = F.interpolate(own[None], size, mode="bilinear", align_corners=False)
            mask[:, top:bottom, left:right] = enlarged[0] > 0.5
        return MaskCandidates(
            logits=masks,
            scores=torch.full((len(crops), 1), float("nan"), device=self.device),
            multimask=(0,),
            single=torch.zeros(len(crops), dtype=torch.int64, device=self.device),
            upsampling=Upsampling(size=features.original_size),
        )


def build_picosam(runtime: Runtime, generation: int) -> PicoSamVariant:
    """PicoSAM2 or PicoSAM3 (`generation` 2 or 3)."""
    return PicoSamVariant(runtime, third=generation == 3)
