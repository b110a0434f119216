"""What a variant costs on paper: parameters, FLOPs and MACs of each of its parts, for one image and one box.

Two counters are read, because neither tells the whole story:

- calflops, as the survey (arXiv 2410.04960) used it: it replaces functions of torch.nn.functional and counts a product
  as two FLOPs, and activations, norms, biases and resizing too. It does not see `@`, bmm or
  scaled_dot_product_attention, so most of the attention is missing, and einsum has FLOPs but no MACs.
- torch.utils.flop_counter, which sees every product and convolution below Python as two FLOPs, and nothing else.

Counting needs shapes, not values: networks are built on the meta device, so ViT-H takes seconds and no memory. What
cannot live there (YOLO computes its biases while it is built) is counted on the CPU.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sambench import records
from sambench.errors import InputError
from sambench.measure.onnx_operations import PRODUCTS, onnx_cost
from sambench.measure.session import Measured, MeasuringJob
from sambench.memory import OutOfMemory, memory_guard
from sambench.status import NO_NETWORK, NO_WEIGHTS, OK, OUT_OF_MEMORY
from sambench.variants.base import OFFICIAL, MaskCandidates, Prompts, Runtime
from sambench.variants.cards import Card
from sambench.variants.neural import NeuralVariant
from sambench.variants.registry import build
from sambench.volumes.base import VolumeVariant

RECORD = records.EFFICIENCY
IMAGE_ENCODER, PROMPT_ENCODER, MASK_DECODER, UPSAMPLING = PARTS = (
    "image encoder", "prompt encoder", "mask decoder", "upsampling",
)  # fmt: skip
# The shape of segment-anything's groceries.jpg, the image of the survey: counts depend on nothing else of it.
IMAGE_SIZE = (534, 800)
BOX = (200.0, 130.0, 600.0, 400.0)

# Functions whose products calflops counts; those of `einsum` as FLOPs only.
SEEN = frozenset(
    {"linear", "matmul", "addmm", "baddbmm", "einsum"}
    | {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)}
    | set(PRODUCTS)  # of an ONNX graph: counted once, for both counters
)
EINSUM = "einsum"


# A product that torch.utils.flop_counter does not know by itself.
DEFORM_CONV = "deform_conv2d"


@dataclass(frozen=True)
class Operations:
    """One pass of one part.

    flops, macs: by calflops. products: FLOPs by torch.utils.flop_counter.
    functions: `products` by the function that was called from Python, such as `linear` or `@`.
    """

    flops: int
    macs: int
    products: int
    functions: Mapping[str, int]

    @property
    def unseen(self) -> dict[str, int]:
        """FLOPs of products that calflops does not see, by function. With `einsum`, of which it sees no MACs, and
        `flops - 2 * macs - einsum`, the activations, norms and biases, they are all that the two counts differ by."""
        others = {name: flops for name, flops in self.functions.items() if name not in SEEN}
        # torch calls `@` matmul too, which calflops does see: the rest is what was written as `@`.
        at = self.products - 2 * self.macs - self.functions.get(EINSUM, 0) - sum(others.values())
        return {name: flops for name, flops in {**others, "@": at}.items() if flops}


@dataclass(frozen=True)
class Cost:
    """parameters and operations, both by part; on_meta: whether no value was computed to count them."""

    parameters: Mapping[str, int]
    operations: Mapping[str, Operations]
    on_meta: bool

    def rows(self) -> list[dict[str, Any]]:
        """One row per part, with columns of records.EFFICIENCY."""
        return [
            {
                "part": part,
                "parameters": self.parameters[part],
                "flops": counted.flops,
                "macs": counted.macs,
                "products": counted.products,
                "unseen": json.dumps(counted.unseen, sort_keys=True),
                "status": OK,
            }
            for part, counted in self.operations.items()
        ]


def count(card: Card, size: tuple[int, int] = IMAGE_SIZE, folders: Iterable[Path] = ()) -> Cost:
    """Parameters and operations of a variant, for an image of `size` (height, width).

    Weights are random, since they change no count; only an encoder that is an ONNX file is looked up in `folders`.

    Raises InputError when the variant cannot be built, or not without its ONNX file.
    """
    folders = list(folders)
    graphs = [path for path in card.weights(folders) or [] if path.suffix == ".onnx"]
    # An import may make tensors, and a package of a variant's own is imported while it is built: neither under meta.
    importlib.import_module(card.builder.partition(":")[0])
    # onnxruntime makes none; what is quantized for it when it gets its runtime, is counted as it was before.
    if not card.module or (card.module == "onnxruntime" and not graphs):
        try:
            with torch.device("meta"):
                variant = build(card, Runtime(device="meta", decoder=OFFICIAL), folders, random_weights=True)
            return count_variant(_network(variant), size)
        except InputError:
            raise
        except Exception as error:  # whatever needs a value: if it is a bug, it shows itself again on the CPU
            reason = str(error).partition("\n")[0]
            print(f"{card.name}: counted on the CPU, not on the meta device: {reason}", file=sys.stderr)
    variant = build(card, Runtime(device="cpu", decoder=OFFICIAL), folders, random_weights=not graphs)
    return _with_graphs(count_variant(_network(variant), size), graphs)


def _with_graphs(cost: Cost, graphs: Sequence[Path]) -> Cost:
    """Add what runs in onnxruntime, where no counter of torch sees it, to the image encoder."""
    for path in graphs:
        extra, functions = onnx_cost(path)
        flops, seen = sum(functions.values()), cost.operations[IMAGE_ENCODER]
        encoder = Operations(
            seen.flops + flops, seen.macs + flops // 2, seen.products + flops, {**seen.functions, **functions}
        )
        parameters = {**cost.parameters, IMAGE_ENCODER: cost.parameters[IMAGE_ENCODER] + extra}
        cost = Cost(parameters, {**cost.operations, IMAGE_ENCODER: encoder}, cost.on_meta)
    return cost


def _network(variant: Any) -> NeuralVariant:
    if not isinstance(variant, NeuralVariant):
        raise InputError(variant.name, expected="a variant with a torch module", found=type(variant).__name__)
    return variant


def count_variant(variant: NeuralVariant, size: tuple[int, int] = IMAGE_SIZE) -> Cost:
    """Cost of a variant as it stands.

    The path is that of one box and the single-mask token: encode, decode, and one mask brought to `size`. What runs
    once per image counts as image encoder, also where the module belongs to the decoder (SAM 2's projections of its
    finer maps, SAM-HQ's features); what runs once per prompt as prompt encoder or mask decoder. All mask tokens are
    decoded, as in the official decoders. The image is resized before anything is counted. A variant for volumes is
    counted for one cube and one click, whatever `size`.
    """
    encode, decode, upsample = _volume_steps(variant) if isinstance(variant, VolumeVariant) else _steps(variant, size)
    prompt_encoder = getattr(variant.module, "prompt_encoder", None)
    image, _ = operations(variant.module, encode, None)
    decoder, prompt = operations(variant.module, decode, prompt_encoder)
    upsampling, _ = operations(variant.module, upsample, None)
    counted = dict(zip(PARTS, (image, prompt, decoder, upsampling), strict=True))
    return Cost(parameters(variant.module), counted, variant.device.type == "meta")


Steps = tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]  # encode, decode, upsample


def _volume_steps(variant: VolumeVariant) -> Steps:
    prepared = torch.zeros((1, 1, *(variant.side,) * 3))
    embedding = variant.encode_volume(prepared)
    click = np.zeros((1, 3)), np.ones(1, dtype=np.int64)
    logits, _ = variant.answer(embedding, *click, None)
    return (
        lambda: variant.encode_volume(prepared),
        lambda: variant.answer(embedding, *click, None),
        lambda: variant.enlarge(logits[:1]),
    )


def _steps(variant: NeuralVariant, size: tuple[int, int]) -> Steps:
    prepared = variant.prepare(np.zeros((*size, 3), dtype=np.uint8))
    box = np.array([BOX], dtype=np.float32) * np.tile([size[1] / IMAGE_SIZE[1], size[0] / IMAGE_SIZE[0]], 2)
    prompts = Prompts(boxes=box.astype(np.float32))

    def encode() -> Any:
        (features,) = variant.encode_prepared([prepared])
        return features

    features = encode()

    def decode() -> MaskCandidates:
        return variant.decode(features, prompts)

    candidates = decode()
    single = candidates.logits[torch.zeros_like(candidates.single), candidates.single]

    def upsample() -> torch.Tensor:
        return candidates.upsampling.masks(single)

    return encode, decode, upsample


def parameters(network: nn.Module) -> dict[str, int]:
    """Parameters by part: of `prompt_encoder`, of `mask_decoder`, and all others as image encoder."""

    def size(module: nn.Module | None) -> int:
        return sum(value.numel() for value in module.parameters()) if module is not None else 0

    prompt, decoder = (size(getattr(network, name, None)) for name in ("prompt_encoder", "mask_decoder"))
    return dict(zip(PARTS, (size(network) - prompt - decoder, prompt, decoder, 0), strict=True))


def operations(network: nn.Module, step: Callable[[], Any], inner: nn.Module | None) -> tuple[Operations, Operations]:
    """Operations of a call into a network: outside of its part `inner`, and inside of it."""
    flops, macs = _calflops(network, step, inner)
    products, functions = _products(step, inner)
    outside, inside = (Operations(flops[i], macs[i], products[i], functions[i]) for i in range(2))
    return outside, inside


def _calflops(
    network: nn.Module, step: Callable[[], Any], inner: nn.Module | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """((FLOPs, FLOPs inside of `inner`), (MACs, MACs inside of `inner`)), without `inner` in the first of each."""
    from calflops import calculate_pipline as calflops

    class Step(nn.Module):
        """calflops counts what happens inside of a module's call."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self) -> None:
            step()

    class Quiet(TorchDispatchMode):
        """On the meta device torch computes shapes by Python code, whose arithmetic calflops would count too."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calflops.module_flop_count.append([])
            calflops.module_mac_count.append([])
            try:
                return func(*args, **(kwargs or {}))
            finally:
                calflops.module_flop_count.pop()
                calflops.module_mac_count.pop()

    whole = Step().eval()
    pipeline = calflops.CalFlopsPipline(whole, include_backPropagation=False, compute_bp_factor=2.0)
    pipeline.start_flops_calculate()
    try:
        with Quiet():
            whole()
        # Each module once, unlike calflops' own sum over children, which counts a shared module twice.
        inside = set(inner.modules()) if inner is not None else set()
        counts: list[tuple[bool, Any, Any]] = [(m in inside, m.__flops__, m.__macs__) for m in whole.modules()]
    finally:
        pipeline.end_flops_calculate()
        calflops.module_flop_count.clear()
        calflops.module_mac_count.clear()
    flops, macs = ([sum(int(c[i]) for c in counts if c[0] == where) for where in (False, True)] for i in (1, 2))
    return (flops[0], flops[1]), (macs[0], macs[1])


def _torchvision_products() -> dict[Any, Callable[..., int]]:
    """FLOPs of torchvision's deformable convolution, those of a plain one; empty before torchvision is imported."""
    if "torchvision" not in sys.modules:
        return {}

    def deform_conv(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
        return 2 * math.prod(out_shape) * math.prod(weight[1:])

    return {getattr(torch.ops.torchvision, DEFORM_CONV): deform_conv}


def _products(
    step: Callable[[], Any], inner: nn.Module | None
) -> tuple[tuple[int, int], tuple[Counter[str], Counter[str]]]:
    """FLOPs of products outside and inside of `inner`: in all, and by the function that was called."""
    functions: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    depth = 0
    counter = FlopCounterMode(display=False, custom_mapping=_torchvision_products())

    class ByFunction(TorchFunctionMode):
        """Notes what each function called from Python adds to the counter, everything below it included."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            before = counter.get_total_flops()
            result = func(*args, **(kwargs or {}))
            added = counter.get_total_flops() - before
            if added:
                name = getattr(func, "__name__", str(func))
                functions[depth > 0][name] += added
            return result

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    handles = []
    for module in inner.modules() if inner is not None else ():
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with counter, ByFunction():
            step()
    finally:
        for handle in handles:
            handle.remove()
    outside, inside = (sum(by.values()) for by in functions)
    if outside + inside != counter.get_total_flops():
        raise RuntimeError("products were counted that no function of torch was called for")
    return (outside, inside), functions


def run(job: MeasuringJob) -> Measured:
    """Count what a variant costs: one row per part, or one row with a status.

    Weights are random: they change no count.
    """
    card, folders = job.card, list(job.folders)
    state = card.availability(folders)
    facts = {"variant": card.name, "checkpoint_bytes": card.checkpoint_bytes(folders)}
    rows: list[dict[str, Any]] = []
    if state == OK and not card.checkpoints:
        state = NO_NETWORK
    elif state in (OK, NO_WEIGHTS):
        try:
            height, width = job.settings["image_size"]
            with memory_guard():
                cost = count(card, (height, width), folders)
            state, rows = OK, [{**facts, **row} for row in cost.rows()]
        except InputError as error:
            print(error, file=sys.stderr)
            state = NO_WEIGHTS
        except OutOfMemory as error:
            print(error, file=sys.stderr)
            state = OUT_OF_MEMORY
    else:
        print(f"efficiency {card.name}: {state}: {card.explain(folders)}", file=sys.stderr)
    return pd.DataFrame(rows or [{**facts, "status": state}], columns=RECORD.names), "", {}
