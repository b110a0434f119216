"""Which boxes can change an average precision: what is asked before their masks are decoded.

LVIS looks at the 300 best detections of an image, over all categories, and then only at those whose category is known
to be in the image or known not to be (Gupta et al. 2019, section 3; lvis/results.py, lvis/eval.py). COCO looks at the
100 best of an image and category, or of an image where categories do not count. All of that follows from categories and
scores, which a mask takes from its box.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sambench.evaluate.score import Truth


def judged(truth: Truth, boxes: pd.DataFrame, *, class_agnostic: bool = False) -> np.ndarray:
    """(N,) bool: whether a box of a detector can change the AP of the masks, with the evaluator's own rules.

    truth: of all images that the boxes are of. boxes: of one detector, with image_id, category_id and score, in the
    order in which their masks are compared.

    The AP of the boxes that remain is the same to the bit, as long as every mask of them is compared: where one is
    missing (out of memory), the next best box of the image would have taken its place.

    Raises KeyError for an image that the truth lacks.
    """
    limit = truth.rules.limits[-1]
    images, categories, scores = (boxes[name].to_numpy() for name in ("image_id", "category_id", "score"))
    keys = ["image_id"] if truth.rules.federated or class_agnostic else ["image_id", "category_id"]
    kept = np.zeros(len(boxes), dtype=bool)
    for rows in boxes.groupby(keys).indices.values():
        if not truth.rules.federated:
            kept[rows] = _among_best(scores[rows], limit)
            continue
        best = rows[np.argsort(-scores[rows], kind="stable")[:limit]]  # of equal scores the first, as in lvis
        kept[best] = np.isin(categories[best], sorted(truth.known_categories(images[rows[0]])))
    return kept


def _among_best(scores: np.ndarray, limit: int) -> np.ndarray:
    """(N,) bool: scores not below the one in place `limit`; of equal ones the evaluator takes its pick."""
    if len(scores) <= limit:
        return np.ones(len(scores), dtype=bool)
    return scores >= np.partition(scores, -limit)[-limit]
