"""Boxes of one shard of a dataset: by a network, in batches, or out of a published file."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sambench.datasets import checks, plausibility
from sambench.datasets.pictures import read_image, view_of
from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.classes import UNKNOWN, Category
from sambench.evaluate.score import COCO, Truth, checked_results
from sambench.prefetch import WORKERS, prefetch
from sambench.progress import track
from sambench.records import BOXES

_PART = 200_000  # boxes that are cut at once


@dataclass(frozen=True)
class Limits:
    """Which boxes are kept: scores of at least `score_threshold`, and the `top_k` best ones of an image."""

    score_threshold: float
    top_k: int


def find_boxes(
    detector: BoxDetector,
    images: pd.DataFrame,
    categories: np.ndarray,
    limits: Limits,
    batch_size: int,
    title: str = "boxes",
) -> pd.DataFrame:
    """Run a detector on images, columns of records.IMAGES -> columns of records.BOXES.

    categories: (C,) the category id of each of the detector's classes, UNKNOWN for boxes that are left out.

    Images are taken in the order of their sizes, so that those of a batch have one shape and none is padded: the boxes
    of an image are the same whatever else is in its batch or shard. A batch that does not fit into memory is halved.
    Raises what the device raises when a single image does not fit.
    """
    ordered = images.sort_values(["height", "width", "image_id"])
    rows = list(ordered.itertuples(index=False))

    def load(row: Any) -> tuple[Any, Any]:
        return row, detector.prepare(read_image(row.path, row.width, row.height, view_of(row)))

    def found() -> Iterator[tuple[Any, Detections]]:
        batch: list[tuple[Any, Any]] = []
        for row, prepared in prefetch(load, rows, WORKERS + batch_size):
            if batch and (len(batch) == batch_size or detector.shape(prepared) != detector.shape(batch[0][1])):
                yield from _together(detector, batch)
                batch = []
            batch.append((row, prepared))
        if batch:
            yield from _together(detector, batch)

    parts = [_kept(row, answer, categories, limits) for row, answer in track(found(), len(rows), title)]
    return _table(parts)


def _together(detector: BoxDetector, batch: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Detections]]:
    """Rows with prepared images -> rows with what was found."""
    # Needs torch, which importing published boxes does not, and which is slow to start with.
    from sambench.memory import OutOfMemory, memory_guard, release_memory

    try:
        with memory_guard():
            answers = detector.detect([prepared for _, prepared in batch])
    except OutOfMemory:
        if len(batch) == 1:
            raise
    else:
        return [(row, answer) for (row, _), answer in zip(batch, answers, strict=True)]
    release_memory()
    half = len(batch) // 2
    return _together(detector, batch[:half]) + _together(detector, batch[half:])


def _kept(row: Any, answer: Detections, categories: np.ndarray, limits: Limits) -> dict[str, np.ndarray]:
    """The columns of one image."""
    ids = categories[answer.classes]
    corners = np.asarray(answer.boxes, dtype=np.float64).reshape(-1, 4)
    if not (np.isfinite(corners).all() and np.isfinite(answer.scores).all()):
        raise ValueError(f"image {row.image_id}: boxes or scores that are not finite")
    x, y = (corners[:, side].clip(0, limit) for side, limit in ((0, row.width), (1, row.height)))
    x1, y1 = (corners[:, side].clip(0, limit) for side, limit in ((2, row.width), (3, row.height)))
    xywh = np.column_stack([x, y, np.maximum(x1 - x, 0), np.maximum(y1 - y, 0)])
    known = ids != UNKNOWN
    return _best(row.image_id, ids[known], xywh[known], np.asarray(answer.scores, np.float64)[known], limits)


def _best(image_id: int, ids: np.ndarray, xywh: np.ndarray, scores: np.ndarray, limits: Limits) -> dict[str, Any]:
    """The kept boxes of an image as columns, best first; those of equal score in the order given."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= limits.score_threshold][: limits.top_k]
    columns = dict(zip("xywh", xywh[order].T, strict=True))
    return {"image_id": np.full(len(order), image_id), "category_id": ids[order], **columns, "score": scores[order]}


def _table(parts: Sequence[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Columns of one image each -> columns of records.BOXES, sorted by image and there best first."""
    if not parts:
        return no_boxes()
    parts = sorted(parts, key=lambda part: int(part["image_id"][0]) if len(part["image_id"]) else -1)
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in BOXES.names})


def no_boxes() -> pd.DataFrame:
    return BOXES.empty_table().to_pandas()


def import_boxes(
    path: Path,
    document: dict[str, Any],
    annotations: Path,
    categories: Sequence[Category],
    images: pd.DataFrame,
    limits: Limits,
    warnings: dict[str, int] | None = None,
) -> pd.DataFrame:
    """A file of results in the COCO format -> columns of records.BOXES.

    document: the parsed annotation file `annotations`; images: those that are wanted, which may be a part of them.
    warnings: takes in what looks wrong with the whole file, and how often.

    Boxes that stick out of their image are cut there, all others are taken as they are. Raises InputError for anything
    `sambench score` refuses, such as the id of an image or category that the dataset does not have, and for boxes that
    are beyond doubt in another format.
    """
    truth = Truth(
        {image["id"]: image for image in document["images"]},
        {},
        [{"id": category.category_id} for category in categories],
        COCO,
    )
    image_ids, ids, scores, xywh = _columns(checked_results(path, "bbox", truth, annotations))
    doubts = _doubts(path, image_ids, ids, scores, xywh, document)
    if warnings is not None:
        warnings |= doubts
    pictures = images.sort_values("image_id")
    wanted = pictures["image_id"].to_numpy()
    order = _best_first(image_ids, scores, wanted, limits)
    place = np.searchsorted(wanted, image_ids[order])
    sizes = pictures[["width", "height"]].to_numpy(dtype=np.float64)
    kept = xywh[order]
    for start in range(0, len(kept), _PART):
        part = slice(start, start + _PART)
        kept[part] = _cut(kept[part], sizes[place[part]])
    columns = {"image_id": image_ids[order], "category_id": ids[order], **dict(zip("xywh", kept.T, strict=True))}
    return pd.DataFrame({**columns, "score": scores[order]}, copy=False)[BOXES.names]


def _best_first(image_ids: np.ndarray, scores: np.ndarray, wanted: np.ndarray, limits: Limits) -> np.ndarray:
    """(K,) the kept boxes of the wanted images: by image and there best first, those of equal score in the order given.

    wanted: ids of images, sorted.
    """
    rows = np.flatnonzero(np.isin(image_ids, wanted) & (scores >= limits.score_threshold))
    order: np.ndarray = rows[np.lexsort((-scores[rows], image_ids[rows]))]
    found = image_ids[order]
    rank = np.arange(len(order)) - np.searchsorted(found, wanted)[np.searchsorted(wanted, found)]
    return order[rank < limits.top_k]


def _columns(
    results: Iterable[tuple[int, tuple[int, float, Any]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Results as image_id and category_id (N,) int64, score (N,) and x, y, width, height (N, 4) float64.

    Of a hundred million numbers of Python there are never more than those of one result.
    """
    image_ids, categories, scores, boxes = array("q"), array("q"), array("d"), array("d")
    for image_id, (category, score, box) in results:
        image_ids.append(image_id)
        categories.append(category)
        scores.append(score)
        boxes.extend(box)
    return np.asarray(image_ids), np.asarray(categories), np.asarray(scores), np.asarray(boxes).reshape(-1, 4)


def _doubts(
    path: Path,
    image_ids: np.ndarray,
    ids: np.ndarray,
    scores: np.ndarray,
    boxes: np.ndarray,
    document: dict[str, Any],
) -> dict[str, int]:
    """Warnings about published boxes; InputError where they are beyond doubt no x, y, width, height in pixels."""
    known: dict[int, list[list[float]]] = {}
    for row in document["annotations"]:
        if checks.is_box(row.get("bbox")):
            known.setdefault(row["image_id"], []).append([*row["bbox"], row.get("category_id", UNKNOWN)])
    truth = {image_id: np.array(boxes, dtype=np.float64) for image_id, boxes in known.items()}
    if not len(image_ids):
        return {}
    sizes = {image["id"]: (image.get("width"), image.get("height")) for image in document["images"]}
    present, of_row = np.unique(image_ids, return_inverse=True)
    sides = np.array([sizes[image_id] for image_id in present.tolist()], dtype=np.float64)[of_row]
    warnings = {}
    found = plausibility.Detected(boxes, scores, image_ids, ids, sides)
    for finding in plausibility.boxes_of_detector(found, truth):
        if finding.sure:
            expected, text = f"bbox as {plausibility.STATED}", f"{finding.count} of {finding.total} {finding.text}"
            raise checks.refusal(path, "", expected, text, "convert them")
        warnings[finding.text] = finding.count
    without = len(truth.keys() - {*present.tolist()})
    if without:
        warnings["annotated images without a box"] = without
    return warnings


def _cut(xywh: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(K, 4) x, y, w, h and (K, 2) width, height of their images -> the same inside the image. What is inside is not
    computed anew: it would round."""
    low = xywh[:, :2].clip(0, size)
    high = (xywh[:, :2] + xywh[:, 2:]).clip(0, size)
    outside = (low != xywh[:, :2]) | (high != xywh[:, :2] + xywh[:, 2:])
    return np.column_stack([low, np.where(outside, np.maximum(high - low, 0), xywh[:, 2:])])
