"""Engines: what runs exported ONNX graphs. A module per library, one interface.

    graph = load("openvino", path, device="cpu", precision="float32", threads=2)
    outputs = graph({"pixels": pixels, ...})    # float32 arrays by name -> float32 arrays in the graph's order

A module has two functions. `load` opens a graph and raises UnsupportedRuntime when the library would compute it
elsewhere, or in other numbers, than it was asked to. `absent` says what this machine lacks. Libraries are imported
inside of them only. Whoever runs a graph does not know which engine it has.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class RunningGraph(Protocol):
    """inputs: names of the inputs that the graph has, in its order."""

    inputs: Sequence[str]

    def __call__(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class Engine:
    """What a runtime may ask of an engine, known without its library.

    module: where its functions are. packages: what must be installed. extra: the extra of sambench that brings it.
    devices: kinds of devices, without a number. precisions: numbers that it can compute in.
    """

    module: str
    packages: Sequence[str]
    extra: str
    devices: Sequence[str]
    precisions: Sequence[str] = ("float32",)

    @property
    def missing_packages(self) -> list[str]:
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


EXPORT = ("onnx", "onnxruntime")  # they write the graphs, and check them before any engine gets them
_ORT, _OPENVINO = (f"{__name__}.{module}" for module in ("onnx_runtime", "openvino"))
ENGINES: Mapping[str, Engine] = {
    "onnxruntime": Engine(_ORT, EXPORT, "onnx", ("cpu", "cuda")),
    "openvino": Engine(_OPENVINO, (*EXPORT, "openvino"), "openvino", ("cpu",), ("float32", "bfloat16")),
    "tensorrt": Engine(_ORT, EXPORT, "onnx", ("cuda",), ("float32", "bfloat16", "float16")),
    "coreml": Engine(_ORT, EXPORT, "onnx", ("cpu",), ("float32", "float16")),
}


def load(engine: str, path: Path, *, device: str, precision: str, threads: int) -> RunningGraph:
    """Open a graph in an engine. device: `cpu`, `cuda` or `cuda:N`. threads: of the CPU.

    Raises UnsupportedRuntime when the engine cannot run it as it was asked to.
    """
    graph: RunningGraph = _module(engine).load(engine, path, device=device, precision=precision, threads=threads)
    return graph


def absent(engine: str, device: str) -> str:
    """What this machine lacks for an engine whose packages are there, in a few words; empty when nothing."""
    lacking: str = _module(engine).absent(engine, device)
    return lacking


def _module(engine: str) -> Any:
    return importlib.import_module(ENGINES[engine].module)
