"""Fixtures of segment-everything: the official generators on a closed-form predictor, and on real networks.

Closed-form fixtures must agree exactly. Real networks are compared by prompt and predicted IoU: rounding moves scores
by 1e-5, so a mask that close to a threshold may be in one list and not in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.evaluate.filters import Masks, Settings, Trace
from sambench.evaluate.generator import generate
from sambench.evaluate.samplers import COARSER, GRID, HIERARCHICAL, Sampler, point_grid
from sambench.masks import decode_rle
from sambench.parity.fixtures import Report, Row, fixture_image, read_fixture, same
from sambench.parity.models import build_variant
from sambench.variants.base import POINT, MaskCandidates, Prompts, Upsampling, Variant

SCORE_TOLERANCE = 1e-4  # absolute; of predicted IoU and stability, and the distance from a threshold that excuses
PRINTED = 1e-6  # scores are printed with 7 digits
# Rounding moves 1 pixel in about 50,000 across the border (parity/README.md, section 8).
CELLS_TOLERANCE = 1e-4


class ClosedForm(Variant):
    """The predictor of section 5 of the fixtures' README: masks and scores follow from the point and the size."""

    prompt_kinds = frozenset({POINT})

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        return [image.shape[:2] for image in prepared]

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        assert prompts.points is not None
        found = [closed_form(x, y, features) for x, y in prompts.points[:, 0]]
        return MaskCandidates(
            logits=torch.from_numpy(np.stack([logits for logits, _ in found])),
            scores=torch.from_numpy(np.stack([scores for _, scores in found])),
            multimask=(0, 1, 2),
            single=torch.zeros(len(prompts), dtype=torch.int64),
            upsampling=Upsampling(size=features),
        )


def closed_form(x: float, y: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (3, H, W) and predicted IoU (3,), float32, of a point (x, y) in an image of `size`."""
    height, width = size
    u, v = np.arange(width, dtype=np.float64)[None, :], np.arange(height, dtype=np.float64)[:, None]
    fx, fy = int(np.floor(x)), int(np.floor(y))
    logits = np.empty((3, height, width), dtype=np.float32)
    scores = np.empty(3, dtype=np.float32)
    for k in range(3):
        radius = (0.06 + 0.05 * k + 0.03 * ((7 * fx + 13 * fy + 5 * k) % 11) / 11) * min(height, width)
        cx = x + 0.3 * radius * np.sin(0.05 * x + k)
        cy = y + 0.3 * radius * np.cos(0.04 * y - k)
        distance = np.sqrt(((u - cx) / 1.3) ** 2 + (v - cy) ** 2)
        value = (radius - distance) / (2 + 3 * ((fx + 2 * fy + k) % 5))
        if (fx + fy + k) % 3 == 0:
            value = np.maximum(value, 3.5 - np.sqrt((u - cx - 1.3 * radius - 12) ** 2 + (v - cy) ** 2))
        if (fx + fy + k) % 4 == 0:
            value = np.minimum(value, np.sqrt((u - cx) ** 2 + (v - cy) ** 2) - 3.2)
        logits[k] = value
        scores[k] = 0.5 + 0.49 * np.sin(0.013 * x * (k + 1) + 0.017 * y + k)
    return logits, scores


def check(path: Path) -> Report:
    """A fixture with `generator` and `runs`."""
    fixture = read_fixture(path)
    image, rows = fixture_image(fixture)
    network = "model" in fixture
    variant: Variant
    if network:
        # The weights are those of the model's own fixture, which lies beside this one.
        model_path = path.with_name(Path(fixture["weights"].split()[1]).name)
        variant, probes = build_variant(read_fixture(model_path), str(model_path))
        rows += probes
    else:
        variant = ClosedForm()
    for number, run in enumerate(fixture["runs"]):
        sampler, settings = run_settings(fixture["generator"], run["params"])
        trace = Trace()
        masks = generate(variant, image, sampler, settings, trace)
        what = f"run {number}"
        if "grid_fine" in run:
            grid = point_grid(sampler.points_per_side // COARSER)
            rows.append(_values("points", f"{what} coarse grid", grid, run["grid_coarse"], PRINTED))
            prompts = run["grid_coarse_n"] + run["grid_fine_n"]
            rows.append(same("points", f"{what} prompts", trace.left["prompts"], prompts))
        if network:
            rows += compare_network(what, masks, run["records"], settings, image.shape[:2])
        else:
            rows += compare_exactly(what, masks, run["records"], image.shape[:2])
    return Report(path, tuple(rows))


def run_settings(generator: str, params: Mapping[str, Any]) -> tuple[Sampler, Settings]:
    """The sampler and the settings of one run; what the run does not set has the official default."""
    params = dict(params)
    kind = HIERARCHICAL if "hierarchical" in generator.lower() else GRID
    sampler = Sampler(kind, params.pop("points_per_side", 32))
    settings = Settings(pred_iou_thresh=0.8) if generator.startswith("sam2.") else Settings()
    return sampler, replace(settings, **params)


def compare_exactly(what: str, masks: Masks, records: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[Row]:
    """The same records in the same order: run-lengths, boxes and areas exactly, scores as far as they are printed."""
    rows = [same("masks", f"{what} count", len(masks), len(records))]
    if not rows[0].ok:
        return rows
    expected = [record["rle"]["counts"] for record in records]
    different = sum(found.decode() != e for found, e in zip(masks.counts, expected, strict=True))
    rows.append(Row("masks", f"{what} run-lengths that differ", different, 0))
    rows.append(same("masks", f"{what} sizes", {tuple(r["rle"]["size"]) for r in records}, {tuple(size)}))
    rows.append(_values("boxes", what, xywh(masks.boxes), [r["bbox"] for r in records], 0))
    rows.append(_values("areas", what, masks.area, [r["area"] for r in records], 0))
    if "crop_box" in records[0]:
        rows.append(_values("crops", what, xywh(masks.crops), [r["crop_box"] for r in records], 0))
    return rows + _score_rows(what, masks, records, PRINTED)


def compare_network(
    what: str, masks: Masks, records: Sequence[Mapping[str, Any]], settings: Settings, size: tuple[int, int]
) -> list[Row]:
    """Records paired by point and predicted IoU; one without a partner must lie at a threshold."""
    found = np.column_stack([masks.prompts, masks.predicted_iou])
    expected = np.array([[*record["point_coords"][0], record["predicted_iou"]] for record in records])
    # A point in pixels and a score differ in scale; both must be nearer than the tolerance of scores.
    distances = np.abs(found[:, None] - expected[None]).max(axis=2)
    partner = distances.argmin(axis=1)
    paired = distances.min(axis=1) <= SCORE_TOLERANCE
    unpaired = [(float(masks.predicted_iou[i]), float(masks.stability[i])) for i in np.flatnonzero(~paired)]
    missed = set(range(len(records))) - set(partner[paired].tolist())
    unpaired += [(records[j]["predicted_iou"], records[j]["stability_score"]) for j in missed]
    away = [pair for pair in unpaired if not _at_threshold(pair, settings)]
    rows = [
        Row("masks", f"{what} without a partner and not at a threshold {away or ''}".strip(), len(away), 0),
        Row("masks", f"{what} paired twice", paired.sum() - len(set(partner[paired].tolist())), 0),
        Row(
            "masks",
            f"{what} without a partner, at a threshold",
            len(unpaired) - len(away),
            0.1 * len(records),
        ),
    ]
    ours, theirs = masks[paired], [records[j] for j in partner[paired]]
    rows += _score_rows(what, ours, theirs, SCORE_TOLERANCE)
    rows.append(_values("boxes", f"{what} (pixels)", xywh(ours.boxes), [r["bbox"] for r in theirs], 1))
    for counts, area, record in zip(ours.counts, ours.area, theirs, strict=True):
        cells = grid8(decode_rle(size, counts))
        moved = np.abs(cells - np.array(record["grid8"])).sum() + abs(int(area) - record["area"])
        rows.append(Row("cells", f"{what} pixels that moved, of the area", moved / record["area"], CELLS_TOLERANCE))
    return rows


def grid8(mask: np.ndarray) -> np.ndarray:
    """(64,) pixels set in each cell of an 8x8 grid, row by row."""
    height, width = mask.shape
    rows = np.add.reduceat(mask.astype(np.int64), [height * i // 8 for i in range(8)], axis=0)
    return np.add.reduceat(rows, [width * i // 8 for i in range(8)], axis=1).ravel()


def xywh(boxes: np.ndarray) -> np.ndarray:
    """Boxes x0, y0, x1, y1 -> x0, y0, x1 - x0, y1 - y0, as the official records have them."""
    return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _score_rows(what: str, masks: Masks, records: Sequence[Mapping[str, Any]], tolerance: float) -> list[Row]:
    return [
        _values(
            "scores",
            f"{what} predicted IoU",
            masks.predicted_iou,
            [r["predicted_iou"] for r in records],
            tolerance,
        ),
        _values("scores", f"{what} stability", masks.stability, [r["stability_score"] for r in records], tolerance),
        _values("points", what, masks.prompts, [r["point_coords"][0] for r in records], 1e-4),
    ]


def _at_threshold(scores: tuple[float, float], settings: Settings) -> bool:
    predicted, stability = scores
    return (
        abs(predicted - settings.pred_iou_thresh) <= SCORE_TOLERANCE
        or abs(stability - settings.stability_score_thresh) <= SCORE_TOLERANCE
    )


def _values(stage: str, what: str, found: Any, expected: Any, tolerance: float) -> Row:
    """The largest absolute difference of two arrays; NaN equals NaN."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != b.shape:
        return same(stage, f"{what} shape", a.shape, b.shape)
    difference = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    return Row(stage, what, float(difference.max(initial=0.0)), tolerance)
