"""Fixtures of a volume: preprocessing, feature maps, and the answers to clicks, at once and one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.errors import InputError
from sambench.parity.fixtures import Report, Row, block_row, probe_rows, read_fixture, same, weights
from sambench.parity.models import load_cards, tolerances
from sambench.parity.taps import Tap, tapped
from sambench.variants.base import Runtime
from sambench.variants.cards import find_card
from sambench.variants.registry import build
from sambench.volumes.base import SINGLE, VolumeVariant

# After the position embedding and after every second block.
HIDDEN = {
    "hidden0": Tap("image_encoder.blocks.0", before=True),
    **{f"hidden{i}": Tap(f"image_encoder.blocks.{2 * i - 1}") for i in (1, 2, 3)},
}


def check(path: Path) -> Report:
    """A fixture with `volume_input` and `volume_prompts`."""
    fixture = read_fixture(path)
    tolerance, results = tolerances(fixture), fixture["results"]
    volume, rows = fixture_volume(fixture)
    state = weights(fixture)
    rows += probe_rows(fixture, state)
    variant = build(find_card(load_cards(), fixture["model"]), Runtime(device="cpu"), random_weights=True)
    if not isinstance(variant, VolumeVariant):
        raise InputError(path, "model", expected="a variant for volumes", found=variant.name)
    variant.load_official(state, str(path))
    parameters = sum(parameter.numel() for parameter in variant.module.parameters())
    rows.append(same("weights", "parameters", parameters, fixture["params_total"]))
    pixels = variant.prepare(volume)
    rows.append(block_row("preprocess", "voxels", results["preprocess"], pixels, tolerance["preprocess"]))
    with tapped(variant.module, HIDDEN) as maps:
        embedding = variant.encode_volume(pixels)
    for name, block in results["image_embedding"].items():
        found = {**maps, "image_embedding": embedding}[name]
        rows.append(block_row("embedding", name, block, found, tolerance["embedding"]))
    for key, record in results["prompts"].items():
        name, _, mode = key.partition("|")
        logits, scores = _answer(variant, embedding, fixture["volume_prompts"][name], mode)
        rows += answer_rows(key, record, logits, scores, variant, tolerance)
    return Report(path, tuple(rows))


def formula_volume(shape: tuple[int, int, int], oz: int = 0, oy: int = 0, ox: int = 0) -> np.ndarray:
    """The closed-form test volume, int16, seen from the voxel (oz, oy, ox) on."""
    z, y, x = np.ogrid[oz : oz + shape[0], oy : oy + shape[1], ox : ox + shape[2]]
    stripes = (3 * x + 5 * y + 7 * z + 41 * ((x // 17 + y // 13 + z // 11) % 3)) % 256
    return ((stripes + ((x * x + y * y + z * z) // 67) % 256) // 2 - 90).astype(np.int16)


def fixture_volume(fixture: Mapping[str, Any]) -> tuple[np.ndarray, list[Row]]:
    """The volume of the field `volume_input`, and its digest compared."""
    field = fixture["volume_input"]
    offsets = {name: field.get(name, 0) for name in ("oz", "oy", "ox")}
    volume = formula_volume((field["depth"], field["height"], field["width"]), **offsets)
    digest = hashlib.sha256(volume.tobytes()).hexdigest()
    return volume, [same("input", "sha256", digest, field["sha256"])] if "sha256" in field else []


def _answer(
    variant: VolumeVariant, embedding: torch.Tensor, prompt: Mapping[str, Any], mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (C, d, h, w) and scores (C,) of all clicks at once, or in a `loop` of one click at a time."""
    points, labels = np.array(prompt["points"]), np.array(prompt["labels"])
    if mode != "loop":
        logits, scores = variant.answer(embedding, points, labels, None)
        tokens = slice(SINGLE + 1, None) if mode == "multi" else slice(SINGLE, SINGLE + 1)
        return logits[tokens], scores[tokens]
    previous: torch.Tensor | None = None
    for at in range(len(points)):
        logits, scores = variant.answer(embedding, points[at : at + 1], labels[at : at + 1], previous)
        previous = logits[SINGLE]
    return logits[SINGLE : SINGLE + 1], scores[SINGLE : SINGLE + 1]


def answer_rows(
    what: str,
    record: Mapping[str, Any],
    logits: torch.Tensor,
    scores: torch.Tensor,
    variant: VolumeVariant,
    tolerance: Mapping[str, float],
) -> list[Row]:
    """One record: predicted IoU, logits, and the number of voxels of each mask."""
    error = float((scores.double() - torch.tensor(record["iou"], dtype=torch.float64)).abs().max())
    rows = [
        Row("scores", f"{what} (absolute)", error, tolerance["iou_abs"]),
        block_row("low_res", what, record["low_res"], logits, tolerance["low_res"]),
    ]
    masks = variant.enlarge(logits) > 0
    rows.append(same("masks", f"{what} size", list(masks.shape[1:]), list(record["original_size"])))
    for expected, mask in zip(record["masks"], masks, strict=True):
        difference = abs(int(mask.sum()) - expected["area"])
        rows.append(Row("masks", f"{what} volume (voxels)", difference, 2 + expected["near_1e3"]))
    return rows
