"""Plausible but wrong: boxes that would give plausible figures, and are not x, y, width, height in pixels.

What decides is agreement over the whole set: with the boxes of the masks, for ground truth, and with the ground truth
and the image, for a detector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

STATED = "x, y, width, height in pixels"
FITTING = 0.7  # the IoU of two boxes that may well mean the same thing
READ_WELL = 0.8  # the IoU of a box that is read in the right format
MARGIN = 0.2  # by so much another format has to be better
TINY = 4  # pixels; the boxes of smaller masks say more about rounding
FEW = 0.05  # a share that any careful annotation has
PART = 200_000  # boxes that are read in all formats at once
TOP = 5  # detections per image that should be on an object


def _corners_of_sizes(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _corners_of_centres(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


_SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x, y, width, height": _corners_of_sizes,
    "corners x0, y0, x1, y1": lambda boxes: boxes,
    "centres x, y, width, height": _corners_of_centres,
}


def readings(boxes: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 4) boxes as they are written, (N, 2) width and height of their images -> x0, y0, x1, y1 by format."""
    scale = np.tile(sizes, (1, 2))
    found = {name: shape(boxes) for name, shape in _SHAPES.items()}
    found[STATED] = found.pop("x, y, width, height")
    return found | {f"fractions of the image ({name})": shape(boxes * scale) for name, shape in _SHAPES.items()}


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 4) and (N, 4) boxes x0, y0, x1, y1 -> (N,) intersection over union; 0 for a box turned inside out."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(0).prod(axis=1)
    union = sum((box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (a, b)) - shared
    return np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)


@dataclass(frozen=True)
class Finding:
    """Boxes that are not what they should be. text: what they are or seem to be; sure: beyond doubt."""

    text: str
    count: int
    total: int
    sure: bool


def boxes_of_masks(boxes: np.ndarray, masks: np.ndarray, sizes: np.ndarray) -> list[Finding]:
    """Whether annotation boxes are those of their masks.

    boxes: (N, 4) as they are written. masks: (N, 4) x0, y0, x1, y1 around the pixels of each mask. sizes: (N, 2) width
    and height of the images.
    """
    large = (masks[:, 2:] - masks[:, :2]).min(axis=1, initial=np.inf) >= TINY
    boxes, masks, sizes = boxes[large], masks[large], sizes[large]
    total, empty = len(boxes), (boxes[:, 2:] <= 0).any(axis=1)
    if empty.any():
        count = int(empty.sum())
        if 2 * count >= total:
            return [Finding("boxes without an area", count, total, sure=True)]
        found = [Finding("boxes without an area", count, total, sure=False)]
        rest = list(boxes_of_masks(boxes[~empty], masks[~empty], sizes[~empty]))
        return found + rest
    agreement = {name: ious(read, masks) for name, read in readings(boxes, sizes).items()}
    stated = agreement.pop(STATED)
    bad = stated < FITTING
    if bad.sum() <= FEW * total:
        return []
    explained = {name: (found >= READ_WELL) & (found >= stated + MARGIN) & bad for name, found in agreement.items()}
    likely = max(explained, key=lambda name: int(explained[name].sum()))
    count = int(explained[likely].sum())
    if count >= 0.8 * bad.sum():
        return [Finding(f"boxes that are {likely}", count, total, sure=True)]
    if count > FEW * total:
        return [Finding(f"boxes that seem to be {likely}", count, total, sure=False)]
    return [
        Finding(f"boxes that overlap the box of their mask by less than {FITTING}", int(bad.sum()), total, sure=False)
    ]


def boxes_of_detector(
    boxes: np.ndarray, scores: np.ndarray, image_ids: np.ndarray, sizes: np.ndarray, truth: Mapping[int, np.ndarray]
) -> list[Finding]:
    """Whether a detector's boxes are in the stated format.

    boxes: (N, 4) as they are written. scores, image_ids: (N,). sizes: (N, 2) width and height of the images. truth:
    by image_id, the ground-truth boxes (K, 4) as x, y, width, height.
    """
    total = len(boxes)
    if not total:
        return []
    outside: Counter[str] = Counter()
    for start in range(0, total, PART):
        part = slice(start, start + PART)
        slack = np.maximum(2, 0.02 * sizes[part])
        for name, found in readings(boxes[part], sizes[part]).items():
            over = (found[:, :2] < -slack).any(axis=1) | (found[:, 2:] > sizes[part] + slack).any(axis=1)
            outside[name] += int((over | (found[:, 2:] < found[:, :2]).any(axis=1)).sum())
    best = _best(scores, image_ids)
    best = best[[int(image_ids[row]) in truth for row in best]]
    read = readings(boxes[best], sizes[best])
    hits = {name: _overlaps(found, image_ids[best], truth) for name, found in read.items()}
    others = [name for name in read if name != STATED]
    if len(best):
        likely = max(others, key=lambda name: float(hits[name].mean()))
        if hits[likely].mean() >= 0.5 and hits[likely].mean() >= hits[STATED].mean() + MARGIN:
            return [Finding(f"boxes that are {likely}", total, total, sure=True)]
    count = outside[STATED]
    if not len(best) and count > 0.3 * total:
        fitting = [name for name in others if not outside[name]]
        if fitting:
            return [Finding(f"boxes that are {fitting[0]}", total, total, sure=True)]
    if count > FEW * total:
        return [Finding("boxes that stick out of their image and are cut", count, total, sure=False)]
    return []


def _best(scores: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
    """The rows of the TOP best detections of each image."""
    order = np.lexsort((-scores, image_ids))
    _, starts = np.unique(image_ids[order], return_index=True)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[rank < TOP]


def _overlaps(boxes: np.ndarray, image_ids: np.ndarray, truth: Mapping[int, np.ndarray]) -> np.ndarray:
    """(N,) the best IoU of each box, x0, y0, x1, y1, with the ground truth of its image."""
    found = np.zeros(len(boxes))
    for row, (box, image_id) in enumerate(zip(boxes, image_ids, strict=True)):
        there = _corners_of_sizes(truth[int(image_id)])
        found[row] = ious(np.tile(box, (len(there), 1)), there).max(initial=0)
    return found
