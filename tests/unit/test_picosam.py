"""PicoSAM: crops by hand, masks back in their place, both generations in their layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sambench.parity.models import load_cards
from sambench.variants.base import Prompts, Runtime
from sambench.variants.loading import looks_like
from sambench.variants.picosam import PicoSamVariant, square_crop
from sambench.variants.registry import build

CPU = Runtime(device="cpu", threads=1)


def built(name: str) -> PicoSamVariant:
    variant = build(load_cards()[name], CPU, random_weights=True)
    assert isinstance(variant, PicoSamVariant)
    return variant


def test_the_crop_is_the_padded_square_cut_off_at_the_image() -> None:
    # 100 x 50, padded by a tenth on every side: 120 x 60, so a square of 120 around (150, 125).
    assert square_crop((100, 100, 200, 150), 400, 300) == (90, 65, 210, 185)
    assert square_crop((0, 0, 50, 50), 400, 300) == (0, 0, 55, 55)
    assert square_crop((380, 280, 400, 300), 400, 300) == (378, 278, 400, 300)
    # Boxes without an extent, or outside the image, still give a pixel to look at.
    assert square_crop((10, 10, 10, 10), 400, 300) == (10, 10, 11, 11)
    assert square_crop((900, 900, 950, 950), 400, 300) == (399, 299, 400, 300)


@pytest.mark.parametrize("name", ["picosam2", "picosam3"])
def test_masks_lie_in_their_crops(name: str) -> None:
    variant = built(name)
    assert looks_like(variant.module.state_dict()) == (name,)
    head = variant.module.refine[3] if name == "picosam3" else variant.module.output_head
    head.weight.zero_()
    head.bias.fill_(1.0)  # every pixel of every crop is in the mask
    (features,) = variant.encode([np.zeros((300, 400, 3), dtype=np.uint8)])
    boxes = np.array([[100, 100, 200, 150], [0, 0, 50, 50]], dtype=np.float32)
    candidates = variant.decode(features, Prompts(boxes=boxes))
    masks = candidates.upsampling.masks(candidates.logits[:, 0])
    expected = torch.zeros(2, 300, 400, dtype=torch.bool)
    expected[0, 65:185, 90:210] = True
    expected[1, :55, :55] = True
    assert torch.equal(masks, expected)
    assert bool(candidates.scores.isnan().all())
    assert variant.encodes_prompts
    assert not variant.supports(Prompts(points=np.zeros((1, 1, 2)), labels=np.ones((1, 1), dtype=np.int64)))


def test_each_prompt_sees_its_own_crop() -> None:
    variant = built("picosam3")
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    pixels = variant.crop_pixels(image, [(0, 0, 96, 96), (50, 60, 146, 156)])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for row, (x, y) in zip(pixels, [(0, 0), (50, 60)], strict=True):
        expected = (torch.tensor(image[y : y + 96, x : x + 96]) / 255 - mean) / std
        torch.testing.assert_close(row.permute(1, 2, 0), expected)
