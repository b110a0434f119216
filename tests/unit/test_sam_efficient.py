"""What the parity fixtures cannot show of the small SAM-1 variants: eps values, fusing, files in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sambench.errors import InputError
from sambench.variants.base import Prompts, Runtime
from sambench.variants.encoders.repvit import EdgeSamEncoder
from sambench.variants.sam_efficient import (
    NanoSamVariant,
    build_efficientvit_sam,
    build_mobile_sam_v2,
    build_nano_sam,
)

CPU = Runtime(device="cpu")


def test_efficientvit_runs_every_norm_with_the_official_eps() -> None:
    module = build_efficientvit_sam(CPU, "l0").module
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)]
    assert norms
    assert {norm.eps for norm in norms} == {1e-6}
    assert {m.eps for m in module.modules() if type(m).__name__ == "LiteMLA"} == {1e-15}


def test_fused_repvit_computes_the_same() -> None:
    torch.manual_seed(0)
    encoder = EdgeSamEncoder().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    pixels = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        before, parameters = encoder(pixels), sum(p.numel() for p in encoder.parameters())
        encoder.fuse()
        after = encoder(pixels)
    assert sum(p.numel() for p in encoder.parameters()) < parameters
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 * float(before.abs().max()))


def test_mobile_sam_v2_loads_its_two_files(tmp_path: Path) -> None:
    torch.manual_seed(1)
    variant = build_mobile_sam_v2(CPU)
    decoders = {
        "PromtEncoder": {k: v + 1 for k, v in variant.module.prompt_encoder.state_dict().items()},
        "MaskDecoder": variant.module.mask_decoder.state_dict(),
    }
    # The encoder's file is MobileSAM's whole checkpoint, in official names; its decoder must not be used.
    official = official_tiny_vit(variant.module.image_encoder.state_dict())
    official |= {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}
    torch.save(official, tmp_path / "mobile_sam.pt")
    torch.save(decoders, tmp_path / "decoder.pt")
    other = build_mobile_sam_v2(CPU)
    other.load_files([tmp_path / "mobile_sam.pt", tmp_path / "decoder.pt"])
    found = other.module.state_dict()
    for key, value in variant.module.state_dict().items():
        torch.testing.assert_close(found[key], value + 1 if key.startswith("prompt_encoder.") else value)


def official_tiny_vit(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of TinyViTEncoder turned back into the official ones."""
    names = {}
    for key in state:
        name = key.removeprefix("backbone.")
        name = name.replace("patch_embed.conv1.", "patch_embed.seq.0.").replace(
            "patch_embed.conv2.", "patch_embed.seq.2."
        )
        if name.startswith("stages."):
            _, stage, rest = name.split(".", 2)
            number = int(stage) - 1 if rest.startswith("downsample.") else int(stage)
            name = f"layers.{number}.{rest}"
        names[key] = name.replace(".conv.weight", ".c.weight") if key.startswith("backbone.") else name
    return {f"image_encoder.{names[key]}": value for key, value in state.items()}


def onnx_encoder(path: Path, weight: np.ndarray, channels: int = 256) -> Path:
    """An ONNX file with the inputs and outputs of NanoSAM's encoder: one convolution of stride 16."""
    helper = pytest.importorskip("onnx.helper")
    import onnx

    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 1024, 1024])
    embedding = helper.make_tensor_value_info("image_embeddings", onnx.TensorProto.FLOAT, [1, channels, 64, 64])
    node = helper.make_node("Conv", ["image", "weight"], ["image_embeddings"], strides=[16, 16])
    graph = helper.make_graph([node], "encoder", [image], [embedding], [onnx.numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def mobile_decoder(tmp_path: Path) -> Path:
    """MobileSAM's checkpoint, of which NanoSAM needs the decoder."""
    parts = NanoSamVariant(nn.Identity(), CPU).module.state_dict()
    torch.save({"model": parts | {"image_encoder.x": torch.zeros(1)}}, tmp_path / "mobile_sam.pt")
    return tmp_path / "mobile_sam.pt"


def test_nanosam_onnx_encoder(tmp_path: Path, mobile_decoder: Path) -> None:
    pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).normal(size=(256, 3, 16, 16)).astype(np.float32)
    variant = build_nano_sam(CPU, backend="onnx")
    variant.load_files([onnx_encoder(tmp_path / "encoder.onnx", weight), mobile_decoder])
    variant.to_runtime()
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    prepared = variant.prepare(image)
    (features,) = variant.encode_prepared([prepared])
    expected = torch.nn.functional.conv2d(variant.pixels(prepared), torch.from_numpy(weight), stride=16)
    torch.testing.assert_close(features.maps["image_embedding"], expected, rtol=1e-4, atol=1e-3)
    candidates = variant.decode(features, Prompts(boxes=np.array([[10, 10, 50, 40]], np.float32)))
    assert candidates.upsampling.masks(candidates.logits[0]).shape == (4, 60, 90)


def test_nanosam_refuses_other_onnx_files(tmp_path: Path, mobile_decoder: Path) -> None:
    pytest.importorskip("onnxruntime")
    variant = build_nano_sam(CPU, backend="onnx")
    other = onnx_encoder(tmp_path / "other.onnx", np.zeros((8, 3, 16, 16), np.float32), channels=8)
    with pytest.raises(InputError, match=r"expected \(1, 3, 1024, 1024\) -> \(1, 256, 64, 64\)"):
        variant.load_files([other, mobile_decoder])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<html>")
    with pytest.raises(InputError, match="expected an ONNX image encoder"):
        variant.load_files([broken, mobile_decoder])


@pytest.mark.parametrize("size", [(480, 640), (853, 333), (1, 50), (512, 512), (7, 3)])
def test_nanosam_cuts_the_padding_off(size: tuple[int, int]) -> None:
    variant = NanoSamVariant(nn.Identity(), CPU)
    prepared = variant.prepare(np.zeros((*size, 3), np.uint8))
    height, width = prepared.image.shape[:2]
    assert max(height, width) == 1024
    assert min(height, width) == max(int(1024 * min(size) / max(size)), 1)
    assert variant.pixels(prepared).shape == (1, 3, 1024, 1024)


def test_efficientvit_xl_sees_1024_and_l_512_pixels() -> None:
    image = np.zeros((300, 600, 3), np.uint8)
    for name, side in (("l0", 512), ("xl0", 1024)):
        variant = build_efficientvit_sam(CPU, name)
        prepared = variant.prepare(image)
        assert prepared.image.shape == (side // 2, side, 3)
        assert variant.pixels(prepared).shape == (1, 3, side, side)
        assert variant.sizes(prepared) == ((300, 600), (512, 1024))
