"""Enlarging logits: only what is shown is computed, and it is what the official steps give, to the bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sambench.variants.base import Upsampling


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("low", "frame"), [(64, 256), (32, 512), (50, 150), (48, 200)])
@pytest.mark.parametrize("size", [(60, 90), (107, 71), (80, 80), (1, 90), (89, 90)])
def test_equals_the_whole_frame_cut_afterwards(mode: str, low: int, frame: int, size: tuple[int, int]) -> None:
    crop = tuple(max(1, round(frame * side / max(size))) for side in size)
    logits = torch.randn(3, low, low, generator=torch.Generator().manual_seed(low)) * 10
    whole = F.interpolate(logits[:, None], (frame, frame), mode=mode, align_corners=False)
    shown = F.interpolate(whole[..., : crop[0], : crop[1]], size, mode=mode, align_corners=False)[:, 0]
    assert torch.equal(Upsampling(size, (frame, frame), crop, mode).logits(logits), shown)


def test_does_not_touch_what_the_padding_hides() -> None:
    logits = torch.randn(1, 64, 64)
    hidden = logits.clone()
    hidden[:, 40:] = torch.nan  # rows 160 and below of the frame; the crop ends at row 128
    upsampling = Upsampling((100, 200), (256, 256), (128, 256))
    assert torch.equal(upsampling.logits(hidden), upsampling.logits(logits))
