"""TinySAM in int8: integers inside, nearly the masks of the float network, the same from the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sambench.errors import InputError
from sambench.measure.efficiency import count
from sambench.parity.fixtures import formula_image, weight
from sambench.parity.models import load_cards
from sambench.variants import sam
from sambench.variants.base import Prompts, Runtime
from sambench.variants.encoders.tiny_vit import TinyViTEncoder
from sambench.variants.registry import build

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

from sambench.variants.int8 import Int8SamVariant, build_tiny_sam_int8, quantize  # noqa: E402

CPU = Runtime(device="cpu", threads=1)
SIDE = 256  # instead of 1024 pixels
IMAGE = formula_image(180, 240)
PROMPTS = Prompts(boxes=np.array([[30, 20, 200, 150], [100, 60, 230, 170]], dtype=np.float32))


@pytest.fixture(autouse=True)
def small_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam, "FRAME", SIDE)


def small(variant: sam.SamVariant) -> sam.SamVariant:
    """The variant for images of SIDE pixels, with weights that follow from their names."""
    for key, value in variant.module.state_dict().items():
        if value.dtype.is_floating_point:
            value.copy_(weight(key, list(value.shape), "float32", 7))
    variant.pixel_size = SIDE
    variant.module.prompt_encoder.image_embedding_size = (SIDE // 16, SIDE // 16)
    variant.to_runtime()
    return variant


def test_masks_are_nearly_those_of_the_float_network() -> None:
    variants = [small(builder(CPU)) for builder in (sam.build_mobile_sam, build_tiny_sam_int8)]
    masks, embeddings = [], []
    for variant in variants:
        (features,) = variant.encode([IMAGE])
        found = variant.decode(features, PROMPTS)
        embeddings.append(features.maps["image_embedding"])
        masks.append(found.upsampling.masks(found.logits.flatten(0, 1)))
    error = float((embeddings[1] - embeddings[0]).norm() / embeddings[0].norm())
    assert 1e-3 < error < 0.1  # quantized, and well
    assert float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()) > 0.9
    (again,) = small(build_tiny_sam_int8(CPU)).encode([IMAGE])
    assert torch.equal(again.maps["image_embedding"], embeddings[1])


def test_linear_layers_compute_on_integers(tmp_path: Path) -> None:
    encoder = TinyViTEncoder().eval()
    with torch.no_grad():
        quantize(encoder, SIDE, tmp_path / "encoder.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "encoder.onnx").graph.node]
    linear = sum(isinstance(module, torch.nn.Linear) for module in encoder.modules())
    assert nodes.count("MatMulInteger") == linear == 40
    # What is left multiplies two activations: once for the weights of an attention, once with them.
    assert nodes.count("MatMul") == 20


def test_only_on_the_cpu_and_in_float32(tmp_path: Path) -> None:
    card = load_cards()["tinysam_int8"]
    with pytest.raises(InputError, match="unsupported runtime"):
        build(card, Runtime(device="cpu", dtype="bfloat16"), random_weights=True)
    variant = Int8SamVariant(torch.nn.Identity(), CPU)
    variant.device = torch.device("cuda")
    with pytest.raises(InputError, match=r"runtime\.device: expected cpu, found cuda"):
        variant.to_runtime()


def test_costs_are_those_of_tinysam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of the small frame
    cards = load_cards()
    ours, plain = (count(cards[name]) for name in ("tinysam_int8", "tinysam"))
    assert ours == plain
    assert sum(ours.parameters.values()) == pytest.approx(cards["tinysam_int8"].params_m * 1e6, abs=1)
