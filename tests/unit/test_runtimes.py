"""Runtimes: the fused attention is the same function, every family runs in bfloat16, nothing is silently ignored.

Encoders are those of the families, on images of 128 instead of 1024 pixels: bfloat16 is slow on most CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, TwoWayTransformer
from segment_anything.modeling.image_encoder import Block
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sambench.config import read_registries
from sambench.errors import InputError
from sambench.parity.fixtures import formula_image, weight
from sambench.parity.models import load_cards
from sambench.status import OK, UNSUPPORTED_RUNTIME
from sambench.variants import efficient_sam, efficient_tam, hq_sam, sam, sam2, sam_efficient
from sambench.variants.base import OFFICIAL, Prompts, Runtime
from sambench.variants.encoders import efficientvit, repvit
from sambench.variants.fast import fuse_attention
from sambench.variants.fast_vit import tile_attention
from sambench.variants.neural import NeuralVariant, renamer
from sambench.variants.registry import build

EAGER = Runtime(device="cpu", threads=1)
BF16 = replace(EAGER, name="bf16", dtype="bfloat16")
FUSED = replace(EAGER, name="fused", attention="sdpa")
FAST = replace(BF16, name="fast", attention="sdpa")  # less the compilation, which has a test of its own
SIDE = 128
IMAGE = formula_image(180, 240)
BOXES = np.array([[30, 20, 200, 150], [100, 60, 230, 170]], dtype=np.float32)
POINTS = Prompts(points=np.array([[[60, 70], [30, 150]]], dtype=np.float32), labels=np.array([[1, 0]]))


def small_vit() -> ImageEncoderViT:
    """SAM's ViT: a windowed block, whose windows are padded, and a global one."""
    return ImageEncoderViT(
        img_size=SIDE,
        embed_dim=96,
        depth=2,
        num_heads=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=5,
        global_attn_indexes=(1,),
    )


def nano_sam(runtime: Runtime) -> NeuralVariant:
    variant = sam_efficient.build_nano_sam(runtime)
    variant.module.image_encoder.pos_embedding = nn.Parameter(torch.zeros(1, 256, SIDE // 16, SIDE // 16))
    return variant


BUILDERS: dict[str, Callable[[Runtime], NeuralVariant]] = {
    "sam": lambda runtime: sam.SamVariant(small_vit(), runtime),
    "sam_hq": lambda runtime: hq_sam.HqSamVariant(hq_sam.HqViT(small_vit()), 96, runtime, renamer([])),
    "light_hq_sam": hq_sam.build_light_hq_sam,
    "mobilesam": sam.build_mobile_sam,
    "repvit_sam": sam_efficient.build_repvit_sam,
    "edgesam": sam_efficient.build_edge_sam,
    "efficientvit_sam": partial(sam_efficient.build_efficientvit_sam, encoder="l0"),
    "nanosam": nano_sam,
    "efficientsam": partial(efficient_sam.build_efficient_sam, size="ti"),
    "efficienttam": partial(efficient_tam.build_efficient_tam, size="ti"),
    "sam2": partial(sam2.build_sam2, size="tiny"),
    "edgetam": sam2.build_edge_tam,
}


def make(name: str, runtime: Runtime) -> NeuralVariant:
    """A variant for images of SIDE pixels, with weights that follow from their names."""
    variant = BUILDERS[name](runtime)
    state = variant.module.state_dict()
    for key, value in state.items():
        if value.dtype.is_floating_point:
            # Variances above one keep RepViT's activations, and the rounding with them, from growing block by block.
            gain = 2.0 if key.endswith("running_var") else 1.0
            value.copy_(weight(key, list(value.shape), "float32", 7, gain))
    variant.pixel_size = SIDE
    prompt_encoder = variant.module.get_submodule("prompt_encoder")
    prompt_encoder.image_embedding_size = (SIDE // 16, SIDE // 16)
    if isinstance(variant, sam2.Sam2Variant):
        prompt_encoder.input_image_size = SIDE
    variant.to_runtime()
    return variant


@pytest.fixture(autouse=True)
def small_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """What knows the side of the frame or of the embedding by a constant."""
    for module in (sam, sam_efficient, efficient_sam):
        monkeypatch.setattr(module, "FRAME", SIDE)
    monkeypatch.setattr(repvit, "REPVIT_SAM_DEPTHS", (1, 1, 2, 1))
    monkeypatch.setattr(efficient_sam, "GRID", SIDE // 16)
    monkeypatch.setattr(efficientvit, "EMBEDDING", (SIDE // 16, SIDE // 16))


def outputs(variant: NeuralVariant) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, scores and masks at the size of the image, of all tokens of two boxes."""
    (features,) = variant.encode([IMAGE])
    found = variant.decode(features, Prompts(boxes=BOXES))
    return found.logits, found.scores, found.upsampling.masks(found.logits.flatten(0, 1))


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_runs_in_bfloat16(name: str) -> None:
    _, scores, masks = outputs(make(name, EAGER))
    for runtime in (BF16, FAST):
        rounded, rounded_scores, rounded_masks = outputs(make(name, runtime))
        assert rounded.dtype == torch.bfloat16
        assert rounded_scores.dtype == torch.float32
        both, either = (masks & rounded_masks).sum(), (masks | rounded_masks).sum()
        assert 0.02 < float(masks.float().mean()) < 0.98
        assert float(both / either) > 0.9
        # Rounding is seen, not hidden: 8 bits of mantissa move what the model predicts.
        assert not torch.equal(scores, rounded_scores)
        torch.testing.assert_close(rounded_scores, scores, atol=0.1, rtol=0)


@pytest.mark.ultralytics
def test_detectors_run_in_bfloat16() -> None:
    from sambench.variants.yolo import build_fastsam

    boxes = []
    for runtime in (EAGER, BF16, FAST):
        variant = build_fastsam(runtime, config="yolov8n-seg.yaml", size=256, confidence=0.001)
        for key, value in variant.module.state_dict().items():
            if value.dtype.is_floating_point and "dfl" not in key:  # the bins of a box side are no weights
                value.copy_(weight(key, list(value.shape), "float32", 7))
        variant.to_runtime()
        pixels = variant.pixels(variant.prepare(IMAGE)).to(variant.dtype)
        with torch.inference_mode():
            boxes.append(variant.image_embedding(pixels)["predictions"][:, :4])
        (instances,) = variant.encode([IMAGE])
        assert len(instances.masks)
        assert variant.decode(instances, Prompts(boxes=BOXES)).logits.shape == (2, 1, *IMAGE.shape[:2])
    # Box sides are made in float32: rounding moves them by far less than a pixel.
    assert all(0 < float((found - boxes[0]).abs().max()) < 0.5 for found in boxes[1:])


def test_fused_attention_is_the_same_function() -> None:
    torch.manual_seed(0)
    vit = small_vit().eval()
    for key, value in vit.named_parameters():
        value.detach().copy_(weight(key, list(value.shape), "float32", 7))
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        before = vit(pixels)
        assert fuse_attention(vit) == 2
        assert float((vit(pixels) - before).abs().max() / before.abs().max()) < 1e-5

    decoder = TwoWayTransformer(depth=2, embedding_dim=64, num_heads=4, mlp_dim=32).eval()
    arguments = torch.randn(3, 64, 5, 6), torch.randn(3, 64, 5, 6), torch.randn(3, 7, 64)
    with torch.inference_mode():
        expected = decoder(*arguments)
        assert fuse_attention(decoder) == 7  # three a layer and a last one
        for found, value in zip(decoder(*arguments), expected, strict=True):
            torch.testing.assert_close(found, value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("swap", [fuse_attention, tile_attention])
@pytest.mark.parametrize(("height", "width"), [(9, 13), (14, 14), (5, 33), (14, 28)])
def test_blocks_of_sam_of_any_shape(
    monkeypatch: pytest.MonkeyPatch, swap: Callable[[nn.Module], int], height: int, width: int
) -> None:
    """Windows with and without padding, and all cells in tiles that do not divide them."""
    monkeypatch.setattr("sambench.variants.fast_vit.ROWS", 50)
    blocks = nn.ModuleList(
        [Block(48, 3, window_size=size, use_rel_pos=True, input_size=(height, width)) for size in (7, 0)]
    )
    for key, value in blocks.named_parameters():
        value.detach().copy_(weight(key, list(value.shape), "float32", 7))
    x = torch.randn(2, height, width, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = blocks[1](blocks[0](x))
        assert swap(blocks.eval()) == 2
        before = x.clone()
        found = blocks[1](blocks[0](x))
    assert torch.equal(x, before), "the input stays as it is"
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.slow
def test_fused_attention_on_blocks_of_sam() -> None:
    torch.manual_seed(0)
    blocks = sam_model_registry["vit_b"]().image_encoder.eval().blocks[1:3]  # windows, and all 64 x 64 cells
    for key, value in blocks.named_parameters():
        value.detach().copy_(weight(key, list(value.shape), "float32", 7))
    x = torch.randn(1, 64, 64, 768)
    with torch.inference_mode():
        before = blocks[1](blocks[0](x))
        assert fuse_attention(blocks) == 2
        after = blocks[1](blocks[0](x))
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5


class NoSpelledAttention(TorchFunctionMode):
    """Refuses a softmax over cells outside of the fused kernel.

    transformers' Hiera also computes one over its heads, at most eight here, and drops the result.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "softmax":
            assert args[0].shape[-1] <= 8, "attention is spelled out"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", BUILDERS)
def test_sdpa_leaves_no_attention_spelled_out(name: str) -> None:
    """With the official decoder: the fast one has a softmax of its own, between projections that no kernel knows."""
    variant = make(name, replace(FUSED, decoder=OFFICIAL))
    with NoSpelledAttention():
        outputs(variant)


def test_spelled_attention_is_noticed() -> None:
    with pytest.raises(AssertionError, match="spelled out"), NoSpelledAttention():
        outputs(make("sam", EAGER))


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the CPU wait for a GPU: values read back, and shapes that depend on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave.Tensor", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        assert not name.startswith(self.WAITING), name
        if name.startswith("index"):
            indices = [x for x in args[1] if x is not None] if isinstance(args[1], list | tuple) else []
            assert all(x.dtype != torch.bool for x in indices), f"{name} by a mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", BUILDERS)
def test_no_hidden_synchronization(name: str) -> None:
    variant = make(name, FUSED)
    with NoWaiting():
        (features,) = variant.encode([IMAGE])
        for prompts in (Prompts(boxes=BOXES), POINTS):
            variant.decode(features, prompts)


def test_point_embedding_equals_that_of_segment_anything() -> None:
    torch.manual_seed(0)
    ours, official = sam.sam_prompt_encoder(), sam.PromptEncoder(256, (64, 64), (SIDE, SIDE), 16)
    official.load_state_dict(ours.state_dict())
    points, labels = torch.rand(5, 4, 2) * SIDE, torch.tensor([[1, 0, 1, -1]] * 5)
    boxes = torch.rand(5, 4) * SIDE
    for box in (None, boxes):
        found, expected = (encoder((points, labels), box, None) for encoder in (ours, official))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


class Recorder(TorchFunctionMode):
    """Collects the dtypes of coordinates and frequencies that meet in the positional encoding."""

    def __init__(self) -> None:
        super().__init__()
        self.sines: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in {"sin", "cos"}:
            self.sines.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["sam", "light_hq_sam", "efficientsam", "sam2"])
def test_positional_encodings_are_computed_in_float32(name: str) -> None:
    variant = make(name, BF16)
    (features,) = variant.encode([IMAGE])
    for prompts in (Prompts(boxes=BOXES), POINTS):
        with Recorder() as recorder:
            variant.decode(features, prompts)
        assert recorder.sines == {torch.float32}


@pytest.mark.parametrize("name", ["box_fill", "ground_truth", "nanosam_onnx"])
def test_what_cannot_use_a_runtime_says_so(name: str, tmp_path: Path) -> None:
    card = load_cards()[name]
    for runtime in (BF16, FUSED, replace(EAGER, compile=True)):
        assert card.availability([tmp_path], runtime) == UNSUPPORTED_RUNTIME
        assert "eager" in card.explain([tmp_path], runtime)
        with pytest.raises(InputError, match="unsupported runtime"):
            build(card, runtime, [tmp_path], random_weights=True)
    assert card.availability([tmp_path], EAGER) != UNSUPPORTED_RUNTIME
    assert load_cards()["sam_vit_b"].availability([tmp_path], FAST) != OK  # for lack of weights, not of the runtime
    assert load_cards()["sam_vit_b"].availability([tmp_path], FAST) != UNSUPPORTED_RUNTIME


def test_runtimes_of_the_config() -> None:
    runtimes = {name: Runtime(name, **fields) for name, fields in read_registries(["config"])["runtimes"].items()}
    assert runtimes["eager"].plain
    assert runtimes["bf16"] == Runtime("bf16", dtype="bfloat16")
    assert runtimes["fast"] == Runtime("fast", dtype="bfloat16", attention="sdpa", compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sam", "mobilesam"])
@pytest.mark.filterwarnings("ignore")
def test_compiled_encoder_computes_the_same(name: str) -> None:
    plain = outputs(make(name, FUSED))[0]
    compiled = outputs(make(name, replace(FUSED, compile=True)))[0]
    assert float((plain - compiled).abs().max() / plain.abs().max()) < 1e-4
