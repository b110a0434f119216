"""The engine onnxruntime: the same function as torch, checked, kept, and a status where it is not available."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from sambench.config import read_registries, read_study
from sambench.errors import InputError, UnsupportedRuntime
from sambench.parity.fixtures import formula_image
from sambench.parity.models import load_cards
from sambench.status import NO_WEIGHTS, NOT_INSTALLED, UNSUPPORTED_RUNTIME
from sambench.variants import onnx_graphs, sam, sam_efficient
from sambench.variants.base import ONNX, Prompts, Runtime
from sambench.variants.cards import has_compiler
from sambench.variants.encoders import efficientvit, repvit
from sambench.variants.onnx_graphs import DECODER, ENCODER, RECEIPT, exported, use_onnx

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

SIDE = 128
EAGER = Runtime(device="cpu", threads=1)
GRAPHS = Runtime("onnx", device="cpu", engine=ONNX, threads=1)
IMAGE = formula_image(180, 240)
BOXES = Prompts(boxes=np.array([[30, 20, 200, 150], [100, 60, 230, 170], [5, 5, 60, 60]], dtype=np.float32))
POINTS = Prompts(points=np.array([[[60, 70], [30, 150]]], dtype=np.float32), labels=np.array([[1, 0]]))


def small_vit(runtime: Runtime) -> sam.SamVariant:
    """SAM's ViT: a windowed block, whose windows are padded, and a global one."""
    vit = ImageEncoderViT(
        img_size=SIDE, embed_dim=48, depth=2, num_heads=2, norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True, window_size=5, global_attn_indexes=(1,),
    )  # fmt: skip
    return sam.SamVariant(vit, runtime)


BUILDERS: dict[str, Callable[[Runtime], sam.SamVariant]] = {
    "sam": small_vit,
    "mobilesam": sam.build_mobile_sam,
    "repvit_sam": sam_efficient.build_repvit_sam,
    "edgesam": sam_efficient.build_edge_sam,
    "efficientvit_sam": partial(sam_efficient.build_efficientvit_sam, encoder="l0"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images of SIDE pixels, and a cache of the test's own."""
    monkeypatch.setenv("SAMBENCH_CACHE", str(tmp_path / "cache"))
    for module in (sam, sam_efficient):
        monkeypatch.setattr(module, "FRAME", SIDE)
    monkeypatch.setattr(repvit, "REPVIT_SAM_DEPTHS", (1, 1, 2, 1))
    monkeypatch.setattr(efficientvit, "EMBEDDING", (SIDE // 16, SIDE // 16))


def make(name: str, runtime: Runtime) -> sam.SamVariant:
    torch.manual_seed(0)
    variant = BUILDERS[name](runtime)
    variant.name, variant.pixel_size = name, SIDE
    variant.module.prompt_encoder.image_embedding_size = (SIDE // 16, SIDE // 16)
    variant.to_runtime()
    if runtime.engine == ONNX:
        use_onnx(variant)
    return variant


@pytest.mark.parametrize("name", BUILDERS)
def test_graphs_compute_what_torch_computes(name: str) -> None:
    plain, graphs = make(name, EAGER), make(name, GRAPHS)
    (ours,), (expected,) = graphs.encode([IMAGE]), plain.encode([IMAGE])
    embedding = expected.maps["image_embedding"]
    largest = float((ours.maps["image_embedding"] - embedding).abs().max() / embedding.abs().max())
    assert 0 < largest < 1e-3, "another implementation rounds in other places"
    for prompts in (BOXES, POINTS):
        found, wanted = graphs.decode(ours, prompts), plain.decode(expected, prompts)
        assert float((found.logits - wanted.logits).abs().max() / wanted.logits.abs().max()) < 1e-3
        torch.testing.assert_close(found.scores, wanted.scores, atol=1e-3, rtol=0)
    two = graphs.encode([IMAGE, IMAGE[:, ::-1].copy()])
    assert torch.equal(two[0].maps["image_embedding"], ours.maps["image_embedding"]) and len(two) == 2


def test_an_export_is_made_once_and_made_anew_for_other_weights(tmp_path: Path) -> None:
    make("mobilesam", GRAPHS)
    (folder,) = (tmp_path / "cache" / "onnx").iterdir()
    assert {path.name for path in folder.iterdir()} == {ENCODER, DECODER, RECEIPT}
    assert max(json.loads((folder / RECEIPT).read_text())["differences"].values()) < 1e-3
    before = (folder / ENCODER).stat().st_mtime_ns
    make("mobilesam", GRAPHS)
    assert (folder / ENCODER).stat().st_mtime_ns == before
    (folder / RECEIPT).unlink()  # as a kill would leave it
    make("mobilesam", GRAPHS)
    assert (folder / RECEIPT).is_file() and (folder / ENCODER).stat().st_mtime_ns > before
    other = make("mobilesam", EAGER)
    other.module.mask_decoder.iou_token.weight.data += 1
    assert exported(other) != folder


def test_a_graph_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write = onnx_graphs.write_graph

    def spoiled(network: nn.Module, *arguments: object) -> None:
        weight = next(network.parameters())
        kept = weight.data.clone()
        weight.data *= 1.1
        write(network, *arguments)  # type: ignore[arg-type]
        weight.data = kept

    monkeypatch.setattr(onnx_graphs, "write_graph", spoiled)
    with pytest.raises(UnsupportedRuntime, match="differs from torch"):
        make("mobilesam", GRAPHS)
    assert not list((tmp_path / "cache" / "onnx").iterdir()), "nothing is left of it"


def test_what_cannot_be_exported_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = load_cards()
    for name in ("sam3", "squeeze_sam", "box_fill", "tinysam_int8"):
        assert cards[name].availability([tmp_path], GRAPHS) == UNSUPPORTED_RUNTIME
        assert "torch" in cards[name].explain([tmp_path], GRAPHS)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    assert cards["mobilesam"].availability([tmp_path], GRAPHS) == NOT_INSTALLED
    assert "sambench[onnx]" in cards["mobilesam"].explain([tmp_path], GRAPHS)


def test_which_cards_are_exported() -> None:
    able = {name for name, card in load_cards().items() if card.onnx}
    assert {"sam_vit_b", "mobilesam", "edgesam", "repvit_sam", "tinysam", "efficientvit_sam_l0", "nanosam"} <= able
    assert {"sam2.1_hiera_tiny", "edgetam", "efficienttam_s", "sam_hq_vit_b", "light_hq_sam", "efficientsam_ti"} <= able
    assert len(able) == 36 and "sam2.1_hq_hiera_large" not in able
    runtimes = read_registries(["config"])["runtimes"]
    assert Runtime("onnx", **runtimes["onnx"]) == replace(GRAPHS, threads=None)
    assert Runtime("compile", **runtimes["compile"]) == Runtime("compile", compile=True)


@pytest.mark.parametrize(
    "change",
    [
        *({"device": "mps"}, {"dtype": "bfloat16"}, {"compile": True}, {"precision": "bfloat16"}),
        *({"engine": "openvino", "device": "cuda"}, {"engine": "openvino", "precision": "float16"}),
        *({"engine": "tensorrt"}, {"engine": "torch", "precision": "bfloat16"}),
    ],
    ids=str,
)
def test_a_runtime_that_graphs_cannot_have_is_refused_at_once(change: dict[str, object]) -> None:
    config = read_registries()
    config["runtimes"]["mine"] = {"device": "cpu", "engine": ONNX} | change
    with pytest.raises(InputError, match=r"runtimes\.mine"):
        read_study(config)


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here")
def test_compilation_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, runtime = load_cards()["mobilesam"], Runtime("compile", device="cpu", compile=True)
    assert card.availability([tmp_path], runtime) == NO_WEIGHTS
    monkeypatch.setenv("PATH", str(tmp_path))
    assert card.availability([tmp_path], runtime) == NOT_INSTALLED
    assert "C++ compiler" in card.explain([tmp_path], runtime)
