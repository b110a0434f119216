"""Our adapters against the official modules: the same weights, the same image, in turns, in one process, on the CPU.

    python benchmarks/adapters.py --official mobilesam=../MobileSAM --official edgesam=../EdgeSAM --variant sam_vit_b

SAM itself is the installed segment-anything; every other official repository is read from the folder that is given
for it. Encoding is what a predictor's `set_image` does, from the uint8 image to the features; decoding is its `predict`
of one box, up to the masks at the size of the image. Times are CPU seconds, so with one thread they hold on a machine
that others use too. A ratio is the median over rounds of (ours / official); exit status 1 when one is above the limit.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from sambench.errors import InputError, near_matches
from sambench.parity.fixtures import formula_image
from sambench.parity.models import load_cards
from sambench.script import command
from sambench.variants.base import Prompts, Runtime
from sambench.variants.cards import find_card
from sambench.variants.neural import NeuralVariant
from sambench.variants.registry import build

BOX = np.array([120, 80, 620, 410], dtype=np.float32)  # xyxy in pixels of the image below
HEIGHT, WIDTH = 480, 720
SAME = 1e-3  # largest relative difference of the embedding: enough to see that both got the same weights

# What official packages import for training or export, and a forward pass never calls.
UNUSED = ("kornia.contrib", "loralib", "mmdet.models.dense_heads", "mmdet.models.necks", "mmengine",
          "matplotlib.pyplot", "projects.EfficientDet", "triton.language", "onnxsim")  # fmt: skip


@dataclass(frozen=True)
class Official:
    """The official model: encode(image) keeps the features, embedding() shows them, decode(box) -> masks (M, H, W)."""

    network: torch.nn.Module
    encode: Callable[[np.ndarray], Any]
    decode: Callable[[np.ndarray], Any]
    embedding: Callable[[], torch.Tensor]


def sam_predictor(network: torch.nn.Module, predictor: Any, **arguments: Any) -> Official:
    """A predictor with the interface of segment-anything's."""
    return Official(
        network,
        predictor.set_image,
        lambda box: predictor.predict(box=box, **arguments)[0],
        lambda: predictor.features,
    )


def sam_package(module: str, name: str, **arguments: Any) -> Callable[[], Official]:
    """A package with a `sam_model_registry` and a `SamPredictor`; `arguments` are those of `predict`."""

    def load() -> Official:
        package = importlib.import_module(module)
        network = package.sam_model_registry[name]().eval()
        return sam_predictor(network, package.SamPredictor(network), **arguments)

    return load


def efficientvit_sam(name: str) -> Callable[[], Official]:
    def load() -> Official:
        zoo = importlib.import_module("efficientvit.sam_model_zoo")
        network = zoo.create_efficientvit_sam_model(name, False).eval()
        predictor = importlib.import_module("efficientvit.models.efficientvit.sam").EfficientViTSamPredictor(network)
        return sam_predictor(network, predictor, multimask_output=True)

    return load


def efficient_sam(width: int, heads: int) -> Callable[[], Official]:
    def load() -> Official:
        network = importlib.import_module("efficient_sam.efficient_sam").build_efficient_sam(width, heads).eval()
        kept: dict[str, torch.Tensor] = {}

        def encode(image: np.ndarray) -> None:
            pixels = torch.tensor(image).permute(2, 0, 1)[None].contiguous().float() / 255
            kept["embedding"] = network.get_image_embeddings(pixels)

        def decode(box: np.ndarray) -> np.ndarray:
            points, labels = torch.tensor(box).view(1, 1, 2, 2), torch.tensor([[[2, 3]]])
            masks, _ = network.predict_masks(
                kept["embedding"], points, labels, True, HEIGHT, WIDTH, output_h=HEIGHT, output_w=WIDTH
            )
            return (masks[0, 0] >= 0).numpy()

        return Official(network, encode, decode, lambda: kept["embedding"])

    return load


def sam2_package(module: str, builder: str, predictor: str, config: str, *overrides: str) -> Callable[[], Official]:
    """SAM 2 and its descendants; `predictor` is `module:Class`, `overrides` are those of hydra."""

    def load() -> Official:
        build_file, _, function = builder.partition(":")
        make = getattr(importlib.import_module(f"{module}.{build_file}"), function)
        network = make(config, None, device="cpu", hydra_overrides_extra=list(overrides)).eval()
        file, _, name = predictor.partition(":")
        wrapped = getattr(importlib.import_module(f"{module}.{file}"), name)(network)
        return Official(
            network,
            wrapped.set_image,
            lambda box: wrapped.predict(box=box, multimask_output=True)[0],
            lambda: wrapped._features["image_embed"],
        )

    return load


SAM2_PREDICTOR = ("sam2", "build_sam:build_sam2", "sam2_image_predictor:SAM2ImagePredictor")
TAM_PREDICTOR = ("efficient_track_anything", "build_efficienttam:build_efficienttam",
                 "efficienttam_image_predictor:EfficientTAMImagePredictor")  # fmt: skip
MULTI = {"multimask_output": True}
# Folder inside the repository that goes on the import path, and how the model is made.
OFFICIAL: dict[str, tuple[str, Callable[[], Official]]] = {
    "sam_vit_b": ("", sam_package("segment_anything", "vit_b", **MULTI)),
    "slimsam_50": (".", sam_package("segment_anything", "vit_p50", **MULTI)),
    "slimsam_77": (".", sam_package("segment_anything", "vit_p77", **MULTI)),
    "efficientsam_ti": (".", efficient_sam(192, 3)),
    "efficientsam_s": (".", efficient_sam(384, 6)),
    "sam2.1_hiera_tiny": (".", sam2_package(*SAM2_PREDICTOR, "configs/sam2.1/sam2.1_hiera_t.yaml")),
    **{
        name: (".", sam2_package(*TAM_PREDICTOR, f"configs/efficienttam/{name}.yaml",
                                 "++model.compile_image_encoder=False"))
        for name in ("efficienttam_ti", "efficienttam_ti_512x512")
    },
    **{
        f"efficientvit_sam_{size}": (".", efficientvit_sam(f"efficientvit-sam-{size}"))
        for size in ("l0", "l1", "l2", "xl0", "xl1")
    },
    "mobilesam": (".", sam_package("mobile_sam", "vit_t", **MULTI)),
    "tinysam": (".", sam_package("tinysam", "vit_t")),
    "repvit_sam": ("sam", sam_package("repvit_sam", "repvit", **MULTI)),
    "edgesam": (".", sam_package("edge_sam", "edge_sam", num_multimask_outputs=3)),
    "light_hq_sam": (".", sam_package("segment_anything", "vit_tiny", **MULTI)),
}  # fmt: skip


@contextmanager
def importing_from(folder: Path | None) -> Iterator[None]:
    """Imports look into the folder first; what it brings is forgotten afterwards, as names like segment_anything recur.

    Packages that are not installed and not needed either (`UNUSED`) are there as dummies.
    """
    if folder is None:
        yield
        return
    packages = {path.name for path in folder.iterdir() if path.is_dir()}
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}
    for name in before:
        del sys.modules[name]
    dummies = []
    for name in UNUSED:
        parts = name.split(".")
        if parts[0] in dummies or importlib.util.find_spec(parts[0]) is None:
            for end in range(1, len(parts) + 1):
                sys.modules[".".join(parts[:end])] = MagicMock()
                dummies.append(".".join(parts[:end]))
    sys.path.insert(0, str(folder))
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(folder))
        for name in [n for n in sys.modules if n.partition(".")[0] in packages or n in dummies]:
            del sys.modules[name]
        sys.modules.update(before)


@dataclass(frozen=True)
class Ratio:
    """One row: medians in CPU milliseconds, and the median over rounds of ours / official."""

    variant: str
    stage: str
    ours: float
    official: float
    ratio: float


def main(
    *,
    variant: tuple[str, ...] = (),
    official: tuple[str, ...] = (),
    rounds: int = 5,
    threads: int = 1,
    limit: float = 1.05,
) -> None:
    """Print the table of ratios; exit status 1 when one is above the limit.

    Parameters
    ----------
    variant
        a variant whose official package is installed (sam_vit_b)
    official
        variant=FOLDER with the official repository
    rounds
        alternating rounds of encoding; of decoding four times as many
    threads
        CPU threads of torch
    limit
        the largest allowed ratio
    """
    folders: dict[str, Path | None] = dict.fromkeys(variant)
    for argument in official:
        name, _, folder = argument.partition("=")
        folders[name] = Path(folder).resolve()
        if not folder or not Path(folder).is_dir():
            raise InputError("--official", expected="variant=FOLDER", found=argument)
    for name, folder in folders.items():
        if name not in OFFICIAL:
            raise InputError("variant", name, expected="one with a comparison", remedy=near_matches(name, OFFICIAL))
        if folder is None and OFFICIAL[name][0]:
            raise InputError("variant", name, expected="the official repository", remedy=f"--official {name}=FOLDER")
    torch.set_num_threads(threads)
    print(f"{'variant':24} {'stage':7} {'ours ms':>9} {'official ms':>12} {'ratio':>6}", flush=True)
    failed = False
    for name in [name for name in OFFICIAL if name in folders]:
        for row in compare(name, folders[name], rounds, threads):
            failed |= row.ratio > limit
            mark = f" over {limit}" if row.ratio > limit else ""
            print(f"{name:24} {row.stage:7} {row.ours:9.1f} {row.official:12.1f} {row.ratio:6.3f}{mark}", flush=True)
    sys.exit(int(failed))


@torch.inference_mode()
def compare(name: str, folder: Path | None, rounds: int, threads: int) -> list[Ratio]:
    """Both with the same random weights. Raises InputError when their embeddings differ."""
    torch.manual_seed(0)
    ours = build(find_card(load_cards(), name), Runtime(device="cpu", threads=threads), random_weights=True)
    assert isinstance(ours, NeuralVariant)
    image = formula_image(HEIGHT, WIDTH)
    ours.decode(ours.encode([image])[0], Prompts(boxes=BOX[None]))  # whatever is imported late, is imported now
    subfolder, load = OFFICIAL[name]
    with importing_from(folder and folder / subfolder):
        return alternate(name, ours, load(), image, rounds)


def alternate(name: str, ours: NeuralVariant, theirs: Official, image: np.ndarray, rounds: int) -> list[Ratio]:
    """The official weights for both, then the rounds."""
    ours.load_official(theirs.network.state_dict(), name)
    prompts = Prompts(boxes=BOX[None])
    (features,), _ = ours.encode([image]), theirs.encode(image)
    masks = np.asarray(theirs.decode(BOX))

    mine, reference = next(iter(features.maps.values())), theirs.embedding()
    difference = float((mine - reference).abs().max() / reference.abs().max())
    if not difference < SAME:
        raise InputError(name, "embedding", expected=f"a relative difference below {SAME}", found=difference)

    def decode() -> np.ndarray:
        candidates = ours.decode(features, prompts)
        # Some official models return one mask, the best, where others return all that there are.
        tokens = list(candidates.multimask) if len(masks) > 1 else [int(candidates.argmax()[0])]
        return candidates.upsampling.masks(candidates.logits[0, tokens]).numpy()

    assert decode().shape == masks.shape
    return [
        measure(name, "encode", lambda: ours.encode([image]), lambda: theirs.encode(image), rounds),
        measure(name, "decode", decode, lambda: theirs.decode(BOX), 4 * rounds),
    ]


def measure(name: str, stage: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> Ratio:
    """Alternating rounds, each beginning with the other; both were run before."""
    times: tuple[list[float], list[float]] = [], []
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            start = time.process_time()
            (ours, theirs)[which]()
            times[which].append(1000 * (time.process_time() - start))
    ratio = statistics.median(mine / other for mine, other in zip(*times, strict=True))
    return Ratio(name, stage, statistics.median(times[0]), statistics.median(times[1]), ratio)


if __name__ == "__main__":
    command(main)
