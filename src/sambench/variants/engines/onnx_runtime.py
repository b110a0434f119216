"""ONNX Runtime on the CPU and, where its package was built with them, through CUDA, TensorRT and CoreML.

ONNX Runtime goes on with its CPU provider when another one does not start, and gives it whatever that one leaves. So
each session is asked which provider it got, and who has the products, which are nearly all of the work.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sambench.errors import UnsupportedRuntime
from sambench.files import default_cache

CPU, CUDA, TENSORRT, COREML = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt", "CoreML"))
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SOURCES = {
    CUDA: "the package onnxruntime-gpu has it",
    TENSORRT: "the package onnxruntime-gpu has it, and needs TensorRT beside it",
    COREML: "only onnxruntime for macOS has it",
}


class Session:
    """A graph in ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.inputs = [value.name for value in session.get_inputs()]

    def __call__(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(None, dict(values))
        return outputs


def provider_of(engine: str, device: str) -> str:
    """The execution provider that an engine is on a device."""
    return {"tensorrt": TENSORRT, "coreml": COREML}.get(engine, CPU if device == "cpu" else CUDA)


def absent(engine: str, device: str) -> str:
    """Why the provider is not available; empty when it is."""
    import onnxruntime

    provider, here = provider_of(engine, device), onnxruntime.get_available_providers()
    if provider in here:
        return ""
    return f"onnxruntime has no {provider} here, only {' and '.join(here)}: {SOURCES[provider]}"


def load(engine: str, path: Path, *, device: str, precision: str, threads: int) -> Session:
    """Open a graph in the provider of an engine, and in no other one."""
    import onnxruntime

    provider = provider_of(engine, device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle workers of one graph would else spin on the cores that the other graph or torch computes on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it goes on without a provider: told below
            session = onnxruntime.InferenceSession(str(path), options, providers=chain(provider, device, precision))
    except Exception as error:  # onnxruntime has a dozen exception types without a common one of its own
        raise refused(engine, path, f"{type(error).__name__}: {error}") from error
    session.disable_fallback()  # of single runs: a failed one would be repeated by another provider
    if session.get_providers()[0] != provider:
        raise refused(engine, path, f"a session of {session.get_providers()[0]}, as {provider} did not start")
    if provider != CPU:
        own, every = products(session)
        if every and not own:
            raise refused(engine, path, f"none of {every} products (Conv, Gemm, MatMul) in {provider}")
        print(f"{path.name}: {own} of {every} products in {provider}", file=sys.stderr)
    return Session(session)


def chain(provider: str, device: str, precision: str) -> list[Any]:
    """A provider with its options, and what may take the operators that it does not know."""
    number = device.partition(":")[2] or "0"
    # Float32 by itself would be TF32, which has the digits of float16.
    cuda = (CUDA, {"device_id": number, "use_tf32": "0"})
    if provider == CUDA:
        return [cuda]
    if provider == TENSORRT:
        engines = default_cache() / "tensorrt"  # built once for each shape, in minutes
        engines.mkdir(parents=True, exist_ok=True)
        kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
        types = {"trt_fp16_enable": int(precision == "float16"), "trt_bf16_enable": int(precision == "bfloat16")}
        return [(TENSORRT, {"device_id": number, **kept, **{name: str(on) for name, on in types.items()}}), cuda]
    if provider == COREML:
        units = "ALL" if precision == "float16" else "CPUAndGPU"  # the Neural Engine computes in float16 only
        return [(COREML, {"ModelFormat": "MLProgram", "MLComputeUnits": units})]
    return [CPU]


def products(session: Any) -> tuple[int, int]:
    """How many products of a graph the first provider computes, of how many; (0, 0) where the session does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # versions of before
        return 0, 0
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += sum(node.op_type in PRODUCTS for node in part.get_nodes())
    return counts[session.get_providers()[0]], counts.total()


def refused(engine: str, path: Path, found: str) -> UnsupportedRuntime:
    return UnsupportedRuntime(engine, path.name, expected="a graph that it runs", found=found)
