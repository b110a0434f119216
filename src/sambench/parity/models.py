"""Fixtures of one model: preprocessing, feature maps, and what the decoder makes of each prompt.

The variant of the fixture's name is built with random weights, gets the official state dict through its own
loading code, and runs in float32 on the CPU.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.config import read_registries
from sambench.errors import InputError
from sambench.parity.fixtures import (
    Report,
    Row,
    block_row,
    fixture_image,
    probe_rows,
    read_fixture,
    same,
    weights,
)
from sambench.parity.taps import TAPS, tapped
from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime
from sambench.variants.cards import Card, find_card, read_cards
from sambench.variants.neural import NeuralVariant
from sambench.variants.registry import build
from sambench.variants.stability import stability_score

# The official names that differ from those of the registry.
CARD_NAMES = {
    "mobile_sam": "mobilesam",
    "mobilesamv2_tiny_vit": "mobilesamv2",
    "edge_sam": "edgesam",
    "efficient_sam_vitt": "efficientsam_ti",
    "efficient_sam_vits": "efficientsam_s",
    "slimsam_50_uniform": "slimsam_50",
    "slimsam_77_uniform": "slimsam_77",
}
TOLERANCES = {"preprocess": 1e-6, "embedding": 2e-5, "low_res": 5e-5, "iou_abs": 1e-4}
LOOSER = {"repvit_sam": {"embedding": 1e-4, "low_res": 1e-4}}
BACKBONE, PROMPT_EMBEDDING, DECODER_STAGES = "backbone", "prompt embedding", "decoder stages"  # stages with taps
SAM2_MAP = "image_embed"  # fixtures of the SAM 2 predictor name this map, and record logits clamped to +-32


def load_cards() -> dict[str, Card]:
    """The cards of the registry."""
    return read_cards(read_registries(["variants"])["variants"])


def tolerances(fixture: Mapping[str, Any]) -> dict[str, float]:
    """Tolerances by stage: the fixture's own where it has them."""
    given = {k: v for k, v in fixture.get("recommended_tolerance", {}).items() if isinstance(v, int | float)}
    return {**TOLERANCES, **LOOSER.get(fixture["model"], {}), **given}


def build_variant(fixture: Mapping[str, Any], source: str) -> tuple[NeuralVariant, list[Row]]:
    """The variant of a fixture with the fixture's weights, and those weights compared with the probes."""
    name = fixture["model"]
    card = find_card(load_cards(), CARD_NAMES.get(name, name))
    variant = build(card, Runtime(device="cpu"), random_weights=True)
    if not isinstance(variant, NeuralVariant):
        raise InputError(source, "model", expected="a variant with weights", found=card.name)
    state = weights(fixture)
    rows = probe_rows(fixture, state)
    variant.load_official(state, source)
    return variant, rows


def check(path: Path) -> Report:
    """A fixture with `prompts_input`, for any variant of the registry."""
    fixture = read_fixture(path)
    tolerance = tolerances(fixture)
    image, rows = fixture_image(fixture)
    variant, probes = build_variant(fixture, str(path))
    results, taps = fixture["results"], TAPS.get(fixture["model"], {})
    with tapped(variant.module, taps.get(BACKBONE, {})) as maps:
        features, encoded = _encode(fixture, variant, image, tolerance)
    rows += probes + encoded + block_rows(BACKBONE, "", results.get("backbone", {}), maps, tolerance["embedding"])
    of_prompt = {**taps.get(PROMPT_EMBEDDING, {}), **taps.get(DECODER_STAGES, {})}
    decoded: dict[tuple[str, bool], MaskCandidates] = {}
    for key, record in results["prompts"].items():
        name, _, mode = key.partition("|")
        hq_only = mode.endswith("_hqonly")
        if (name, hq_only) not in decoded:
            with _hq_only(variant, hq_only), tapped(variant.module, of_prompt) as maps:
                decoded[name, hq_only] = variant.decode(features, prompts_of(fixture["prompts_input"][name]))
            blocks = dict(results.get("prompt_embedding", {}).get(name, {}))
            rows += channel_rows(name, blocks.pop("fused_channels", {}), maps)
            rows += block_rows(PROMPT_EMBEDDING, name, blocks, maps, tolerance["embedding"])
            stages = record.get("extra", {}).get("stages", {})
            rows += block_rows(DECODER_STAGES, name, stages, maps, tolerance["low_res"])
            if name in results.get("token0", {}):
                first = decoded[name, hq_only]
                logits, scores = first.logits[0, :1], first.scores[0, :1]
                rows += mask_rows(f"{name} token 0", results["token0"][name], logits, scores, first, tolerance)
        candidates = decoded[name, hq_only]
        tokens = _tokens(mode, candidates, len(record["masks"]))
        logits, scores = candidates.logits[0, tokens], candidates.scores[0, tokens]
        if mode.endswith("_stab"):
            scores = stability_score(logits)
        rows += mask_rows(key, record, logits, scores, candidates, tolerance, SAM2_MAP in features.maps)
    return Report(path, tuple(rows))


def check_boxes(path: Path) -> Report:
    """MobileSAMv2: many boxes at once, the single-mask token of each."""
    fixture = read_fixture(path)
    tolerance = tolerances(fixture)
    image, rows = fixture_image(fixture)
    variant, probes = build_variant(fixture, str(path))
    features, encoded = _encode(fixture, variant, image, tolerance)
    candidates = variant.decode(features, Prompts(boxes=np.array(fixture["boxes_input"], dtype=np.float32)))
    rows_of = torch.arange(len(candidates.single))
    logits, scores = (each[rows_of, candidates.single] for each in (candidates.logits, candidates.scores))
    record = fixture["results"]["boxes_simple"]
    rows += probes + encoded + mask_rows("boxes", record, logits, scores, candidates, tolerance)
    return Report(path, tuple(rows))


def block_rows(
    stage: str, what: str, blocks: Mapping[str, Any], found: Mapping[str, torch.Tensor], tolerance: float
) -> list[Row]:
    """Every named block of a stage against the tensor of that name; one that nothing was found for is a failure."""
    return [
        block_row(stage, f"{what} {name}".strip(), block, found[name], tolerance)
        if name in found
        else same(stage, f"{what} {name}".strip(), "no tensor of that name", "one")
        for name, block in blocks.items()
    ]


def channel_rows(what: str, expected: Mapping[str, Any], found: Mapping[str, torch.Tensor]) -> list[Row]:
    """The channels that early fusion adds, exactly: how many ones, and the digest of their bits."""
    rows = []
    for channel, name in enumerate(("box", "point"), start=3) if expected else ():
        bits = found["fused"][0, channel].bool().numpy()
        digest = hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()
        rows.append(same(PROMPT_EMBEDDING, f"{what} {name} pixels", int(bits.sum()), expected[f"{name}_pixels"]))
        rows.append(same(PROMPT_EMBEDDING, f"{what} {name} digest", digest, expected[f"{name}_sha256"]))
    return rows


def prompts_of(given: Mapping[str, Any]) -> Prompts:
    """One prompt of a fixture: `box` xyxy, `points` (P, 2), `labels` (P,), in pixels of the image."""

    def array(name: str, dtype: type) -> np.ndarray | None:
        return np.array([given[name]], dtype=dtype) if name in given else None

    return Prompts(array("box", np.float32), array("points", np.float32), array("labels", np.int64))


def mask_rows(
    what: str,
    record: Mapping[str, Any],
    logits: torch.Tensor,
    scores: torch.Tensor,
    candidates: MaskCandidates,
    tolerance: Mapping[str, float],
    clamped: bool = False,
) -> list[Row]:
    """Masks of one record: scores (C,), logits (C, h, w), and areas at the original size."""
    rows = []
    if "iou" in record:  # a model that predicts none has no such field
        expected = torch.tensor(record["iou"], dtype=torch.float64)
        if scores.shape != expected.shape:
            return [same("scores", f"{what} shape", list(scores.shape), list(expected.shape))]
        rows.append(Row("scores", f"{what} (absolute)", _largest(scores.double() - expected), tolerance["iou_abs"]))
    recorded = logits.clamp(-32, 32) if clamped else logits
    rows.append(block_row("low_res", what, record["low_res"], recorded, tolerance["low_res"]))
    scale = max(abs(record["low_res"]["min"]), abs(record["low_res"]["max"])) or 1.0
    for mask, value in zip(record.get("low_res_per_mask", []), recorded.double(), strict=True):
        moments = torch.stack([value.mean() - mask["mean"], value.std(correction=0) - mask["std"]])
        rows.append(Row("low_res", f"{what} mean and std", _largest(moments) / scale, tolerance["low_res"]))
    masks = candidates.upsampling.masks(logits)
    rows.append(same("masks", f"{what} size", list(masks.shape[1:]), list(record["original_size"])))
    for mask, found in zip(record["masks"], masks, strict=True):
        difference = abs(int(found.sum()) - mask["area"])
        rows.append(Row("masks", f"{what} area (pixels)", difference, 2 + mask["near_1e3"]))
    return rows


def _encode(
    fixture: Mapping[str, Any], variant: NeuralVariant, image: np.ndarray, tolerance: Mapping[str, float]
) -> tuple[Features, list[Row]]:
    """Features of the image, with the encoder's input and its maps compared."""
    results = fixture["results"]
    prepared = variant.prepare(image)
    rows = []
    if "preprocess" in results:  # a model that sees only crops has its input among the blocks of a prompt
        pixels = variant.pixels(prepared)
        rows.append(block_row("preprocess", "pixels", results["preprocess"], pixels, tolerance["preprocess"]))
    (features,) = variant.encode_prepared([prepared])
    blocks = results["image_embedding"]
    for name, block in ({"image_embedding": blocks} if "shape" in blocks else blocks).items():
        if name not in features.maps:
            rows.append(same("embedding", name, f"only {', '.join(features.maps)}", name))
        else:
            rows.append(block_row("embedding", name, block, features.maps[name], tolerance["embedding"]))
    return features, rows


def _tokens(mode: str, candidates: MaskCandidates, count: int) -> list[int]:
    """The mask tokens of an official mode, in the order in which the official predictor returns them."""
    numbered = re.match(r"num_m(\d+)", mode)
    every = list(range(candidates.logits.shape[1]))
    if mode.startswith("all") or (numbered and int(numbered[1]) == len(every)):
        return every
    if mode.startswith("single") or (numbered and int(numbered[1]) == 1):
        return [int(candidates.single[0])]
    if count == 1 < len(candidates.multimask):
        return [int(candidates.argmax()[0])]  # SAM-HQ returns only the best of its three
    return list(candidates.multimask)


@contextmanager
def _hq_only(variant: NeuralVariant, on: bool) -> Iterator[None]:
    """SAM-HQ's `hq_token_only`: the high-quality mask alone, not added to SAM's."""
    if not on:
        yield
        return
    if not hasattr(variant, "hq_only"):
        raise InputError("fixture", "mode", expected="a variant with `hq_only`", found=variant.name)
    before, variant.hq_only = variant.hq_only, True
    try:
        yield
    finally:
        variant.hq_only = before


def _largest(difference: torch.Tensor) -> float:
    """The largest absolute value; infinite where something is not a number."""
    largest = float(difference.abs().max())
    return math.inf if math.isnan(largest) else largest
