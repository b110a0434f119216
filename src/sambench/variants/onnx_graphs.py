"""Variants as exported graphs (runtimes with an engine other than torch): image encoder and mask decoder.

SAM 1 and its relatives, SAM-HQ, EfficientSAM, SAM 2, EdgeTAM and EfficientTAM. Both networks are exported by tracing,
compared with torch on random input, and only then used. What has passed lies in the cache under a name that follows
from the weights, the code and the library versions, and is not made again:

    <cache>/onnx/<digest>/encoder.onnx, decoder.onnx, receipt.json

Which engine then runs them (engines/) is not known here. Whenever graphs are loaded, they answer the same random input
once more: an engine that gives zeros, or something else than torch gave, is refused (status `unsupported runtime`).

The prompt encoder stays in torch: it is a few multiplications on a few numbers. The exporter by tracing is the one of
torch that needs no further package.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sambench.code_digest import module_files
from sambench.digests import digest as file_digest
from sambench.errors import InputError, UnsupportedRuntime
from sambench.files import default_cache
from sambench.variants import engines
from sambench.variants.base import ONNX, Runtime, Variant
from sambench.variants.efficient_sam import EfficientSamVariant
from sambench.variants.efficient_tam import EfficientTamVariant
from sambench.variants.hq_sam import HqSamVariant
from sambench.variants.neural import NeuralVariant
from sambench.variants.sam import SamVariant
from sambench.variants.sam2 import Sam2Variant

TOLERANCE = 1e-3  # largest difference to torch, relative to the largest value
# The same from pixels to masks, when graphs are loaded, by the numbers that an engine computes in.
LOADED_TOLERANCE = {"float32": 1e-2, "float16": 5e-2, "bfloat16": 2e-1}
SAMPLES = 64  # values of each output that a receipt keeps
PROMPTS = ((2, 3), (1, 2), (5, 7))  # prompts and their tokens: the first are traced, the others must come out right too
OPSET = 17
ENCODER, DECODER, RECEIPT = "encoder.onnx", "decoder.onnx", "receipt.json"


class Encoding(nn.Module):
    """Pixels (1, 3, S, S) -> those of a variant's feature maps that its decoder takes, in their order."""

    def __init__(self, variant: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.maps, self.names = variant.module, variant.image_embedding, tuple(names)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self.maps(pixels)
        return tuple(maps[name] for name in self.names)


class Decoding(nn.Module):
    """Feature maps and sparse prompt embeddings (N, T, 256) -> logits (N, 4, h, w) and scores (N, 4), by one family.

    What is the same for all prompts of a box or point kind is inside: positions, and the embedding of an absent mask.
    A family has the names of its maps, and the class that takes the decoder's place.
    """

    names: Sequence[str] = ("image_embedding",)
    outputs: Sequence[str] = ("logits", "scores")
    session: type[Graph]
    positions: torch.Tensor
    empty: torch.Tensor

    def __init__(self, variant: Any) -> None:
        super().__init__()
        self.decoder = variant.module.mask_decoder
        self.register_buffer("positions", self.image_positions(variant))
        self.register_buffer("empty", self.no_mask(variant))

    def image_positions(self, variant: Any) -> torch.Tensor:
        positions: torch.Tensor = variant.module.prompt_encoder.get_dense_pe()
        return positions

    def no_mask(self, variant: Any) -> torch.Tensor:
        empty: torch.Tensor = variant.module.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return empty

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedding, sparse = values
        found: tuple[torch.Tensor, ...] = self.decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=self.empty,
        )
        return found


class Graph(nn.Module):
    """An exported network in an engine: float32 tensors in and out, on the device of the first."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        super().__init__()
        threads = runtime.threads or torch.get_num_threads()
        self.graph = engines.load(
            runtime.engine, path, device=runtime.device, precision=runtime.precision, threads=threads
        )

    def run(self, *values: torch.Tensor) -> list[torch.Tensor]:
        # An input that the network does not need is not in the graph.
        feed = {name: value.numpy(force=True) for name, value in zip(self.graph.inputs, values, strict=True)}
        return [torch.from_numpy(output).to(values[0].device) for output in self.graph(feed)]


class DecoderSession(Graph):
    """In the place of segment-anything's MaskDecoder."""

    def predict_masks(
        self, image_embeddings: torch.Tensor, sparse_prompt_embeddings: torch.Tensor, **_: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits, scores = self.run(image_embeddings, sparse_prompt_embeddings)
        return logits, scores


class HqDecoderSession(Graph):
    """In the place of SAM-HQ's decoder."""

    def predict_all(
        self,
        embedding: torch.Tensor,
        hq_features: torch.Tensor,
        _: torch.Tensor,
        sparse: torch.Tensor,
        *__: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, hq_logits, scores = self.run(embedding, hq_features, sparse)
        return logits, hq_logits, scores


class Sam2DecoderSession(Graph):
    """In the place of transformers' decoder of SAM 2: one image, all prompts."""

    finer = True  # whether there are maps of higher resolution

    def forward(
        self,
        image_embeddings: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        high_resolution_features: Sequence[torch.Tensor],
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        maps = [image_embeddings, *(high_resolution_features if self.finer else ())]
        logits, scores = self.run(*maps, sparse_prompt_embeddings[0])
        return logits[None], scores[None]


class CoarseDecoderSession(Sam2DecoderSession):
    """The same for EfficientTAM."""

    finer = False


class SamDecoding(Decoding):
    session = DecoderSession


class EfficientSamDecoding(Decoding):
    session = DecoderSession

    def no_mask(self, variant: Any) -> torch.Tensor:
        return torch.zeros(1)


class HqDecoding(Decoding):
    names = ("features", "hq_features")
    outputs = ("logits", "hq_logits", "scores")
    session = HqDecoderSession

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedding, hq_features, sparse = values
        found: tuple[torch.Tensor, ...] = self.decoder.predict_all(
            embedding, hq_features, self.positions, sparse, self.empty
        )
        return found


class Sam2Decoding(Decoding):
    names: Sequence[str] = ("image_embed", "high_res_feats0", "high_res_feats1")
    session = Sam2DecoderSession

    def image_positions(self, variant: Any) -> torch.Tensor:
        positions: torch.Tensor = variant.positions()
        return positions

    def no_mask(self, variant: Any) -> torch.Tensor:
        return super().no_mask(variant).expand(1, -1, *variant.module.prompt_encoder.image_embedding_size).clone()

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedding, *finer, sparse = values
        zero = embedding.new_zeros(1, 1, 1, 1)
        logits, scores, *_ = self.decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self.positions,
            sparse_prompt_embeddings=sparse[None],
            dense_prompt_embeddings=self.empty,
            multimask_output=False,
            high_resolution_features=finer or [zero, zero],
        )
        return logits[0], scores[0]


class EfficientTamDecoding(Sam2Decoding):
    names = ("image_embed",)
    session = CoarseDecoderSession


# The most special class first.
FAMILIES: Mapping[type[NeuralVariant], type[Decoding]] = {
    HqSamVariant: HqDecoding,
    SamVariant: SamDecoding,
    EfficientSamVariant: EfficientSamDecoding,
    EfficientTamVariant: EfficientTamDecoding,
    Sam2Variant: Sam2Decoding,
}


def family_of(variant: Variant) -> type[Decoding]:
    """How a variant is exported. Raises InputError for one that is not."""
    for kind, family in FAMILIES.items():
        if isinstance(variant, kind):
            return family
    kinds, remedy = ", ".join(kind.__name__ for kind in FAMILIES), "remove `onnx: true` from its card"
    raise InputError(variant.name, "onnx", expected=f"one of {kinds}", found=type(variant).__name__, remedy=remedy)


def use_onnx(variant: Variant) -> None:
    """Replace the image encoder and the mask decoder of a variant by exported graphs, in place.

    Raises InputError for a variant that has no family here, UnsupportedRuntime when a graph computes something else
    than torch.
    """
    family = family_of(variant)
    assert isinstance(variant, NeuralVariant)
    folder, runtime = exported(variant), variant.runtime
    encoder, decoder = Graph(folder / ENCODER, runtime), family.session(folder / DECODER, runtime)
    receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    for expected, found in zip(receipt["samples"], answers(encoder, decoder, receipt["pixels"]), strict=True):
        compare_samples(variant.name, runtime, expected, found)
    names = family.names

    def image_embedding(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        each = [encoder.run(image[None]) for image in pixels]  # one image after the other
        return {name: torch.cat(maps) for name, maps in zip(names, zip(*each, strict=True), strict=True)}

    network: Any = variant.module
    vars(variant)["image_embedding"] = image_embedding
    if isinstance(variant, Sam2Variant):
        nothing = torch.zeros(1, 1, 1, 1, device=variant.device)  # positions are in the graph
        vars(variant)["positions"] = lambda: nothing
    for part in ("image_encoder", "vision_encoder"):
        if hasattr(network, part):
            setattr(network, part, nn.Identity())
    network.mask_decoder = decoder
    variant.takes_masks = False  # the graph has the embedding of an absent mask inside


def exported(variant: NeuralVariant) -> Path:
    """The folder with the checked graphs of a variant; they are made when they are not there."""
    folder = default_cache() / "onnx" / digest(variant)
    if (folder / RECEIPT).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / "graphs"
        made.mkdir()
        with on_cpu(variant):
            receipt = export(variant, made)
        differences = receipt["differences"]
        print(f"{variant.name}: exported to ONNX, largest relative difference to torch {differences}", file=sys.stderr)
        (made / RECEIPT).write_text(json.dumps({"variant": variant.name, **receipt}, indent=2), encoding="utf-8")
        try:
            made.replace(folder)
        except OSError:  # another job was faster, or a folder without a receipt was left behind
            if not (folder / RECEIPT).is_file():
                shutil.rmtree(folder)
                made.replace(folder)
    return folder


@contextmanager
def on_cpu(variant: NeuralVariant) -> Iterator[None]:
    """A variant on the CPU for a while: a GPU's own float32 may be TF32, and graphs are compared with exact numbers."""
    device = variant.device
    if device.type == "cpu":
        yield
        return
    variant.device = torch.device("cpu")
    variant.to_runtime()
    try:
        yield
    finally:
        variant.device = device
        variant.to_runtime()


def inputs(side: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Random pixels (1, 3, side, side) and sparse prompt embeddings (N, T, 256), always the same."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, side, side, generator=generator)
    return pixels, [torch.randn(n, tokens, 256, generator=generator) for n, tokens in PROMPTS]


def export(variant: NeuralVariant, folder: Path) -> dict[str, Any]:
    """Write both graphs into a folder and compare them with torch.

    Returns what a receipt says: the largest difference of each output relative to the largest value that torch gives,
    the side of the pixels, and samples of torch's answer. Raises UnsupportedRuntime when a difference is above
    TOLERANCE.
    """
    family = family_of(variant)
    side: int = variant.pixel_size  # type: ignore[attr-defined]
    pixels, prompts = inputs(side)
    with torch.no_grad():
        encoder, decoder = Encoding(variant, family.names).eval(), family(variant).eval()
        maps = [value.clone() for value in encoder(pixels)]
        some = {0: "prompts"}
        write_graph(encoder, (pixels,), folder / ENCODER, {"pixels": {}}, {name: {} for name in family.names})
        write_graph(
            decoder,
            (*maps, prompts[0]),
            folder / DECODER,
            {**{name: {} for name in family.names}, "sparse": {0: "prompts", 1: "tokens"}},
            dict.fromkeys(family.outputs, some),
        )
        plain = replace(variant.runtime, engine=ONNX, device="cpu", precision="float32")
        encoder_graph, decoder_graph = (Graph(folder / name, plain) for name in (ENCODER, DECODER))
        pairs = list(zip(family.names, encoder_graph.run(pixels), maps, strict=True))
        samples = []
        for sparse in prompts:  # other numbers of prompts and tokens than those that were traced
            expected = dict(zip(family.outputs, decoder(*maps, sparse), strict=True))
            pairs += zip(expected, decoder_graph.run(*maps, sparse), expected.values(), strict=True)
            samples.append({name: sampled(value) for name, value in expected.items()})
    differences: dict[str, float] = {}
    for name, found, wanted in pairs:
        differences[name] = max(differences.get(name, 0.0), difference(found, wanted))
    if not max(differences.values()) <= TOLERANCE:  # NaN is above it too
        raise refused(variant.name, ONNX, f"a graph that differs from torch by {differences}", f"at most {TOLERANCE}")
    return {"differences": differences, "pixels": side, "samples": samples}


def answers(encoder: Graph, decoder: Graph, side: int) -> list[list[torch.Tensor]]:
    """What graphs make of the random inputs, for each of the prompts."""
    pixels, prompts = inputs(side)
    maps = encoder.run(pixels)
    return [decoder.run(*maps, sparse) for sparse in prompts]


def sampled(values: torch.Tensor) -> list[float]:
    """A few values from all over a tensor."""
    flat = values.flatten().double()
    return [float(flat[at]) for at in np.linspace(0, len(flat) - 1, SAMPLES).astype(int)]


def compare_samples(
    name: str, runtime: Runtime, expected: Mapping[str, Sequence[float]], found: Sequence[torch.Tensor]
) -> None:
    """Raise UnsupportedRuntime when an engine answers one value for all, no numbers, or something else than torch."""
    tolerance = LOADED_TOLERANCE[runtime.precision]
    limit = f"what torch answers, within {tolerance:g}"
    for (output, values), answer in zip(expected.items(), found, strict=True):
        wanted, got = torch.tensor(values), torch.tensor(sampled(answer))
        if len(set(values)) > 1 and (answer == (value := answer.flatten()[0])).all():
            raise refused(name, runtime.engine, f"only {float(value):g} as {output}", limit)
        if not answer.isfinite().all():
            raise refused(name, runtime.engine, f"{output} that are not all finite", limit)
        if not difference(got, wanted) <= tolerance:
            raise refused(name, runtime.engine, f"{output} that differ by {difference(got, wanted):.2g}", limit)


def refused(name: str, engine: str, found: str, expected: str) -> UnsupportedRuntime:
    """The refusal of graphs that do not compute what torch computes."""
    return UnsupportedRuntime(name, engine, expected=expected, found=found, remedy="choose the engine torch")


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference relative to the largest expected value; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


def hand_out(variant: Variant, folder: Path) -> list[Path]:
    """Write the graphs of a variant, as they are measured, into a folder of the user's, with a receipt.

    Raises what `use_onnx` raises, and InputError where one of the files is already there.
    """
    family = family_of(variant)
    assert isinstance(variant, NeuralVariant)
    for target in (folder / name for name in (ENCODER, DECODER, RECEIPT)):
        if target.exists():
            raise InputError(target, expected="no such file yet", found="one", remedy="name another folder with -o")
    source = exported(variant)
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(
        path.name for path in source.iterdir() if path.name != RECEIPT
    )  # large weights are files of their own
    for name in files:
        shutil.copyfile(source / name, folder / name)
    receipt = json.loads((source / RECEIPT).read_text(encoding="utf-8"))
    receipt |= {
        "encoder": {"inputs": ["pixels"], "outputs": list(family.names)},
        "decoder": {"inputs": [*family.names, "sparse"], "outputs": list(family.outputs)},
        "sha256": {name: file_digest(folder / name) for name in files},
        "versions": versions(),
    }
    (folder / RECEIPT).write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in (*files, RECEIPT)]


def write_graph(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    path: Path,
    names: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
) -> None:
    """Trace a network and write it to a file; `names` and `outputs` say which of their dimensions may vary."""
    with warnings.catch_warnings():
        # The exporter by tracing is called old, and says so at length; the new one needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(inputs),
            str(path),
            input_names=list(names),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in {**names, **outputs}.items() if axes},
            dynamo=False,
            opset_version=OPSET,
        )


def digest(variant: NeuralVariant) -> str:
    """What the graphs of a variant follow from: its weights, its code, the libraries that write and read them."""
    hasher = hashlib.sha256()
    for name, value in sorted(variant.module.state_dict().items()):
        hasher.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        hasher.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    modules = {type(part).__module__ for part in (variant, *variant.module.children())}
    for file in module_files(__name__, *modules):
        hasher.update(file.read_bytes())
    for library, version in versions().items():
        hasher.update(f"{library} {version}".encode())
    return hasher.hexdigest()[:32]


def versions() -> dict[str, str]:
    """Versions of the libraries that write graphs and check them; packages of several names have onnxruntime."""
    return {name: str(import_module(name).__version__) for name in ("torch", "onnx", "onnxruntime")}
