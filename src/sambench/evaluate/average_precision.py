"""Average precision of detected boxes or masks by the rules of COCO or of LVIS, image by image.

Images, annotations and detections are the dicts of the COCO format: boxes are x, y, width, height in pixels, masks are
RLE with size [height, width], and annotations may also hold polygons. hotcoco does the matching; its precision arrays
equal those of pycocotools 2.0.11 and lvis 0.5.3 to the bit, and so do the statistics made of them here.

What is not in those papers' formulas but in their code, and therefore here:

- COCO looks at the 100 best detections of an image *and category*; LVIS first keeps the 300 best of an image, over all
  categories, ties in the order given, and only then leaves out what it cannot judge.
- LVIS judges a detection only where its category is known to be in the image or known not to be
  (`neg_category_ids`). Where a category is not exhaustively annotated (`not_exhaustive_category_ids`), a detection
  that matches nothing is not held against the detector. It knows no crowds.
- lvis silently leaves out annotations and detections of area 0; pycocotools keeps them.
- An annotation with id 0 can be found here; the references take the id for "nothing" and count it as missed.
- The size of a detection is the area of what is compared: of the mask for masks, never of a `bbox` beside it, which
  would move AP by size by up to 2.7 points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco.mask
import numpy as np
from hotcoco import Params, StreamingEval

from sambench.datasets.federated import known_categories
from sambench.evaluate.rules import COCO, Rules

BBOX, SEGM = "bbox", "segm"
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
NOTHING_TO_FIND = -1.0  # what the references give where no ground truth is of the kind

_GEOMETRY = {BBOX: "bbox", SEGM: "segmentation"}
_SIZES = ("small", "medium", "large")
_AREAS = ("all", *_SIZES)  # the order of the area axis
_BATCH = 64  # images handed over at once: a call for each costs a third more


@dataclass(frozen=True)
class Scores:
    """What the detections of a dataset are worth.

    statistics: fractions by name, in the order of the reference: 12 for COCO, 13 for LVIS (10 when class-agnostic);
        NOTHING_TO_FIND where no ground truth is of the kind.
    precision: (IoU thresholds 10, recalls 101, categories, areas 4, limits) float64, -1 where there is nothing to find.
    recall: the same without the axis of recalls.
    """

    statistics: dict[str, float]
    precision: np.ndarray
    recall: np.ndarray


class Evaluator:
    """Takes the images of a dataset one at a time, in any order; evaluators of several shards add up exactly.

    categories: dicts with `id` and, for LVIS, `frequency` (r, c or f): the same for every shard.
    iou_type: BBOX or SEGM.
    class_agnostic: categories do not have to agree, as with `useCats = 0` of pycocotools. With LVIS what is judged is
        still chosen by category, but `not_exhaustive_category_ids` spares no detection then; there is no reference
        for it, since lvis finds nothing at all with `use_cats = 0`.
    """

    def __init__(
        self,
        categories: Sequence[dict[str, Any]],
        iou_type: str = SEGM,
        rules: Rules = COCO,
        *,
        class_agnostic: bool = False,
    ) -> None:
        self.rules = rules
        self._geometry = _GEOMETRY[iou_type]
        sizes = ("height", "width") if iou_type == SEGM else ()
        self._image_fields = ("id", *sizes, "neg_category_ids", "not_exhaustive_category_ids")
        self._frequencies = []
        if rules.federated and not class_agnostic:
            in_order = sorted(categories, key=lambda category: category["id"])
            self._frequencies = [category["frequency"] for category in in_order]
        params = Params(iou_type)
        params.max_dets = list(rules.limits)
        params.use_cats = not class_agnostic
        named = [{"id": category["id"], "name": str(category["id"])} for category in categories]
        self._stream = StreamingEval(named, iou_type, lvis_style=rules.federated, params=params)
        self._pending: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = []

    def add(
        self, image: dict[str, Any], annotations: Sequence[dict[str, Any]], detections: Sequence[dict[str, Any]]
    ) -> None:
        """One image with all its annotations and all its detections; once per image.

        image: `id`, for masks `height` and `width`, for LVIS `neg_category_ids` and `not_exhaustive_category_ids`.
        annotations: `id`, `category_id`, `area`, `bbox` or `segmentation`, for COCO `iscrowd` (0 where absent).
        detections: `category_id`, `score`, `bbox` or `segmentation` (compressed RLE).
        Raises KeyError for a category that is not among those of the evaluator.
        """
        if self.rules.federated:
            annotations, detections = self._judged(image, annotations, detections)
        image_id = image["id"]
        # Nothing but what is used: a field of another tool may be of a type that hotcoco does not take.
        image = {name: image[name] for name in self._image_fields if name in image}
        truth = [self._annotation(image_id, annotation) for annotation in annotations]
        found = [self._detection(image_id, detection) for detection in detections]
        self._pending.append((image, truth, found))
        if len(self._pending) >= _BATCH:
            self._flush()

    def state(self) -> bytes:
        """Everything so far, for `absorb` of an evaluator with the same arguments in another process."""
        self._flush()
        return self._stream.to_bytes()

    def absorb(self, states: Iterable[bytes]) -> None:
        """Add the images of other shards, each read when its turn comes.

        Raises ValueError for a state that is damaged or was made with other categories or rules.
        """
        self._flush()
        self._stream = StreamingEval.merge(itertools.chain([self._stream], map(StreamingEval.from_bytes, states)))

    def finish(self) -> Scores:
        """The scores over all images; the evaluator is used up."""
        self._flush()
        evaluation = self._stream.finalize()
        evaluation.accumulate()
        arrays = evaluation.eval
        assert arrays is not None  # accumulate has made it
        return Scores(
            self._statistics(arrays["precision"], arrays["recall"], evaluation.params.iou_thrs),
            arrays["precision"],
            arrays["recall"],
        )

    def _annotation(self, image_id: int, annotation: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": annotation["id"],
            "image_id": image_id,
            "category_id": annotation["category_id"],
            "area": annotation["area"],
            "iscrowd": 0 if self.rules.federated else annotation.get("iscrowd", 0),
            self._geometry: annotation[self._geometry],
        }

    def _detection(self, image_id: int, detection: dict[str, Any]) -> dict[str, Any]:
        # Nothing but the geometry that is compared, so that the area cannot come from the other one.
        return {
            "image_id": image_id,
            "category_id": detection["category_id"],
            "score": detection["score"],
            self._geometry: detection[self._geometry],
        }

    def _judged(
        self, image: dict[str, Any], annotations: Sequence[dict[str, Any]], detections: Sequence[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What LVIS looks at in an image."""
        (limit,) = self.rules.limits
        if len(detections) > limit:
            detections = sorted(detections, key=lambda detection: -detection["score"])[:limit]
        annotations = [annotation for annotation in annotations if annotation["area"] > 0]
        known = known_categories(image, annotations)
        # Most detections of a detector with 1,203 categories end here.
        detections = [detection for detection in detections if detection["category_id"] in known]
        geometries = [detection[self._geometry] for detection in detections]
        if self._geometry == "bbox":
            areas = np.array([width * height for _, _, width, height in geometries])
        else:
            areas = np.asarray(hotcoco.mask.area(geometries))
        return annotations, [detection for detection, area in zip(detections, areas, strict=True) if area > 0]

    def _flush(self) -> None:
        if self._pending:
            images, truths, founds = zip(*self._pending, strict=True)
            self._pending = []
            self._stream.update(list(images), list(itertools.chain(*truths)), list(itertools.chain(*founds)))

    def _statistics(self, precision: np.ndarray, recall: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
        """Means over the cells that have something to find, in the order of `COCOeval.stats` or `LVISEval.results`."""
        best = precision[..., -1]
        found = {
            "ap": _mean(best[:, :, :, 0]),
            "ap50": _mean(best[np.isclose(thresholds, 0.50), :, :, 0]),
            "ap75": _mean(best[np.isclose(thresholds, 0.75), :, :, 0]),
        }
        found |= {f"ap_{size}": _mean(best[:, :, :, _AREAS.index(size)]) for size in _SIZES}
        frequencies = np.array(self._frequencies)
        for letter, name in FREQUENCIES.items() if self._frequencies else ():
            found[f"ap_{name}"] = _mean(best[:, :, frequencies == letter, 0])
        found |= {f"ar_{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate(self.rules.limits)}
        return found | {f"ar_{size}": _mean(recall[:, :, _AREAS.index(size), -1]) for size in _SIZES}


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else NOTHING_TO_FIND
