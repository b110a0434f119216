"""The fast mask decoder against the official one: the same weights and image, in turns, in one process, on the CPU.

    python benchmarks/decoder.py --variant mobilesam --variant light_hq_sam --weights weights

Per prompt, in CPU milliseconds: boxes in the chunks that a study decodes, the argmax mask drawn at low resolution, and
one box on a fresh image, which pays for what is made once per image. `scores` stops after the predicted IoU, which is
all that segment everything needs of most prompts. Ratios are medians within rounds; `logits` is the largest difference
of all tokens, relative to the largest logit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.parity.fixtures import formula_image
from sambench.parity.models import load_cards
from sambench.script import command
from sambench.variants.base import FAST, OFFICIAL, Features, MaskCandidates, Prompts, Runtime
from sambench.variants.cards import find_card
from sambench.variants.neural import NeuralVariant
from sambench.variants.registry import build

HEIGHT, WIDTH = 480, 640
CASES = ("chunk", "first", "scores")


def main(*, variant: Sequence[str], weights: Path | None = None, rounds: int = 5, threads: int = 1) -> None:
    """Time both decoders and print a table.

    Parameters
    ----------
    variant
        names of neural variants
    weights
        folder of the checkpoints; a variant whose file is not in it runs with random weights
    rounds
        rounds, each of which runs both decoders
    threads
        CPU threads
    """
    folders = [weights] if weights else []
    print("CPU ms per prompt".ljust(22), *(f"{case:>24}" for case in CASES), f"{'logits':>10} same argmax")
    print("".ljust(22), *(f"{'official':>10}{'fast':>7}{'ratio':>7}" for _ in CASES))
    for name in variant:
        card = find_card(load_cards(), name)
        torch.manual_seed(0)
        known = card.weights(folders) is not None
        model = build(card, Runtime(device="cpu", threads=threads), folders, random_weights=not known)
        assert isinstance(model, NeuralVariant)
        print(compare(model, rounds), flush=True)


def compare(model: NeuralVariant, rounds: int) -> str:
    """The line of one variant."""
    (features,) = model.encode([formula_image(HEIGHT, WIDTH)])
    generator = np.random.default_rng(0)
    corner, sides = (
        generator.uniform(0, 300, (model.decode_chunk, 2)),
        generator.uniform(20, 180, (model.decode_chunk, 2)),
    )
    prompts = Prompts(boxes=np.concatenate([corner, corner + sides], axis=1).astype(np.float32))

    def decoded(decoder: str, features: Features, prompts: Prompts) -> MaskCandidates:
        model.runtime = replace(model.runtime, decoder=decoder)
        return model.decode(features, prompts)

    def drawn(decoder: str, features: Features, prompts: Prompts) -> Any:
        candidates = decoded(decoder, features, prompts)
        return candidates.take(candidates.argmax())

    cells: list[str] = []
    works: dict[str, tuple[Callable[[str], Any], int]] = {
        "chunk": (lambda decoder: drawn(decoder, features, prompts), len(prompts)),
        "first": (lambda decoder: drawn(decoder, replace(features), prompts[:1]), 1),
        "scores": (lambda decoder: decoded(decoder, features, prompts), len(prompts)),
    }
    for case in CASES:
        work, count = works[case]
        times: dict[str, list[float]] = {OFFICIAL: [], FAST: []}
        for turn in range(rounds + 1):  # the first is not counted
            for decoder in (OFFICIAL, FAST) if turn % 2 else (FAST, OFFICIAL):
                start = time.process_time()
                work(decoder)
                times[decoder].append(1000 * (time.process_time() - start) / count)
        official, fast = (times[decoder][1:] for decoder in (OFFICIAL, FAST))
        ratio = statistics.median(a / b for a, b in zip(official, fast, strict=True))
        cells.append(f"{statistics.median(official):10.1f}{statistics.median(fast):7.1f}{ratio:7.2f}")
    expected, found = (decoded(decoder, features, prompts) for decoder in (OFFICIAL, FAST))
    difference = float((found.logits - expected.logits).abs().max() / expected.logits.abs().max())
    same = int((found.argmax() == expected.argmax()).sum())
    return " ".join([model.name.ljust(22), *cells, f"{difference:10.1e} {same} of {len(prompts)}"])


if __name__ == "__main__":
    command(main)
