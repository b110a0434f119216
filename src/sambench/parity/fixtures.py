"""Parity fixtures: reading one, remaking its weights and image, comparing a tensor with a block of numbers.

A fixture holds what the official code computed on a closed-form image with weights
that follow from their names.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.errors import InputError

# Weights of these names stand for positions, tokens and biases: of the same scale whatever their shape.
TOKENS = (
    "pos_embed",
    "pos_embedding",
    "point_embeddings",
    "not_a_point_embed",
    "no_mask_embed",
    "iou_token",
    "mask_tokens",
    "hf_token",
    "attention_biases",
    "no_mem_embed",
    "no_mem_pos_enc",
    "maskmem_tpos_enc",
    "obj_score_token",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "latents",
)


@dataclass(frozen=True)
class Row:
    """One comparison; relative to the largest reference value unless `what` says something else."""

    stage: str
    what: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All comparisons with one fixture."""

    fixture: Path
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing is over its tolerance."""
        return bool(self.rows) and all(row.ok for row in self.rows)


def same(stage: str, what: str, found: object, expected: object) -> Row:
    """A comparison that is either right or wrong."""
    equal = found == expected
    if not equal:
        what = f"{what}: expected {expected}, found {found}"
    return Row(stage, what, 0.0 if equal else math.inf, 0.0)


def read_fixture(path: Path) -> dict[str, Any]:
    """The fixture's JSON object. Raises InputError."""
    try:
        fixture = json.loads(path.read_text())
    except OSError as error:
        raise InputError(path, expected="a parity fixture", found=error.strerror) from error
    except ValueError as error:
        raise InputError(path, expected="a parity fixture in JSON", found=error) from error
    if not isinstance(fixture, dict):
        raise InputError(path, expected="a JSON object", found=f"a {type(fixture).__name__}")
    return fixture


def formula_image(height: int, width: int, ox: int = 0, oy: int = 0) -> np.ndarray:
    """The closed-form test image, (height, width, 3) uint8 RGB, seen from the pixel (ox, oy) on."""
    x = np.arange(width, dtype=np.int64)[None, :] + ox
    y = np.arange(height, dtype=np.int64)[:, None] + oy
    red = (3 * x + 5 * y + 41 * ((x // 37 + y // 29) % 3)) % 256
    green = ((x * x + y * y) // 211) % 256
    blue = 128 + 100 * ((x // 61 + y // 53) % 2) - ((x * y) // 173) % 28
    return np.ascontiguousarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def fixture_image(fixture: Mapping[str, Any]) -> tuple[np.ndarray, list[Row]]:
    """The image of the field `input`, and its digest compared."""
    field = fixture["input"]
    image = formula_image(field["height"], field["width"], field.get("ox", 0), field.get("oy", 0))
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    return image, [same("input", "sha256", digest, field["sha256"])] if "sha256" in field else []


def weight(key: str, shape: list[int], dtype: str, seed: int, gain: float = 1.0) -> torch.Tensor:
    """One tensor of the weight recipe. Integers, which only count batches, are zero."""
    kind = getattr(torch, dtype)
    if not kind.is_floating_point:
        return torch.zeros(shape, dtype=kind)
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()) ^ seed)
    last = key.rpartition(".")[2]
    if last == "running_var":
        return (gain * (1 + 0.1 * torch.rand(shape, generator=generator))).to(kind)
    normal = torch.randn(shape, generator=generator)
    if last == "running_mean":
        value = 0.05 * math.sqrt(gain) * normal
    elif last == "positional_encoding_gaussian_matrix":
        value = gain * normal
    elif "rel_pos" in last:
        value = gain * 0.1 * normal
    elif len(shape) >= 2 and any(token in key for token in TOKENS):
        value = gain * 0.3 * normal
    elif len(shape) >= 2:
        value = gain / math.sqrt(math.prod(shape[1:])) * normal
    elif last == "weight":
        value = gain * (1 + 0.05 * normal)
    else:
        value = gain * 0.05 * normal
    return value.to(kind)


def weights(fixture: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The official state dict of the fixture, remade from its list of keys."""
    kept = fixture.get("keep_values", {})
    state = {}
    for key, shape, dtype, *gain in fixture["state_dict"]:
        if gain == ["keep"]:
            if key not in kept:
                raise InputError("fixture", f"keep_values.{key}", expected="the values of a kept tensor", found="none")
            state[key] = torch.tensor(kept[key], dtype=getattr(torch, dtype)).reshape(shape)
        else:
            state[key] = weight(key, shape, dtype, fixture["seed"], *gain)
    return state


def probe_rows(fixture: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> list[Row]:
    """The weights against the few that the fixture gives to test the recipe with (in 7 digits)."""
    rows = []
    for probe in fixture.get("weight_probes", []):
        value = state[probe["key"]].double().flatten()
        expected = torch.tensor(probe["first"], dtype=torch.float64)
        error = float((value[: len(expected)] - expected).abs().max() / expected.abs().max())
        total = abs(float(value.sum()) - probe["sum"]) / float(value.abs().sum())
        rows.append(Row("weights", probe["key"], max(error, total), 1e-6))
    return rows


def block_row(stage: str, what: str, block: Mapping[str, Any], tensor: torch.Tensor, tolerance: float) -> Row:
    """A tensor against a block: its shape, moments, extremes and sampled values."""
    if list(tensor.shape) != list(block["shape"]):
        return same(stage, f"{what} shape", list(tensor.shape), list(block["shape"]))
    value = tensor.detach().double().cpu()
    found = [value.mean(), value.std(correction=0), value.min(), value.max()]
    expected = [block[name] for name in ("mean", "std", "min", "max")]
    difference = torch.cat([torch.stack(found), value.flatten()[torch.tensor(block["flat_index"])]])
    difference = difference - torch.tensor([*expected, *block["values"]], dtype=torch.float64)
    scale = max(abs(block["min"]), abs(block["max"])) or 1.0
    return Row(stage, what, float(difference.abs().max()) / scale, tolerance)
