"""RAP-SAM: sizes, the encoding of a click and attention against independent code; what prompts it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import DeformConv2d

from sambench.errors import InputError
from sambench.measure.efficiency import operations
from sambench.parity.models import load_cards
from sambench.variants.base import Features, Prompts, Runtime
from sambench.variants.rap_sam import Attention, RapSamVariant, box_encoding, shorter_side
from sambench.variants.registry import build


@pytest.fixture(scope="module")
def variant() -> RapSamVariant:
    with torch.device("meta"):
        built = build(load_cards()["rap_sam_r50"], Runtime(device="meta"), random_weights=True)
    assert isinstance(built, RapSamVariant)
    return built


def points(*labels: int) -> Prompts:
    """One prompt with a point of each label."""
    return Prompts(points=np.full((1, len(labels), 2), 8, dtype=np.float32), labels=np.array([labels], dtype=np.int64))


def test_the_shorter_side_counts_until_the_longer_one_is_too_long() -> None:
    assert shorter_side(480, 640) == (800, 1067)  # 640 / 480 * 800 = 1066.67
    assert shorter_side(640, 480) == (1067, 800)
    assert shorter_side(100, 1000) == (133, 1333)
    assert shorter_side(1, 4000) == (1, 1333)


def test_the_encoding_of_a_box_by_hand() -> None:
    box = (0.2, 0.1, 0.6, 0.4)
    found = box_encoding(torch.tensor([box, (-0.5, 0.0, 0.1, 1.0)]))
    assert found.shape == (2, 512)
    centre_y, centre_x, width, height = 0.25, 0.4, 0.4, 0.3
    for part, value in enumerate((centre_y, centre_x, width, height)):
        for step in (0, 1, 63):
            angle = 2 * math.pi * value / 10000 ** (2 * step / 128)
            expected = [math.sin(angle), math.cos(angle)]
            pair = found[0, 128 * part + 2 * step : 128 * part + 2 * step + 2]
            assert pair.tolist() == pytest.approx(expected, abs=1e-5)
    # A centre outside the image is clipped to its edge, up to what the inverse sigmoid keeps away from it.
    assert float(found[1, 128]) == pytest.approx(math.sin(2 * math.pi * 1e-5), abs=1e-6)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(), nn.MultiheadAttention(256, 8, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, cells = torch.randn(3, 256), torch.randn(7, 256)
    with torch.no_grad():
        expected = theirs(x[None], cells[None], cells[None])[0][0]
        torch.testing.assert_close(ours(x, ours.project(cells, 1), ours.project(cells, 2)), expected)
        # Queries that do not see one another: a batch of sequences of one.
        expected = theirs(x[:, None], x[:, None], x[:, None])[0][:, 0]
        torch.testing.assert_close(ours.alone(x), expected)


def test_it_takes_one_positive_point(variant: RapSamVariant) -> None:
    assert variant.supports(points(1))
    assert not variant.supports(points(1, 1))
    assert not variant.supports(points(1), clicks=3)
    assert not variant.supports(Prompts(boxes=np.zeros((1, 4), dtype=np.float32)))
    assert not variant.supports(points(0)), "a point of the background"


def test_a_click_is_a_box_of_six_pixels_of_the_resized_image(variant: RapSamVariant) -> None:
    variant.device = torch.device("cpu")
    features = Features({}, original_size=(400, 533), input_size=(800, 1066))
    torch.testing.assert_close(
        variant.query_boxes(features, points(1)), torch.tensor([[13.0, 13.0, 19.0, 19.0]]), rtol=1e-4, atol=0
    )
    for labels in ((0,), (1, 1), (1, -1)):
        with pytest.raises(InputError, match="one positive point"):
            variant.query_boxes(features, points(*labels))


def test_deformable_products_are_counted() -> None:
    layer = DeformConv2d(4, 6, 3, padding=1, bias=False)
    x, offset, weight = torch.zeros(1, 4, 5, 7), torch.zeros(1, 18, 5, 7), torch.ones(1, 9, 5, 7)
    counted, _ = operations(layer, lambda: layer(x, offset, weight), None)
    assert counted.products == 2 * 6 * 5 * 7 * 4 * 9
    assert counted.unseen == {"deform_conv2d": counted.products}
