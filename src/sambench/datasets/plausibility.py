"""Plausible but wrong: data that would give plausible figures, and is not what its format says.

What decides is agreement over the whole set: of boxes with masks, for ground truth, and of boxes, scores and categories
with the ground truth and the image, for a detector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
ON_OBJECT = 0.5  # the IoU of a detection that is on an object
SEVERAL = 5  # polygons that do not lie in one pixel by chance
ENOUGH = 20  # detections on objects that tell something about their categories


def _corners_of_sizes(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _corners_of_centres(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _turned(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, [1, 0, 3, 2]]


_SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x, y, width, height": _corners_of_sizes,
    "corners x0, y0, x1, y1": lambda boxes: boxes,
    "centres x, y, width, height": _corners_of_centres,
    "y, x, height, width": lambda boxes: _corners_of_sizes(_turned(boxes)),
    "corners y0, x0, y1, x1": _turned,
}
_TURNED = ("y, x, height, width", "corners y0, x0, y1, x1")


def readings(boxes: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 4) boxes as they are written, (N, 2) width and height of their images -> x0, y0, x1, y1 by format."""
    scale = np.tile(sizes, (1, 2))
    found = {name: shape(boxes) for name, shape in _SHAPES.items()}
    fractions = {f"fractions of the image ({name})": corners * scale for name, corners in found.items()}
    return {STATED: found.pop("x, y, width, height")} | found | fractions


def resized(boxes: np.ndarray, masks: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes x, y, width, height as if they were in pixels of resized images -> x0, y0, x1, y1 by kind of resizing.

    masks: (N, 4) x0, y0, x1, y1, what they should be; how images were resized is the median that these tell.
    """
    factors = boxes[:, 2:] / (masks[:, 2:] - masks[:, :2])
    longest = sizes.max(axis=1, keepdims=True)
    factor, side = np.median(factors), round(float(np.median(factors * longest)))
    square = round(float(np.median(factors * sizes)))
    corners = _corners_of_sizes(boxes)
    return {
        f"pixels of images of {factor:.3g} times the size": corners / factor,
        f"pixels of images whose longest side is {side}": corners * longest / max(side, 1),
        f"pixels of images of {square} x {square}": corners * np.tile(sizes, (1, 2)) / max(square, 1),
    }


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
    large = np.minimum(*(masks[:, 2:] - masks[:, :2]).T) >= TINY
    large |= (boxes[:, 2:] >= TINY).all(axis=1)
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
    agreement |= {name: ious(read, masks) for name, read in resized(boxes, masks, sizes).items()}
    explained = {name: (found >= READ_WELL) & (found >= stated + MARGIN) & bad for name, found in agreement.items()}
    likely = max(explained, key=lambda name: int(explained[name].sum()))
    count = int(explained[likely].sum())
    words = likely + (", or masks with x and y exchanged" if likely in _TURNED else "")
    if count >= 0.8 * bad.sum():
        return [Finding(f"boxes that are {words}", count, total, sure=True)]
    if count > FEW * total:
        return [Finding(f"boxes that seem to be {words}", count, total, sure=False)]
    return [
        Finding(f"boxes that overlap the box of their mask by less than {FITTING}", int(bad.sum()), total, sure=False)
    ]


def polygons_of_images(segmentations: Iterable[tuple[Sequence[np.ndarray], int, int]]) -> list[Finding]:
    """Whether polygons are in pixels of their images. segmentations: polygons x0, y0, x1, y1, ..., width and height."""
    total = fractions = outside = 0
    for polygons, width, height in segmentations:
        corners = np.concatenate(polygons).reshape(-1, 2)
        (low_x, low_y), (high_x, high_y) = corners.min(axis=0), corners.max(axis=0)
        total += 1
        fractions += bool(min(low_x, low_y) >= 0 and max(high_x, high_y) <= 1)  # all within the first pixel
        slack = 2 + 0.02 * max(width, height)
        outside += bool(min(low_x, low_y) < -slack or high_x > width + slack or high_y > height + slack)
    found = [
        # A few may well be of a pixel in the corner.
        Finding(
            "polygons that are fractions of the image", fractions, total, sure=2 * fractions >= max(total, 2 * SEVERAL)
        ),
        Finding("polygons that stick out of their image and are cut", outside, total, sure=False),
    ]
    return [finding for finding in found if finding.count > FEW * total]


@dataclass(frozen=True)
class Detected:
    """The boxes of a detector as they are written: (N, 4), and (N,) scores, image_ids and category_ids.

    sizes: (N, 2) width and height of their images.
    """

    boxes: np.ndarray
    scores: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    sizes: np.ndarray


def boxes_of_detector(found: Detected, truth: Mapping[int, np.ndarray]) -> list[Finding]:
    """Whether a detector's boxes, scores and categories are what they should be.

    truth: by image_id, the ground-truth boxes (K, 5) as x, y, width, height, category_id.
    """
    total = len(found.boxes)
    if not total:
        return []
    outside: Counter[str] = Counter()
    for start in range(0, total, PART):
        part = slice(start, start + PART)
        slack = np.maximum(2, 0.02 * found.sizes[part])
        for name, corners in readings(found.boxes[part], found.sizes[part]).items():
            over = (corners[:, :2] < -slack).any(axis=1) | (corners[:, 2:] > found.sizes[part] + slack).any(axis=1)
            outside[name] += int((over | (corners[:, 2:] < corners[:, :2]).any(axis=1)).sum())
    best = _best(found.scores, found.image_ids)
    best = best[[int(found.image_ids[row]) in truth for row in best]]
    read = readings(found.boxes[best], found.sizes[best])
    hits, whose = _overlaps(np.stack(list(read.values()), axis=1), found.image_ids[best], truth)
    by_name = dict(zip(read, hits.T, strict=True))
    others = [name for name in read if name != STATED]
    if len(best):
        likely = max(others, key=lambda name: float(by_name[name].mean()))
        if by_name[likely].mean() >= 0.5 and by_name[likely].mean() >= by_name[STATED].mean() + MARGIN:
            return [Finding(f"boxes that are {likely}", total, total, sure=True)]
    if not len(best) and outside[STATED] > 0.3 * total:
        fitting = [name for name in others if not outside[name]]
        if fitting:
            return [Finding(f"boxes that are {fitting[0]}", total, total, sure=True)]
    findings = _scores(found.scores) + _repeated(found)
    if outside[STATED] > FEW * total:
        text = "boxes that stick out of their image and are cut"
        findings.append(Finding(text, outside[STATED], total, sure=False))
    on_object = by_name[STATED] >= ON_OBJECT
    if len(best) >= ENOUGH and on_object.mean() <= FEW:
        text = "boxes, the best of each image, of which next to none is on an object: of other images or another size?"
        findings.append(Finding(text, len(best), total, sure=False))
    seen = found.category_ids[best][on_object]
    meant = whose[on_object, list(read).index(STATED)]
    if len(seen) >= ENOUGH and len(np.unique(meant)) > 1 and (seen == meant).mean() <= 0.2:
        text = "boxes on objects of other categories: are category ids those of the annotations?"
        findings.append(Finding(text, int((seen != meant).sum()), total, sure=False))
    return findings


def _scores(scores: np.ndarray) -> list[Finding]:
    total = len(scores)
    kinds = {
        "scores above 1, which thresholds between 0 and 1 keep": int((scores > 1).sum()),
        "scores below 0, which thresholds between 0 and 1 leave out": int((scores < 0).sum()),
        "scores that are all the same: average precision has no order": total * (len(np.unique(scores)) == 1),
    }
    least = {"scores that are all the same: average precision has no order": ENOUGH}
    return [Finding(text, count, total, sure=False) for text, count in kinds.items() if count >= least.get(text, 1)]


def _repeated(found: Detected) -> list[Finding]:
    """Boxes that are there several times, which average precision counts as wrong."""
    columns = (*found.boxes.T, found.category_ids, found.image_ids)
    order = np.lexsort(columns)
    same = np.ones(len(order) - 1, dtype=bool)
    for column in columns:
        same &= np.diff(column[order]) == 0
    count, total = int(same.sum()), len(order)
    return [Finding("boxes that are there twice", count, total, sure=False)] if count > FEW * total else []


def _best(scores: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
    """The rows of the TOP best detections of each image."""
    order = np.lexsort((-scores, image_ids))
    _, starts = np.unique(image_ids[order], return_index=True)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[rank < TOP]


def _overlaps(
    boxes: np.ndarray, image_ids: np.ndarray, truth: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes x0, y0, x1, y1 in R readings (N, R, 4) -> (N, R) the best IoU with the ground truth of their images, and
    the category of that object."""
    found, whose = np.zeros(boxes.shape[:2]), np.full(boxes.shape[:2], -1, dtype=np.int64)
    for row, (read, image_id) in enumerate(zip(boxes, image_ids.tolist(), strict=True)):
        there = truth[image_id]
        pairs = ious(np.repeat(read, len(there), axis=0), np.tile(_corners_of_sizes(there[:, :4]), (len(read), 1)))
        pairs = pairs.reshape(len(read), len(there))
        best = pairs.argmax(axis=1)
        found[row], whose[row] = pairs[np.arange(len(read)), best], there[best, 4]
    return found, whose
