"""Which boxes can change an average precision: looked up before their masks are decoded.

LVIS looks at the 300 best detections of an image, over all categories, and then only at those whose category is known
to be in the image or known not to be (Gupta et al. 2019, section 3; lvis/results.py, lvis/eval.py). COCO looks at the
100 best of an image and category, or of an image where categories do not count. All of that follows from categories and
scores, which a mask takes from its box.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from sambench.evaluate.rules import COCO, LVIS, Rules


class Judge(Protocol):
    """What decides: an annotation file (score.Truth), or what the index says of it."""

    @property
    def rules(self) -> Rules:
        """Those of the annotation file."""

    def known_categories(self, image_id: int) -> Collection[int]:
        """The categories that LVIS judges in an image."""


@dataclass(frozen=True)
class IndexedTruth:
    """What the index knows of an annotation file. known: the judged categories of each image; empty for COCO."""

    known: Mapping[int, Collection[int]]

    @property
    def rules(self) -> Rules:
        return LVIS if self.known else COCO

    def known_categories(self, image_id: int) -> Collection[int]:
        return self.known[image_id]


def indexed_truth(images: pd.DataFrame) -> IndexedTruth:
    """The judge of indexed images (columns of records.IMAGES)."""
    columns = zip(images["image_id"].tolist(), images["judged_category_ids"], strict=True)
    return IndexedTruth({image_id: known for image_id, known in columns if known is not None})


def judged(truth: Judge, boxes: pd.DataFrame, *, class_agnostic: bool = False) -> np.ndarray:
    """(N,) bool: whether a box of a detector can change the AP of the masks, with the evaluator's own rules.

    truth: of all images that the boxes are of. boxes: of one detector, with image_id, category_id and score, in the
    order in which their masks are compared. class_agnostic: whether categories count for the AP; where they do, no box
    is left out that can change the AP without them either.

    The AP of the boxes that remain is the same to the bit, as long as every mask of them is compared: where one is
    missing (out of memory), the next best box of the image would have taken its place.

    Raises KeyError for an image that the truth lacks.
    """
    rules = truth.rules
    limit = rules.limits[-1]
    images, categories, scores = (boxes[name].to_numpy() for name in ("image_id", "category_id", "score"))
    keys = ["image_id"] if rules.federated or class_agnostic else ["image_id", "category_id"]
    kept = np.zeros(len(boxes), dtype=bool)
    for rows in boxes.groupby(keys).indices.values():
        if not rules.federated:
            kept[rows] = _among_best(scores[rows], limit)
            continue
        best = rows[np.argsort(-scores[rows], kind="stable")[:limit]]  # of equal scores the first, as in lvis
        kept[best] = np.isin(categories[best], sorted(truth.known_categories(images[rows[0]])))
    return kept


def _among_best(scores: np.ndarray, limit: int) -> np.ndarray:
    """(N,) bool: scores not below the one in place `limit`; of equal ones the evaluator takes its pick."""
    if len(scores) <= limit:
        return np.ones(len(scores), dtype=bool)
    best: np.ndarray = scores >= np.partition(scores, -limit)[-limit]
    return best
