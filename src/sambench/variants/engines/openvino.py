"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sambench.errors import UnsupportedRuntime


class Compiled:
    """A graph in OpenVINO."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.inputs = [value.any_name for value in compiled.inputs]

    def __call__(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        # Inputs are read where they are; outputs are copied, since the next call writes over them.
        found = self.compiled(dict(values), share_inputs=True, share_outputs=False)
        return [found[output] for output in self.compiled.outputs]


def absent(engine: str, device: str) -> str:
    """Nothing: its package always has the CPU."""
    return ""


def load(engine: str, path: Path, *, device: str, precision: str, threads: int) -> Compiled:
    """Compile a graph. Left to itself, OpenVINO computes in bfloat16 wherever the processor has it."""
    import openvino

    wanted = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[precision]
    options = {
        "INFERENCE_PRECISION_HINT": wanted,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # each job of several would pin its threads to the same cores
    }
    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    except Exception as error:
        raise UnsupportedRuntime(engine, path.name, expected="a graph that it runs", found=error) from error
    found = compiled.get_property("INFERENCE_PRECISION_HINT")
    if found != wanted:
        remedy = "choose the precision float32"
        raise UnsupportedRuntime(engine, "precision", expected=precision, found=found.get_type_name(), remedy=remedy)
    return Compiled(compiled)
