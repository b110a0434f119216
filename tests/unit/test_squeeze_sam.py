"""SqueezeSAM: the channels of its prompts by hand, what it refuses, and what encoding means for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sambench.errors import InputError
from sambench.parity.models import load_cards
from sambench.variants.base import Prompts, Runtime
from sambench.variants.loading import looks_like
from sambench.variants.registry import build
from sambench.variants.squeeze_sam import OLDER_KEY, RADIUS, SqueezeSamVariant, prompt_channels

CPU = Runtime(device="cpu", threads=1)


@pytest.fixture(scope="module")
def variant() -> SqueezeSamVariant:
    built = build(load_cards()["squeeze_sam"], CPU, random_weights=True)
    assert isinstance(built, SqueezeSamVariant)
    return built


def test_a_box_includes_its_edges_and_negative_points_leave_no_mark() -> None:
    boxes = torch.tensor([[10.0, 20.5, 30.0, 40.0]])
    box, discs = prompt_channels(boxes, torch.tensor([[[50.0, 60.0]]]), torch.tensor([[0]]))[0]
    rows, columns = box.nonzero().unbind(1)
    assert (int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())) == (10, 30, 21, 40)
    assert int(box.sum()) == 21 * 20
    assert int(discs.sum()) == 0


def test_points_are_discs_and_leave_the_whole_square_as_the_box() -> None:
    points, labels = torch.tensor([[[100.0, 7.5], [500.0, 3.0], [0.0, 0.0]]]), torch.tensor([[1, 1, -1]])
    box, discs = prompt_channels(None, points, labels)[0]
    assert bool(box.all())
    expected = {
        (y, x)
        for px, py in ((100.0, 7.5), (500.0, 3.0))
        for y in range(20)
        for x in range(90, 512)
        if (x - px) ** 2 + (y - py) ** 2 <= RADIUS**2
    }
    assert {(y, x) for y, x in discs.nonzero().tolist()} == expected


def test_prompts_reach_the_square_and_the_image_is_shared(variant: SqueezeSamVariant) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    (features,) = variant.encode([image])
    assert list(features.maps) == ["image"]
    prompts = Prompts(boxes=np.array([[20, 10, 120, 60], [-4, -4, 50, 50]], dtype=np.float32))
    fused = variant.fused(features, prompts)
    assert fused.shape == (2, 5, 512, 512)
    assert torch.equal(fused[0, :3], fused[1, :3])
    rows, columns = fused[0, 3].nonzero().unbind(1)
    # 20 * 512 / 200 = 51.2, 120 * 512 / 200 = 307.2; 10 * 512 / 100 = 51.2, 60 * 512 / 100 = 307.2
    assert (int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())) == (52, 307, 52, 307)
    assert bool(fused[1, 3, 0, 0])


def test_one_prompt_at_a_time_gives_what_two_at_once_give(variant: SqueezeSamVariant) -> None:
    (features,) = variant.encode([np.full((64, 64, 3), 90, dtype=np.uint8)])
    prompts = Prompts(
        points=np.array([[[10, 20]], [[40, 50]]], dtype=np.float32), labels=np.ones((2, 1), dtype=np.int64)
    )
    both = variant.decode(features, prompts)
    assert both.logits.shape == (2, 4, 256, 256)
    assert both.single.tolist() == [1, 1]
    alone = variant.decode(features, prompts[1:])
    torch.testing.assert_close(alone.logits[0], both.logits[1], rtol=1e-4, atol=1e-5)
    assert not torch.equal(both.logits[0], both.logits[1])


def test_only_this_variant_encodes_prompts(variant: SqueezeSamVariant) -> None:
    assert variant.encodes_prompts
    assert not build(load_cards()["box_fill"], CPU).encodes_prompts


def test_refusals(variant: SqueezeSamVariant) -> None:
    (features,) = variant.encode([np.zeros((32, 32, 3), dtype=np.uint8)])
    negative = Prompts(points=np.zeros((1, 1, 2), dtype=np.float32), labels=np.zeros((1, 1), dtype=np.int64))
    with pytest.raises(InputError, match="a positive point"):
        variant.decode(features, negative)
    older = {"image_encoder.proj.0.weight": torch.zeros(1), OLDER_KEY + "0.up.norm.bias": torch.zeros(1)}
    with pytest.raises(InputError, match=r"older\.pt: .*two days earlier.*3477a43"):
        variant.load_official(older, "older.pt")
    assert looks_like({"get_iou_predictions_and_mask_tokens.iou_token.weight": torch.zeros(1, 256)}) == ("squeeze_sam",)
