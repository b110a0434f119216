"""Instance segmentation: average precision of detector boxes, and of the masks that variants give for them.

The ground truth is the dataset's own annotation file, and the rules are those of its format, so every figure is what
`sambench score` and the official evaluators give for the same results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sambench.evaluate.average_precision import BBOX, NOTHING_TO_FIND, SEGM, Evaluator
from sambench.evaluate.score import Truth, read_truth
from sambench.status import OK, summary

STATISTICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ap_rare", "ap_common", "ap_frequent")


def truth_of(annotations: Path | Sequence[Path], iou_type: str, images: pd.DataFrame) -> Truth:
    """The annotation file of a dataset, limited to its indexed images (columns of records.IMAGES).

    Raises InputError as `sambench score` does.
    """
    whole = read_truth(annotations, iou_type)
    kept = {image_id: whole.images[image_id] for image_id in images["image_id"].tolist()}
    return replace(whole, images=kept)


def only_crowds(truth: Truth) -> bool:
    """Whether COCO's rules leave nothing to find, because every annotation of the images is a crowd."""
    rows = [row for image_id in truth.images for row in truth.annotations.get(image_id, ())]
    return bool(rows) and not truth.rules.federated and all(row["iscrowd"] for row in rows)


def box_precision(truth: Truth, boxes: pd.DataFrame, *, class_agnostic: bool = False) -> dict[str, float]:
    """AP of boxes, columns of records.BOXES: the numbers of STATISTICS in per cent, absent where undefined."""
    evaluator = Evaluator(truth.categories, BBOX, truth.rules, class_agnostic=class_agnostic)
    xywh = boxes[["x", "y", "w", "h"]].to_numpy()
    _add(evaluator, truth, boxes, lambda own: [{"bbox": box} for box in xywh[own].tolist()], truth.images)
    return _per_cent(evaluator.finish().statistics)


def mask_precision(
    truth: Truth,
    keys: Iterable[tuple[str, str]],
    shards: Iterable[tuple[Sequence[int], pd.DataFrame]],
    *,
    class_agnostic: bool = False,
) -> dict[tuple[str, str], dict[str, Any]]:
    """AP of masks by (detector, selection): STATISTICS in per cent, the number of `detections`, and the `status`.

    keys: the detectors and selections that are wanted. shards: the image ids of each shard and its masks, columns of
    records.MASKS; only one is in memory at a time. Rows without a mask are not compared; the status counts them.
    """
    evaluators = {key: Evaluator(truth.categories, SEGM, truth.rules, class_agnostic=class_agnostic) for key in keys}
    statuses: dict[tuple[str, str], Counter[str]] = {key: Counter() for key in evaluators}
    for images, masks in shards:
        groups = dict(list(masks.groupby(["detector", "selection"], sort=False)))
        for key, evaluator in evaluators.items():
            rows = groups.get(key, masks.iloc[:0])
            statuses[key].update(rows["status"])
            kept = rows[rows["status"] == OK]
            sizes, counts = kept["rle_size"].to_numpy(), kept["rle_counts"].to_numpy()
            _add(evaluator, truth, kept, partial(_run_lengths, sizes, counts), images)
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for key, evaluator in evaluators.items():
        reasons = statuses[key]
        lines[key] = {"detections": reasons.total(), "status": summary(reasons)}
        if reasons[OK] or not reasons:
            lines[key] |= _per_cent(evaluator.finish().statistics)
    return lines


def _run_lengths(sizes: np.ndarray, counts: np.ndarray, own: np.ndarray) -> list[dict[str, Any]]:
    """The masks of some rows as detections have them."""
    return [
        {"segmentation": {"size": [int(side) for side in size], "counts": runs}}
        for size, runs in zip(sizes[own], counts[own], strict=True)
    ]


def _add(
    evaluator: Evaluator,
    truth: Truth,
    rows: pd.DataFrame,
    geometries: Callable[[np.ndarray], Sequence[Mapping[str, Any]]],
    images: Iterable[int],
) -> None:
    """Hand images over with all that was found in them, in the order of the rows.

    geometries: of the rows at some places; those of one image are in memory at once.
    """
    of_image = rows.groupby("image_id").indices
    categories, scores = rows["category_id"].to_numpy(), rows["score"].to_numpy()
    nothing = np.zeros(0, dtype=np.int64)
    for image_id in images:
        own = of_image.get(image_id, nothing)
        columns = zip(categories[own].tolist(), scores[own].tolist(), geometries(own), strict=True)
        detections = [{"category_id": category, "score": score, **shape} for category, score, shape in columns]
        evaluator.add(truth.images[image_id], truth.annotations.get(image_id, []), detections)


def _per_cent(statistics: Mapping[str, float]) -> dict[str, float]:
    return {
        name: 100 * statistics[name] for name in STATISTICS if statistics.get(name, NOTHING_TO_FIND) != NOTHING_TO_FIND
    }
