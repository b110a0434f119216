"""ONNX graphs beyond SAM 1: the same masks as torch on small random networks, engines that lie, `sambench export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT

from sambench.cli import app
from sambench.digests import digest
from sambench.errors import InputError, UnsupportedRuntime
from sambench.parity.fixtures import formula_image
from sambench.parity.models import load_cards
from sambench.status import UNSUPPORTED_RUNTIME
from sambench.variants import efficient_sam, efficient_tam, hq_sam, sam, sam2
from sambench.variants.base import ONNX, Prompts, Runtime, Variant
from sambench.variants.neural import NeuralVariant
from sambench.variants.registry import attempt

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

from sambench.variants.onnx_graphs import (
    DECODER,
    ENCODER,
    RECEIPT,
    Graph,
    HqDecoderSession,
    family_of,
    hand_out,
    use_onnx,
)

SIDE = 128
EAGER = Runtime(device="cpu", threads=1)
GRAPHS = Runtime("onnx", device="cpu", engine=ONNX, threads=1)
IMAGE = formula_image(180, 240)
BOXES = Prompts(boxes=np.array([[30, 20, 200, 150], [100, 60, 230, 170], [5, 5, 60, 60]], dtype=np.float32))
POINTS = Prompts(points=np.array([[[60, 70], [30, 150]]], dtype=np.float32), labels=np.array([[1, 1]]))


def small_sam2(runtime: Runtime) -> NeuralVariant:
    return sam2.Sam2Variant(sam2.Sam2Network(sam2.hiera_encoder("tiny"), pixel_size=SIDE), runtime, pixel_size=SIDE)


def small_edge_tam(runtime: Runtime) -> NeuralVariant:
    network = sam2.Sam2Network(sam2.build_edge_tam(runtime).module.vision_encoder, pixel_size=SIDE)
    return sam2.Sam2Variant(network, runtime, pixel_size=SIDE)


def small_efficient_tam(runtime: Runtime) -> NeuralVariant:
    return efficient_tam.build_efficient_tam(runtime, "ti", pixel_size=SIDE)


def small_efficient_sam(runtime: Runtime) -> NeuralVariant:
    variant = efficient_sam.build_efficient_sam(runtime, "ti")
    variant.pixel_size = SIDE
    return variant


def small_sam_hq(runtime: Runtime) -> NeuralVariant:
    vit = ImageEncoderViT(
        img_size=SIDE, embed_dim=48, depth=2, num_heads=2, use_rel_pos=True, window_size=5, global_attn_indexes=(1,)
    )
    variant = hq_sam.HqSamVariant(hq_sam.HqViT(vit), 48, runtime, dict)
    variant.pixel_size = SIDE
    variant.module.prompt_encoder.image_embedding_size = (SIDE // 16, SIDE // 16)
    return variant


FAMILIES: list[Callable[[Runtime], NeuralVariant]] = [
    small_sam2,
    small_edge_tam,
    small_efficient_tam,
    small_efficient_sam,
    small_sam_hq,
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images of SIDE pixels, a short Hiera, and a cache of the test's own."""
    monkeypatch.setenv("SAMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sam, "FRAME", SIDE)
    monkeypatch.setattr(efficient_sam, "FRAME", SIDE)
    monkeypatch.setattr(efficient_sam, "GRID", SIDE // 16)
    monkeypatch.setattr(sam2, "HIERA", {"tiny": ([1, 1, 2, 1], [3], 96, 1, [8, 4, 14, 7], 7)})


def make(builder: Callable[[Runtime], NeuralVariant], runtime: Runtime) -> NeuralVariant:
    torch.manual_seed(0)
    variant = builder(runtime)
    variant.name = builder.__name__
    variant.to_runtime()
    if runtime.engine == ONNX:
        use_onnx(variant)
    return variant


@pytest.mark.parametrize("builder", FAMILIES, ids=lambda builder: builder.__name__)
def test_graphs_agree_with_eager(builder: Callable[[Runtime], NeuralVariant]) -> None:
    plain, graphs = make(builder, EAGER), make(builder, GRAPHS)
    (expected,), found = plain.encode([IMAGE]), graphs.encode([IMAGE, IMAGE[:, ::-1].copy()])
    assert not graphs.takes_masks and len(found) == 2
    for prompts in (BOXES, POINTS):
        ours, wanted = graphs.decode(found[0], prompts), plain.decode(expected, prompts)
        n, tokens = ours.logits.shape[:2]
        logits = torch.stack([wanted.take(torch.full((n,), token))[0] for token in range(tokens)], dim=1)
        assert 0 < float((ours.logits - logits).abs().max() / logits.abs().max()) < 1e-3, "another implementation"
        torch.testing.assert_close(ours.scores, wanted.scores, atol=1e-3, rtol=0)
        assert torch.equal(ours.single, wanted.single)


LIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "only 0 as logits": torch.zeros_like,  # as some engines do where a type runs out of range
    "logits that differ by 0.1": lambda values: 1.1 * values,
    "logits that are not all finite": lambda values: values * float("nan"),
}


def test_an_engine_that_lies_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Graphs out of the cache, which were right when they were made, in an engine that computes something else."""
    make(small_sam_hq, GRAPHS)
    truth = HqDecoderSession.run
    for found, lie in LIES.items():

        def run(graph: Graph, *values: torch.Tensor, lie: Any = lie) -> list[torch.Tensor]:
            return [lie(value) for value in truth(graph, *values)]

        monkeypatch.setattr(HqDecoderSession, "run", run)
        with pytest.raises(UnsupportedRuntime, match=found):
            make(small_sam_hq, GRAPHS)
    # As a job sees it: a status, and the reason.
    monkeypatch.setattr("sambench.variants.registry.build", lambda *_, **__: make(small_sam_hq, GRAPHS))
    (tmp_path / "mobile_sam.pt").write_bytes(b"x")
    variant, status, reason = attempt(load_cards()["mobilesam"], GRAPHS, [tmp_path])
    assert variant is None and status == UNSUPPORTED_RUNTIME and "not all finite" in reason


def test_the_user_gets_the_graphs_that_are_measured(tmp_path: Path) -> None:
    measured = make(small_efficient_tam, GRAPHS)
    (cached,) = (tmp_path / "cache" / "onnx").iterdir()
    files = hand_out(make(small_efficient_tam, EAGER), tmp_path / "mine")
    assert [file.name for file in files] == [DECODER, ENCODER, RECEIPT]
    for name in (ENCODER, DECODER):
        assert digest(tmp_path / "mine" / name) == digest(cached / name)
    receipt = json.loads((tmp_path / "mine" / RECEIPT).read_text())
    assert receipt["encoder"] == {"inputs": ["pixels"], "outputs": ["image_embed"]}
    assert receipt["decoder"] == {"inputs": ["image_embed", "sparse"], "outputs": ["logits", "scores"]}
    assert receipt["sha256"][ENCODER] == digest(tmp_path / "mine" / ENCODER)
    # Fed by name, as the receipt has it, they answer as the variant does.
    encoder, decoder = (Graph(tmp_path / "mine" / name, GRAPHS) for name in (ENCODER, DECODER))
    assert encoder.graph.inputs == receipt["encoder"]["inputs"] and decoder.graph.inputs == receipt["decoder"]["inputs"]
    (features,) = measured.encode([IMAGE])
    pixels = measured.pixels(measured.prepare(IMAGE))
    assert torch.equal(encoder.run(pixels)[0], features.maps["image_embed"])
    with pytest.raises(InputError, match="expected no such file yet"):
        hand_out(measured, tmp_path / "mine")


def test_what_has_no_graphs_says_so(tmp_path: Path) -> None:
    class Other(Variant):
        name = "other"

        def encode_prepared(self, prepared: Any) -> list[Any]:
            return []

        def decode(self, features: Any, prompts: Prompts) -> Any:
            return None

    with pytest.raises(InputError, match="other: onnx: expected one of HqSamVariant"):
        family_of(Other())
    for name, found in (("grabcut", "unsupported runtime"), ("sam_vit_h", "no weights"), ("mobilsam", "mobilesam")):
        with pytest.raises(InputError, match=found):
            app(["export", name, "-o", str(tmp_path / "out"), "--weights", str(tmp_path)])
    assert not (tmp_path / "out").exists()
