"""The fast decoder against the official modules that it takes its weights from, in every family, on random images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from sambench.parity.fixtures import weight
from sambench.variants import fast_decoder
from sambench.variants.base import OFFICIAL, Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.efficient_sam import EfficientSamVariant, PointEncoder, efficient_mask_decoder
from sambench.variants.efficient_tam import EfficientTamVariant
from sambench.variants.fast_decoder import DrawnCandidates
from sambench.variants.hq_sam import HqSamVariant
from sambench.variants.neural import NeuralVariant
from sambench.variants.sam import SamNetwork, SamVariant
from sambench.variants.sam2 import Sam2Network, Sam2Variant
from sambench.variants.sam_efficient import EfficientViTSamVariant, NanoSamVariant
from sambench.variants.stretch import StretchVariant

SIDE = 4  # cells; the official modules take any number
FAST = Runtime(device="cpu", threads=1)
N = 5  # prompts


def efficient_sam(runtime: Runtime) -> EfficientSamVariant:
    network = SamNetwork(nn.Identity(), PointEncoder(), efficient_mask_decoder())
    return EfficientSamVariant(network, runtime)


def efficient_tam(runtime: Runtime) -> EfficientTamVariant:
    network = Sam2Network(nn.Identity(), pixel_size=16 * SIDE)
    del network.mask_decoder.conv_s0, network.mask_decoder.conv_s1
    return EfficientTamVariant(network, runtime, pixel_size=16 * SIDE)


def sam2(runtime: Runtime) -> Sam2Variant:
    return Sam2Variant(Sam2Network(nn.Identity(), pixel_size=16 * SIDE), runtime, pixel_size=16 * SIDE)


FAMILIES: dict[str, Callable[[Runtime], NeuralVariant]] = {
    "sam": lambda runtime: SamVariant(nn.Identity(), runtime),
    "efficientvit_sam": lambda runtime: EfficientViTSamVariant(nn.Identity(), runtime),
    "nanosam": lambda runtime: NanoSamVariant(nn.Identity(), runtime),
    "sam_hq": lambda runtime: HqSamVariant(nn.Identity(), 8, runtime, dict),
    "efficientsam": efficient_sam,
    "sam2": sam2,
    "efficienttam": efficient_tam,
}


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientSAM knows its grid by a constant; a CPU cuts it into tiles as it does a large one."""
    monkeypatch.setattr("sambench.variants.efficient_sam.GRID", SIDE)
    monkeypatch.setattr(fast_decoder, "TILE", 5)


@cache
def make(name: str, runtime: Runtime) -> NeuralVariant:
    """A variant without encoder, with weights that follow from their names: every bias and norm counts."""
    variant = FAMILIES[name](runtime)
    for key, value in variant.module.state_dict().items():
        if value.dtype.is_floating_point:
            value.copy_(weight(key, list(value.shape), "float32", 7))
    if not isinstance(variant, StretchVariant):
        variant.module.get_submodule("prompt_encoder").image_embedding_size = grid(name)
    variant.to_runtime()
    return variant


def grid(name: str) -> tuple[int, int]:
    """(height, width) in cells; some families know only squares."""
    return (SIDE, SIDE) if name in {"efficientsam", "sam2", "efficienttam"} else (SIDE, SIDE + 2)


def features(name: str, dtype: torch.dtype = torch.float32) -> Features:
    """Random feature maps under the names of all families."""
    generator = torch.Generator().manual_seed(1)
    height, width = grid(name)

    def maps(channels: int, scale: int) -> torch.Tensor:
        return torch.randn(1, channels, height * scale, width * scale, generator=generator).to(dtype)

    embedding = maps(256, 1)
    return Features(
        {
            "image_embedding": embedding,
            "features": embedding,
            "image_embed": embedding,
            "hq_features": maps(32, 4),
            "high_res_feats0": maps(32, 4),
            "high_res_feats1": maps(64, 2),
        },
        original_size=(90, 120),
        input_size=(768, 1024),
    )


GENERATOR = np.random.default_rng(3)
CORNER, SIDES = GENERATOR.uniform(0, 60, (N, 2)), GENERATOR.uniform(5, 30, (N, 2))
BOXES = np.concatenate([CORNER, CORNER + SIDES], axis=1).astype(np.float32)
POINTS = GENERATOR.uniform(0, 90, (N, 3, 2)).astype(np.float32)
LABELS = np.array([[1, 0, -1], [1, -1, -1], [1, 1, 0], [0, 1, 1], [1, 1, -1]])
PROMPTS = {
    "box": Prompts(boxes=BOXES),
    "point": Prompts(points=POINTS, labels=LABELS),
    "box_point": Prompts(boxes=BOXES, points=POINTS, labels=LABELS),
}


def both(name: str, prompts: Prompts, runtime: Runtime = FAST) -> tuple[DrawnCandidates, MaskCandidates]:
    """Of the fast and of the official decoder with the same weights."""
    variants = make(name, runtime), make(name, replace(runtime, decoder=OFFICIAL))
    fast, official = (v.decode(features(name, v.dtype), prompts) for v in variants)
    assert isinstance(fast, DrawnCandidates)
    assert not isinstance(official, DrawnCandidates)
    return fast, official


def assert_equal(fast: MaskCandidates, official: MaskCandidates) -> None:
    scale = float(official.logits.abs().max())
    assert float(official.logits.std()) > 0.01 * scale  # something to compare
    assert fast.logits.dtype == official.logits.dtype
    torch.testing.assert_close(fast.logits, official.logits, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(fast.scores, official.scores, rtol=0, atol=1e-5)
    assert torch.equal(fast.argmax(), official.argmax())
    assert torch.equal(fast.single, official.single)
    assert (fast.multimask, fast.upsampling) == (official.multimask, official.upsampling)


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_same_function(name: str, kind: str) -> None:
    assert_equal(*both(name, PROMPTS[kind]))


@pytest.mark.parametrize("name", FAMILIES)
def test_one_image_serves_prompts_of_all_kinds(name: str) -> None:
    """What is kept with the features does not depend on the prompts that came first."""
    variant, kept = make(name, FAST), features(name)
    for prompts in PROMPTS.values():
        found, fresh = (variant.decode(image, prompts) for image in (kept, features(name)))
        assert torch.equal(found.logits, fresh.logits)
    other = replace(kept, maps={key: value + 1 for key, value in kept.maps.items()})
    assert not torch.equal(variant.decode(other, prompts).logits, found.logits)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "efficientsam"])
def test_masks_of_prompts_are_not_shared(name: str) -> None:
    height, width = grid(name)
    masks = 5 * torch.randn(N, 4 * height, 4 * width, generator=torch.Generator().manual_seed(2))
    prompts = replace(PROMPTS["point"], masks=masks)
    fast, official = both(name, prompts)
    assert_equal(fast, official)
    variant, image = make(name, FAST), features(name)
    variant.decode(image, PROMPTS["box"])  # what it leaves with the image is for prompts without masks
    assert torch.equal(variant.decode(image, prompts).logits, fast.logits)


def test_masks_of_prompts_are_those_of_the_official_prompt_encoder() -> None:
    masks = 5 * torch.randn(N, 4 * SIDE, 4 * (SIDE + 2), generator=torch.Generator().manual_seed(2))
    variant, image = make("sam", replace(FAST, decoder=OFFICIAL)), features("sam")
    assert isinstance(variant, SamVariant)
    found = variant.decode(image, replace(PROMPTS["box"], masks=masks))
    scale = torch.tensor([1024 / 120, 768 / 90] * 2)
    network = variant.module
    sparse, dense = network.prompt_encoder(points=None, boxes=torch.tensor(BOXES) * scale, masks=masks[:, None])
    expected, _ = network.mask_decoder.predict_masks(
        image.maps["image_embedding"], network.prompt_encoder.get_dense_pe(), sparse, dense
    )
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_high_quality_mask_alone() -> None:
    fast, official = make("sam_hq", FAST), make("sam_hq", replace(FAST, decoder=OFFICIAL))
    assert isinstance(fast, HqSamVariant)
    assert isinstance(official, HqSamVariant)
    sums = fast.decode(features("sam_hq"), PROMPTS["box"]).logits
    fast.hq_only = official.hq_only = True
    alone = fast.decode(features("sam_hq"), PROMPTS["box"])
    fast.hq_only = False  # too late for what was decoded before
    assert_equal(alone, official.decode(features("sam_hq"), PROMPTS["box"]))
    official.hq_only = False
    assert not torch.equal(alone.logits, sums)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_as_near_to_float32_as_the_official_order(name: str) -> None:
    prompts = PROMPTS["box"][:2]
    exact = make(name, replace(FAST, decoder=OFFICIAL)).decode(features(name), prompts)
    fast, official = both(name, prompts, replace(FAST, dtype="bfloat16"))
    assert fast.logits.dtype == torch.bfloat16
    assert fast.scores.dtype == torch.float32
    ours, theirs = (float((x.logits.float() - exact.logits).norm() / exact.logits.norm()) for x in (fast, official))
    assert 0 < ours < 1.5 * theirs


@pytest.mark.parametrize("name", ["sam", "sam_hq", "sam2"])
def test_parts_are_drawn_as_the_whole(name: str) -> None:
    fast, official = both(name, PROMPTS["box"])
    atol = 1e-5 * float(official.logits.abs().max())
    tokens = torch.tensor([3, 0, 1, 2, 2])
    for found, expected in zip(fast.take(tokens), official.take(tokens), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    for pairs in ([[4, 1], [0, 3]], [[2, 2, 0, 2], [1, 0, 3, 1]], [[], []]):
        prompts, tokens = torch.tensor(pairs, dtype=torch.int64)
        found, expected = fast.at(prompts, tokens), official.at(prompts, tokens)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert "logits" not in vars(fast) or name == "sam2"


@pytest.mark.parametrize("input_size", [(28, 96), (64, 30)])
@pytest.mark.parametrize("name", ["sam", "nanosam", "sam_hq"])
def test_padding_is_not_drawn(name: str, input_size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide and a high photo in a frame of 64 x 96: what the image shows is as in the whole, the rest is nothing."""
    monkeypatch.setattr("sambench.variants.base.MARGIN", 1)
    height, width = input_size
    upsampling = Upsampling((height - 5, width - 5), (64, 96), input_size)
    if name == "nanosam":  # cuts its map before it enlarges it
        upsampling = Upsampling((height - 5, width - 5), None, (height // 4, width // 4))
    monkeypatch.setattr(SamVariant, "upsampling", lambda self, features: upsampling)
    monkeypatch.setattr(NanoSamVariant, "upsampling", lambda self, features: upsampling)
    fast, _ = both(name, PROMPTS["box"])
    prompts, tokens = torch.tensor([0, 0, 3]), torch.tensor([1, 2, 0])
    some, whole = fast.at(prompts, tokens), fast.logits[prompts, tokens]
    rows, columns = upsampling.read(whole.shape[1:])
    assert (rows, columns) != whole.shape[1:]
    atol = 1e-5 * float(whole.abs().max())
    torch.testing.assert_close(some[:, :rows, :columns], whole[:, :rows, :columns], rtol=0, atol=atol)
    torch.testing.assert_close(upsampling.logits(some), upsampling.logits(whole), rtol=0, atol=atol)
    assert some.shape == whole.shape
    assert not some[:, -1, -1].any()
    assert whole[:, -1, -1].all()


def test_a_mask_that_nobody_asks_for_is_not_drawn() -> None:
    drawn: list[tuple[int, int]] = []

    def draw(prompts: slice | torch.Tensor, tokens: torch.Tensor, whole: bool) -> torch.Tensor:
        drawn.append((tokens.shape[0], tokens.shape[1]))
        assert isinstance(prompts, slice) or len(prompts) == len(tokens)
        return tokens[..., None, None].float()

    def single(candidates: DrawnCandidates) -> torch.Tensor:
        return candidates.take(torch.zeros(6, dtype=torch.int64))[0].flatten().long() + 2

    candidates = DrawnCandidates(draw, torch.rand(6, 4), (1, 2, 3), single, Upsampling((1, 1)))
    candidates.argmax()
    assert not drawn
    assert candidates.take(torch.arange(6) % 4)[0].flatten().tolist() == [0, 1, 2, 3, 0, 1]
    assert candidates.at(torch.tensor([5, 2]), torch.tensor([3, 0])).flatten().tolist() == [3, 0]
    assert candidates.at(torch.tensor([5, 2, 5]), torch.tensor([3, 0, 1])).flatten().tolist() == [3, 0, 1]
    assert candidates.single.tolist() == [2] * 6
    assert candidates.single is candidates.single
    assert drawn == [(6, 1), (2, 1), (2, 4), (6, 1)]
    assert candidates.logits.shape == (6, 4, 1, 1)
    candidates.take(torch.arange(6) % 4)  # from what there is now
    assert len(drawn) == 5


def test_an_exported_graph_is_of_the_official_decoder() -> None:
    assert make("sam", FAST).fast
    assert not make("sam", replace(FAST, decoder=OFFICIAL)).fast
    variant = FAMILIES["sam"](replace(FAST, engine="onnxruntime"))
    assert not variant.fast


def test_a_runtime_with_either_decoder_is_plain() -> None:
    assert FAST.plain
    assert replace(FAST, decoder=OFFICIAL).plain
