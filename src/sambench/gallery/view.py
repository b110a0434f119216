"""The gallery as the report holds it: each picture once, and every mask as an outline that is drawn over it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from sambench.gallery.pictures import SIDE
from sambench.jobs import gallery_file
from sambench.masks import decode_rle
from sambench.parquet import inputs, read_parquet, read_provenance
from sambench.records import GALLERY, PICKS
from sambench.results.pictures import outline, part_of, placed, size_of
from sambench.results.table import reasons_in_words
from sambench.status import OK

TOLERANCE = 0.7  # pixels, of the picture or of the image if these are larger, that a simpler outline may be off
POINTS = 300  # of the outlines of one mask, about


def read_gallery(folder: Path, picks: Mapping[str, Path], jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """One entry per dataset, see `of_dataset`. folder: of the study. picks: files by dataset. jobs: (dataset, variant,
    runtime)."""
    found = []
    for dataset, file in picks.items():
        wanted = read_parquet(file, PICKS).to_pandas()
        masks, states = {}, {}
        for _, variant, runtime in (job for job in jobs if job[0] == dataset):
            kept = Path(gallery_file(folder, dataset, variant, runtime))
            masks[variant, runtime] = read_parquet(kept, GALLERY, made_of=inputs(picks=file)).to_pandas()
            states[variant, runtime] = read_provenance(kept)["status"]
        found.append(of_dataset(dataset, wanted, masks, states))
    return found


def of_dataset(
    name: str,
    picks: pd.DataFrame,
    masks: Mapping[tuple[str, str], pd.DataFrame],
    states: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """Plain values: name, runtimes, why variants have no masks at all by runtime (`without`), and `pictures`.

    picks: columns of records.PICKS. masks: of records.GALLERY by variant and runtime, in the order of the picks.
    states: `ok`, or why there can be none. A picture has lengths in its own pixels; its masks are [variant, IoU,
    outline] by runtime, best first.
    """
    runtimes = list(dict.fromkeys(runtime for _, runtime in masks))
    without = {
        runtime: _reasons({variant: state for (variant, each), state in states.items() if each == runtime})
        for runtime in runtimes
    }
    pictures = []
    for row, pick in enumerate(picks.to_dict("records")):
        window = pick["window"]
        width, height = size_of(window, SIDE)
        own: dict[str, list[list[Any]]] = {runtime: [] for runtime in runtimes}
        missing: dict[str, dict[str, str]] = {runtime: {} for runtime in runtimes}
        for (variant, runtime), kept in masks.items():
            mask = kept.iloc[row]
            if mask["status"] == OK:
                shape = path(decode_rle(mask["rle_size"], mask["rle_counts"]), window)
                own[runtime].append([variant, round(100 * mask["iou"], 1), shape])
            elif states[variant, runtime] == OK:
                missing[runtime][variant] = mask["status"]
        pictures.append(
            {
                "category": pick["category"],
                "reason": pick["reason"],
                "prompt": pick["prompt"],
                "image": pick["image_id"],
                "annotation": pick["annotation_id"],
                "width": width,
                "height": height,
                "data": f"data:image/jpeg;base64,{base64.b64encode(pick['picture']).decode()}",
                "truth": path(decode_rle(pick["rle_size"], pick["rle_counts"]), window),
                "box": _places(pick["box"], window),
                "points": _places(pick["points"], window),
                "labels": [] if pick["labels"] is None else [int(label) for label in pick["labels"]],
                "masks": {each: sorted(found, key=lambda mask: -mask[1]) for each, found in own.items()},
                "without": {each: _reasons(states) for each, states in missing.items()},
            }
        )
    return {"name": name, "runtimes": runtimes, "without": without, "pictures": pictures}


def _reasons(states: Mapping[str, str]) -> str:
    """Why variants have nothing, in words; empty where all have something."""
    reasons: dict[str, list[str]] = {}
    for variant, state in states.items():
        if state != OK:
            reasons.setdefault(state, []).append(variant)
    return reasons_in_words(reasons) if reasons else ""


def _places(values: Any, window: Sequence[int]) -> list[list[int]]:
    """Points of the picture, of the corners of a box too; none for no values."""
    return [] if values is None else placed(values, window, SIDE).tolist()


def path(mask: np.ndarray, window: Sequence[int]) -> str:
    """The outline of a mask (H, W) bool within a window, as the `d` of an SVG path in pixels of the picture.

    To be filled by the rule `evenodd`: holes are outlines too. Of a ragged mask, what goes beyond POINTS is left out,
    the smallest specks first.
    """
    left, top, right, bottom = window
    tolerance = TOLERANCE * max(1.0, SIDE / max(right - left, bottom - top))
    found = outline(part_of(mask.astype(np.uint8), window, SIDE))
    parts, room = [], POINTS
    for contour in sorted((_simplified(each, tolerance) for each in found), key=len, reverse=True):
        room -= len(contour)
        if room < 0:
            break
        parts.append(_closed(contour))
    return "".join(parts)


def _simplified(contour: np.ndarray, tolerance: float) -> np.ndarray:
    """(n, 1, 2) -> (m, 2) int, of POINTS at most. tolerance: in pixels of the picture."""
    while len(points := cv2.approxPolyDP(contour, tolerance, closed=True)) > POINTS:
        tolerance *= 1.5
    return np.asarray(points[:, 0])


def _closed(points: np.ndarray) -> str:
    """(n, 2) int as a closed part of a path, in steps."""
    (x, y), steps = points[0], np.diff(points, axis=0).tolist()
    return f"M{x} {y}" + "".join(f"l{dx} {dy}" for dx, dy in steps) + "z"
