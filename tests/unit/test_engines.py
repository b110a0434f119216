"""Engines of exported graphs: OpenVINO computes what torch computes, none goes on elsewhere unseen, none may lie."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_onnx import small_vit
from test_onnx_families import (
    BOXES,
    GRAPHS,
    IMAGE,
    POINTS,
    SIDE,
    small_efficient_sam,
    small_efficient_tam,
    small_sam2,
    small_sam_hq,
)

from sambench.code_digest import runtime_modules
from sambench.config import read_registries
from sambench.errors import UnsupportedRuntime
from sambench.files import default_cache
from sambench.measure import agreement
from sambench.measure.session import MeasuringJob
from sambench.parity.models import load_cards
from sambench.settings import Runtime as RuntimeSettings
from sambench.settings_docs import json_schema
from sambench.status import NO_DEVICE, NO_WEIGHTS, NOT_INSTALLED
from sambench.variants import efficient_sam, engines, sam, sam2
from sambench.variants.base import OFFICIAL, Runtime
from sambench.variants.engines import ENGINES, Engine
from sambench.variants.neural import NeuralVariant
from sambench.variants.onnx_graphs import use_onnx
from sambench.variants.registry import attempt

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

from sambench.variants.engines import onnx_runtime

TOLERANCE = 1e-3  # largest difference of logits and scores to torch's, relative to the largest logit
# The fast decoder leaves out what lies in the padding; graphs are made of the official one.
EAGER = Runtime(device="cpu", threads=1, decoder=OFFICIAL)
VINO = replace(GRAPHS, name="openvino", engine="openvino")
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra `openvino` is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Images of SIDE pixels, a short Hiera, and one cache for all tests: each graph is exported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sam, "FRAME", SIDE)
        patch.setattr(efficient_sam, "FRAME", SIDE)
        patch.setattr(efficient_sam, "GRID", SIDE // 16)
        patch.setattr(sam2, "HIERA", {"tiny": ([1, 1, 2, 1], [3], 96, 1, [8, 4, 14, 7], 7)})
        yield


def small_sam(runtime: Runtime) -> NeuralVariant:
    variant = small_vit(runtime)
    variant.pixel_size = SIDE
    variant.module.prompt_encoder.image_embedding_size = (SIDE // 16, SIDE // 16)
    return variant


def make(builder: Callable[[Runtime], NeuralVariant], runtime: Runtime) -> NeuralVariant:
    torch.manual_seed(0)
    variant = builder(runtime)
    variant.name = builder.__name__
    variant.to_runtime()
    if runtime.engine != "torch":
        use_onnx(variant)
    return variant


def difference(ours: NeuralVariant, plain: NeuralVariant) -> float:
    """The largest difference of logits and scores over boxes and points, relative to the largest logit."""
    (found,), (expected,) = ours.encode([IMAGE]), plain.encode([IMAGE])
    differences = []
    for prompts in (BOXES, POINTS):
        got, wanted = ours.decode(found, prompts), plain.decode(expected, prompts)
        differences += [
            float((got.logits - wanted.logits).abs().max() / wanted.logits.abs().max()),
            float((got.scores - wanted.scores).abs().max()),
        ]
        assert torch.equal(got.single, wanted.single)
    return max(differences)


@needs_openvino
@pytest.mark.parametrize(
    "builder", [small_sam, small_sam2, small_efficient_sam, small_sam_hq], ids=lambda builder: builder.__name__
)
def test_openvino_computes_what_torch_computes(builder: Callable[[Runtime], NeuralVariant]) -> None:
    ours = make(builder, VINO)
    assert 0 < difference(ours, make(builder, EAGER)) < TOLERANCE, "another implementation, the same function"
    # Features stay what they are while the next image is encoded.
    first, second = ours.encode([IMAGE, IMAGE[:, ::-1].copy()])
    for name, value in ours.encode([IMAGE])[0].maps.items():
        assert torch.equal(value, first.maps[name]) and not torch.equal(value, second.maps[name])


@needs_openvino
def test_openvino_computes_in_bfloat16_only_when_asked() -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UnsupportedRuntime, match="openvino: precision: expected bfloat16, found f32"):
            make(small_sam, replace(VINO, precision="bfloat16"))
        return
    plain = make(small_sam, EAGER)
    assert TOLERANCE < difference(make(small_sam, replace(VINO, precision="bfloat16")), plain) < 100 * TOLERANCE


class Lie:
    """A graph in ONNX Runtime whose answers are spoilt."""

    def __init__(self, path: Path, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
        self.honest = onnx_runtime.load("onnxruntime", path, device="cpu", precision="float32", threads=1)
        self.inputs, self.spoil = self.honest.inputs, spoil

    def __call__(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [self.spoil(output) for output in self.honest(values)]


LIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "zeros": (np.zeros_like, "only 0 as logits"),
    "a constant": (lambda values: np.full_like(values, 0.5), "only 0.5 as logits"),
    "no numbers": (lambda values: np.full_like(values, np.nan), "logits that are not all finite"),
    "one that is infinite": (lambda values: np.where(values == values.max(), np.inf, values), "are not all finite"),
    "another scale": (lambda values: np.float32(1.5) * values, "logits that differ by"),
    "right for the first prompt only": (
        lambda values: np.concatenate([values[:1], np.zeros_like(values[1:])]),
        "logits that differ by",
    ),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_engine_may_lie(lie: str, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine of which nothing is known answers something else: refused with its name, as a status of its cell."""
    spoil, found = LIES[lie]
    fake: Any = ModuleType("fake_engine")
    fake.load = lambda engine, path, **_: Lie(path, spoil if path.name == "decoder.onnx" else lambda values: values)
    fake.absent = lambda engine, device: ""
    monkeypatch.setitem(sys.modules, "fake_engine", fake)
    monkeypatch.setattr(engines, "ENGINES", {**ENGINES, "fake": Engine("fake_engine", (), "", ("cpu",))})
    runtime = replace(GRAPHS, engine="fake", precision=precision)
    with pytest.raises(UnsupportedRuntime, match=f"small_efficient_tam: fake: expected what torch answers.*{found}"):
        make(small_efficient_tam, runtime)


# ---- what a machine lacks ------------------------------------------------------------------------------------------


def fake_onnxruntime(monkeypatch: pytest.MonkeyPatch, available: Sequence[str], session: Any = None) -> None:
    """An onnxruntime with other providers than the one here."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(available))
    if session is not None:
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)


@pytest.mark.parametrize(
    ("engine", "device", "reason"),
    [
        (
            "onnxruntime",
            "cuda",
            "no CUDAExecutionProvider here, only CPUExecutionProvider: the package onnxruntime-gpu",
        ),
        ("tensorrt", "cuda", "no TensorrtExecutionProvider here, only CPUExecutionProvider: the package onnxruntime"),
        ("coreml", "cpu", "no CoreMLExecutionProvider here, only CPUExecutionProvider: only onnxruntime for macOS"),
    ],
)
def test_a_provider_that_is_not_here(
    engine: str, device: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_onnxruntime(monkeypatch, ["CPUExecutionProvider"])
    monkeypatch.setattr(Runtime, "missing_device", lambda runtime: "")  # as on a machine with a GPU
    card, runtime = load_cards()["mobilesam"], Runtime(engine, device=device, engine=engine)
    (tmp_path / "mobile_sam.pt").write_bytes(b"x")
    variant, status, why = attempt(card, runtime, [tmp_path])
    assert variant is None and status == NO_DEVICE
    assert reason in why and why.endswith("choose a runtime with another engine") and "\n" not in why


def test_a_measure_says_what_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_onnxruntime(monkeypatch, ["CPUExecutionProvider"])
    runtime = Runtime("coreml", device="cpu", engine="coreml", threads=1)
    table, device, facts = agreement.run(MeasuringJob(load_cards()["mobilesam"], runtime, [tmp_path], {}))
    assert table["status"].tolist() == [NO_DEVICE] and device == ""
    assert json.loads(facts["run"])["decoder"] == OFFICIAL, "of which graphs are made, whatever the runtime says"


def test_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    card, runtime = load_cards()["mobilesam"], Runtime("tensorrt", device="cuda:0", engine="tensorrt")
    assert card.availability([tmp_path], runtime) == NO_DEVICE
    assert "torch finds no device of the kind cuda" in card.explain([tmp_path], runtime)


def test_a_package_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    card = load_cards()["mobilesam"]
    assert card.availability([tmp_path], VINO) == NOT_INSTALLED
    assert card.explain([tmp_path], VINO) == "needs openvino: pip install 'sambench[openvino]'"
    assert card.availability([tmp_path], GRAPHS) == NO_WEIGHTS, "the others need it not"


def session(providers: Sequence[str], nodes: Mapping[str, Sequence[str]]) -> Any:
    """A session of ONNX Runtime with its providers and the types of the operators that each has."""
    parts = [
        SimpleNamespace(ep_name=name, get_nodes=lambda types=types: [SimpleNamespace(op_type=each) for each in types])
        for name, types in nodes.items()
    ]
    return SimpleNamespace(
        get_providers=lambda: list(providers),
        get_provider_graph_assignment_info=lambda: parts,
        get_inputs=list,
        disable_fallback=lambda: None,
    )


CPU, COREML = onnx_runtime.CPU, onnx_runtime.COREML


def test_a_provider_that_does_not_start_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ONNX Runtime then goes on with its CPU provider, and says so in a warning at most."""
    graph = tmp_path / "encoder.onnx"
    ask = {"device": "cpu", "precision": "float32", "threads": 1}
    fake_onnxruntime(monkeypatch, [COREML, CPU], session([CPU], {CPU: ["Conv"]}))
    with pytest.raises(UnsupportedRuntime, match=f"coreml: encoder.onnx: .* a session of {CPU}, as {COREML} did not"):
        onnx_runtime.load("coreml", graph, **ask)
    fake_onnxruntime(
        monkeypatch, [COREML, CPU], session([COREML, CPU], {CPU: ["Conv", "Gemm", "Add"], COREML: ["Add"]})
    )
    with pytest.raises(UnsupportedRuntime, match=f"none of 2 products .* in {COREML}"):
        onnx_runtime.load("coreml", graph, **ask)


def test_what_a_provider_leaves_to_others_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = {COREML: ["Conv", "MatMul", "Add"], CPU: ["MatMul", "Shape"]}
    fake_onnxruntime(monkeypatch, [COREML, CPU], session([COREML, CPU], nodes))
    onnx_runtime.load("coreml", tmp_path / "encoder.onnx", device="cpu", precision="float32", threads=1)
    assert capsys.readouterr().err == f"encoder.onnx: 2 of 3 products in {COREML}\n"


def test_the_real_onnxruntime_goes_on_nowhere_else() -> None:
    import onnxruntime

    if onnx_runtime.CUDA in onnxruntime.get_available_providers():
        pytest.skip("there is CUDA here")
    make(small_efficient_tam, GRAPHS)
    graph = next((default_cache() / "onnx").glob("*/encoder.onnx"))
    with pytest.raises(UnsupportedRuntime, match=f"a session of {CPU}, as {onnx_runtime.CUDA} did not start"):
        onnx_runtime.load("onnxruntime", graph, device="cuda", precision="float32", threads=1)


def test_what_is_no_graph_is_refused_in_a_line(tmp_path: Path) -> None:
    page = tmp_path / "encoder.onnx"
    page.write_text("<html>\n</html>")
    for name in ("onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])):
        with pytest.raises(UnsupportedRuntime, match=f"{name}: encoder.onnx: expected a graph that it runs") as error:
            engines.load(name, page, device="cpu", precision="float32", threads=1)
        assert "\n" not in str(error.value)


# ---- settings ------------------------------------------------------------------------------------------------------


def test_settings_and_schema_know_what_each_engine_takes() -> None:
    assert get_args(RuntimeSettings.model_fields["engine"].annotation) == ("torch", *ENGINES)
    schema = json_schema()
    validator = jsonschema.Draft202012Validator({**schema["$defs"]["Runtime"], "$defs": schema["$defs"]})
    taken: Counter[str] = Counter()
    devices, precisions = ("auto", "cpu", "mps", "cuda", "cuda:1"), (None, "float32", "bfloat16", "float16")
    for engine, device, precision in itertools.product(("torch", *ENGINES), devices, precisions):
        entry = {"engine": engine, "device": device} | ({"precision": precision} if precision else {})
        try:
            Runtime("mine", **RuntimeSettings.model_validate(entry).model_dump(mode="json", exclude_unset=True))
            taken[engine] += 1
        except ValidationError:
            assert not validator.is_valid(entry), entry
        else:
            assert validator.is_valid(entry), entry
    # Devices times precisions, one of which may go unsaid.
    assert taken == {"torch": 5 * 2, "onnxruntime": 3 * 2, "tensorrt": 2 * 4, "coreml": 3, "openvino": 3}


def test_every_engine_has_a_runtime_and_its_code_counts() -> None:
    runtimes = read_registries(["config"])["runtimes"]
    assert {entry.get("engine", "torch") for entry in runtimes.values()} == {"torch", *ENGINES}
    for name, engine in ENGINES.items():
        assert runtime_modules({"engine": name}) == ["sambench.variants.onnx_graphs", engine.module]
