"""Boundary AP: COCO's average precision with the smaller one of mask IoU and boundary IoU.

The published definition (arXiv 2103.16562, section 5; boundary_iou/coco_instance_api/cocoeval.py): for ground truth
that is no crowd, the IoU of a pair is the minimum of both; all else is COCO's. pycocotools' own evaluator computes it.
A boundary is only drawn where the mask IoU reaches the lowest threshold, since below it the minimum decides nothing.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sambench.boundary import Boundary, boundary, boundary_iou, width_of
from sambench.evaluate.score import Truth
from sambench.masks import decode_inside
from sambench.status import OK

ALL = (0.0, 1e10)  # pixels: of objects of any size


class BoundaryEvaluator(COCOeval):
    """pycocotools' evaluator of masks with the IoU of boundary AP."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """(detections, ground truth) float64, detections by falling score; an empty list where there is neither."""
        ious = super().computeIoU(imgId, catId)
        if not len(ious):
            return ious
        truth, found = (self._of(entries, imgId, catId) for entries in (self._gts, self._dts))
        best = np.argsort([-each["score"] for each in found], kind="mergesort")[: self.params.maxDets[-1]]
        ious = np.array(ious)
        drawn = cache(lambda at: boundary_of(found[at]["segmentation"]))
        for column, each in enumerate(truth):
            near = np.flatnonzero(ious[:, column] >= self.params.iouThrs[0])
            if each["iscrowd"] or not len(near):
                continue
            its = boundary_of(each["segmentation"])
            for row in near:
                ious[row, column] = min(ious[row, column], boundary_iou(drawn(int(best[row])), its))
        return ious

    def _of(self, entries: Any, image: int, category: int) -> list[dict[str, Any]]:
        if self.params.useCats:
            return list(entries[image, category])
        return [each for category_id in self.params.catIds for each in entries[image, category_id]]


def boundary_of(rle: dict[str, Any]) -> Boundary:
    """The boundary of a compressed COCO RLE."""
    counts = rle["counts"]
    part, (x, y) = decode_inside(rle["size"], counts if isinstance(counts, bytes) else counts.encode())
    found = boundary(part, width_of(*rle["size"]))
    return Boundary(found.pixels, (x + found.corner[0], y + found.corner[1]), found.area)


def boundary_ap(truth: Truth, detections: Sequence[dict[str, Any]], *, class_agnostic: bool = False) -> float:
    """Boundary AP in per cent of masks under the rules of COCO; NaN where there is nothing to find.

    detections: image_id, category_id, score, and the segmentation as compressed RLE.
    """
    reference = COCO()
    annotations = [
        {**each, "iscrowd": each.get("iscrowd", 0), "image_id": image} for image, rows in truth.annotations.items()
        if image in truth.images for each in rows
    ]  # fmt: skip
    reference.dataset = {
        "info": {},
        "images": list(truth.images.values()),
        "annotations": annotations,
        "categories": truth.categories,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # both classes report what they do
        reference.createIndex()
        found = reference.loadRes([dict(each) for each in detections]) if detections else COCO()
        evaluator = BoundaryEvaluator(reference, found, "segm")
        evaluator.params.imgIds = sorted(truth.images)
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [list(ALL)], ["all"]
        evaluator.params.maxDets = [truth.rules.limits[-1]]
        evaluator.params.useCats = int(not class_agnostic)
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"]
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else float("nan")


def boundary_precision(
    truth: Truth,
    keys: Iterable[tuple[str, str]],
    shards: Callable[[], Iterable[pd.DataFrame]],
    *,
    class_agnostic: bool = False,
) -> dict[tuple[str, str], float]:
    """Boundary AP of masks by (detector, selection); nothing under the rules of LVIS.

    shards: gives the masks of each shard, columns of records.MASKS, as often as it is called: the detections of one key
    are in memory at a time.
    """
    if truth.rules.federated:
        return {}
    return {
        key: boundary_ap(truth, _detections(key, shards()), class_agnostic=class_agnostic) for key in keys
    }  # fmt: skip


def _detections(key: tuple[str, str], shards: Iterable[pd.DataFrame]) -> list[dict[str, Any]]:
    found = []
    for masks in shards:
        rows = masks[(masks["detector"] == key[0]) & (masks["selection"] == key[1]) & (masks["status"] == OK)]
        found += [
            {
                "image_id": row.image_id,
                "category_id": row.category_id,
                "score": row.score,
                "segmentation": {"size": [int(side) for side in row.rle_size], "counts": row.rle_counts},
            }
            for row in rows.itertuples(index=False)
        ]
    return found
