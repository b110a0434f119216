"""The SAM-1 family through ONNX Runtime (runtimes with `engine: onnxruntime`): encoder and decoder as exported graphs.

Both networks are exported by tracing, compared with torch on random input, and only then used. What has passed lies in
the cache under a name that follows from the weights, the code and the library versions, and is not made again:

    <cache>/onnx/<digest>/encoder.onnx, decoder.onnx, receipt.json

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
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sambench.code_digest import module_files
from sambench.errors import InputError
from sambench.files import default_cache
from sambench.variants.base import Variant
from sambench.variants.sam import SamVariant

TOLERANCE = 1e-3  # largest difference to torch, relative to the largest value
OPSET = 17
ENCODER, DECODER, RECEIPT = "encoder.onnx", "decoder.onnx", "receipt.json"


class DecoderGraph(nn.Module):
    """The mask decoder with what is the same for all prompts of a box or point kind: positions and the empty mask.

    embedding (1, 256, h, w) and sparse (N, T, 256) -> logits (N, 4, 4h, 4w) and scores (N, 4).
    """

    positions: torch.Tensor
    empty: torch.Tensor

    def __init__(self, decoder: Any, positions: torch.Tensor, empty: torch.Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("positions", positions)
        self.register_buffer("empty", empty)

    def forward(self, embedding: torch.Tensor, sparse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=self.empty,
        )


class Graph(nn.Module):
    """An exported network on the CPU, float32 in and out; arrays are handed over without a copy."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle workers of one graph would else spin on the cores that the other graph or torch computes on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]

    def run(self, *values: torch.Tensor) -> list[torch.Tensor]:
        feed = {name: value.numpy(force=True) for name, value in zip(self.names, values, strict=True)}
        return [torch.from_numpy(output) for output in self.session.run(None, feed)]


class EncoderGraph(Graph):
    """(B, 3, S, S) -> (B, 256, h, w), one image after the other."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.run(image[None])[0] for image in pixels])


class DecoderSession(Graph):
    """In the place of segment-anything's MaskDecoder."""

    def predict_masks(
        self, image_embeddings: torch.Tensor, sparse_prompt_embeddings: torch.Tensor, **_: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits, scores = self.run(image_embeddings, sparse_prompt_embeddings)
        return logits, scores


def use_onnx(variant: Variant) -> None:
    """Replace the image encoder and the mask decoder of a variant by exported graphs, in place.

    Raises InputError for a variant outside the SAM-1 family, RuntimeError when a graph computes something else than
    torch.
    """
    if not isinstance(variant, SamVariant):
        kind, remedy = type(variant).__name__, "remove `onnx: true` from its card"
        raise InputError(variant.name, "onnx", expected="a variant of SAM 1", found=kind, remedy=remedy)
    folder = exported(variant)
    threads = variant.runtime.threads or torch.get_num_threads()
    variant.module.image_encoder = EncoderGraph(folder / ENCODER, threads)
    variant.module.mask_decoder = DecoderSession(folder / DECODER, threads)
    variant.takes_masks = False  # the graph has the embedding of an absent mask inside


def exported(variant: SamVariant) -> Path:
    """The folder with the checked graphs of a variant; they are made when they are not there."""
    folder = default_cache() / "onnx" / digest(variant)
    if (folder / RECEIPT).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / "graphs"
        made.mkdir()
        differences = export(variant, made)
        print(f"{variant.name}: exported to ONNX, largest relative difference to torch {differences}", file=sys.stderr)
        receipt = {"variant": variant.name, "differences": differences}
        (made / RECEIPT).write_text(json.dumps(receipt, indent=2), encoding="utf-8")
        try:
            made.replace(folder)
        except OSError:  # another job was faster, or a folder without a receipt was left behind
            if not (folder / RECEIPT).is_file():
                shutil.rmtree(folder)
                made.replace(folder)
    return folder


def export(variant: SamVariant, folder: Path) -> dict[str, float]:
    """Write both graphs into a folder and compare them with torch.

    Returns the largest difference of each output, relative to the largest value that torch gives; raises RuntimeError
    when one is above TOLERANCE.
    """
    network, side = variant.module, variant.pixel_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, side, side, generator=generator)
    prompts = [torch.randn(n, tokens, 256, generator=generator) for n, tokens in ((2, 3), (1, 2), (5, 7))]
    with torch.no_grad():
        embedding = network.image_encoder(pixels).clone()
        empty = network.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        decoder = DecoderGraph(network.mask_decoder, network.prompt_encoder.get_dense_pe(), empty).eval()
        write_graph(network.image_encoder, (pixels,), folder / ENCODER, {"pixels": {}}, {"embedding": {}})
        write_graph(
            decoder,
            (embedding, prompts[0]),
            folder / DECODER,
            {"embedding": {}, "sparse": {0: "prompts", 1: "tokens"}},
            {"logits": {0: "prompts"}, "scores": {0: "prompts"}},
        )
        encoder_graph, decoder_graph = (Graph(folder / name, torch.get_num_threads()) for name in (ENCODER, DECODER))
        differences = {"embedding": difference(encoder_graph.run(pixels)[0], embedding), "logits": 0.0, "scores": 0.0}
        for sparse in prompts:  # other numbers of prompts and tokens than those that were traced
            for name, found, expected in zip(
                ("logits", "scores"), decoder_graph.run(embedding, sparse), decoder(embedding, sparse), strict=True
            ):
                differences[name] = max(differences[name], difference(found, expected))
    if not max(differences.values()) <= TOLERANCE:  # NaN is above it too
        raise RuntimeError(f"{variant.name}: the ONNX graph differs from torch by {differences}, more than {TOLERANCE}")
    return differences


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference relative to the largest expected value; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


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


def digest(variant: SamVariant) -> str:
    """What the graphs of a variant follow from: its weights, its code, the libraries that write and read them."""
    hasher = hashlib.sha256()
    for name, value in sorted(variant.module.state_dict().items()):
        hasher.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        hasher.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    modules = {type(part).__module__ for part in (variant, variant.module.image_encoder, variant.module.mask_decoder)}
    for file in module_files(__name__, *modules):
        hasher.update(file.read_bytes())
    for library in ("torch", "onnx", "onnxruntime"):
        hasher.update(version(library).encode())
    return hasher.hexdigest()[:32]
