"""`sambench score`: average precision of a result file against the annotation file that it was made for.

Both files are checked to the last field, because a wrong id or mask would not fail: it would give a lower AP. The
annotations are held as they are; the results may be much larger and are read in pieces, keeping of each what is
compared.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from rlemasklib import RLEMask

from sambench.datasets import checks, federated
from sambench.errors import InputError
from sambench.evaluate.average_precision import BBOX, FREQUENCIES, SEGM, Evaluator
from sambench.evaluate.rules import COCO, LVIS, Rules

IOU_TYPES = (SEGM, BBOX)

_NUMBERS = frozenset((float, int))
_PIECE = 1 << 22  # characters
_DELIMITER = re.compile(r"\s*([],])\s*")
_REMEDY = "give a list of results in the COCO format: image_id, category_id, score, bbox or segmentation"

# What is kept of a result: category_id, score, and x, y, width, height or the counts of the RLE.
Detection = tuple[int, float, Any]


@dataclass(frozen=True)
class Truth:
    """A checked annotation file. images: as in the file, by id. annotations: by image_id, in the order of the file."""

    images: dict[int, dict[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    categories: list[dict[str, Any]]
    rules: Rules

    def known_categories(self, image_id: int) -> set[int]:
        """The categories that LVIS judges in an image: those annotated there and those known to be absent."""
        return federated.known_categories(self.images[image_id], self.annotations.get(image_id, ()))


def score(truth: Path, results: Path, iou_type: str = "", *, class_agnostic: bool = False) -> dict[str, Any]:
    """All statistics of the format's own evaluator as fractions, unrounded, and what they were made from.

    iou_type: SEGM or BBOX; when empty, masks if the first result has one.
    A file is LVIS where its images have `neg_category_ids`, else COCO.

    Raises InputError for whatever is wrong with either file.
    """
    if iou_type not in ("", *IOU_TYPES):
        raise InputError("--iou-type", expected=" or ".join(IOU_TYPES), found=iou_type)
    if not iou_type:
        first = next(_entries(results), None)
        iou_type = SEGM if isinstance(first, dict) and "segmentation" in first else BBOX
    reference = read_truth(truth, iou_type)
    found = read_results(results, iou_type, reference, truth)
    count = sum(map(len, found.values()))
    evaluator = Evaluator(reference.categories, iou_type, reference.rules, class_agnostic=class_agnostic)
    for image_id, image in reference.images.items():
        size = [image.get("height"), image.get("width")]
        detections = [
            {"category_id": category, "score": confidence}
            | ({"segmentation": {"size": size, "counts": shape}} if iou_type == SEGM else {"bbox": shape})
            for category, confidence, shape in found.pop(image_id, ())
        ]
        evaluator.add(image, reference.annotations.get(image_id, []), detections)
    return {
        **evaluator.finish().statistics,
        "iou_type": iou_type,
        "rules": reference.rules.name,
        "class_agnostic": class_agnostic,
        "images": len(reference.images),
        "annotations": sum(map(len, reference.annotations.values())),
        "detections": count,
    }


def read_truth(path: Path, iou_type: str) -> Truth:
    """A COCO or LVIS annotation file with everything checked that its evaluator uses."""
    document = checks.read_annotations(path)
    rules = rules_of(document)
    categories = document.get("categories")
    if not isinstance(categories, list) or not categories:
        raise _refusal(path, "categories", "a list of at least one category", categories, "list the categories")
    known = checks.category_ids(document, path) or set()
    if len(known) < len(categories):
        found = f"{len(categories) - len(known)} repeated"
        raise checks.refusal(path, "categories", "ids that differ", found, "remove the repetition")
    for i, category in enumerate(categories):
        if rules.federated and category.get("frequency") not in [*FREQUENCIES]:
            remedy = "take the complete LVIS file"
            raise _refusal(path, f"categories[{i}].frequency", "r, c or f", category.get("frequency"), remedy)

    images: dict[int, dict[str, Any]] = {}
    for i, image in enumerate(document["images"]):
        field = f"images[{i}]"
        image_id = checks.integer(image, "id", path, field)
        if image_id in images:
            raise _refusal(path, f"{field}.id", "an id that no image before it has", image_id, "remove the repetition")
        if iou_type == SEGM:
            for side in ("height", "width"):
                checks.integer(image, side, path, field, low=1, high=checks.SIDE_LIMIT)
        for name in federated.FIELDS if rules.federated else ():
            ids = image.get(name)
            if not isinstance(ids, list) or not all(type(each) is int for each in ids):
                raise _refusal(path, f"{field}.{name}", "a list of category ids", ids, "take the complete LVIS file")
        images[image_id] = image

    rows = document["annotations"]
    checks.check_ids(rows, images, path)
    annotations = defaultdict(list)
    for i, row in enumerate(rows):
        annotations[row["image_id"]].append(
            _annotation(row, images[row["image_id"]], known, iou_type, path, f"annotations[{i}]")
        )
    return Truth(images, annotations, categories, rules)


def rules_of(document: dict[str, Any]) -> Rules:
    """LVIS for an annotation file whose images have fields that only LVIS has, else COCO."""
    return LVIS if federated.is_federated(document["images"]) else COCO


def _annotation(
    row: dict[str, Any], image: dict[str, Any], categories: set[int], iou_type: str, path: Path, field: str
) -> dict[str, Any]:
    """What is compared of an annotation."""
    category = checks.integer(row, "category_id", path, field)
    area: Any = row.get("area")
    crowd = row.get("iscrowd", 0)
    if category not in categories:
        remedy = "add the category or correct the id"
        raise _refusal(path, f"{field}.category_id", "an id listed under `categories`", category, remedy)
    if not checks.is_number(area) or area < 0:
        raise _refusal(path, f"{field}.area", "a finite number of pixels, not negative", area, "add or correct it")
    if crowd not in (0, 1):
        raise _refusal(path, f"{field}.iscrowd", "0 or 1", crowd, "correct it, or leave it out for 0")
    kept = {"id": row["id"], "category_id": category, "area": area, "iscrowd": int(crowd)}
    if iou_type == BBOX:
        box = row.get("bbox")
        if not checks.is_box(box):
            remedy = "add or correct it"
            raise _refusal(path, f"{field}.bbox", "x, y, width, height: 4 finite numbers", box, remedy)
        return kept | {"bbox": box}
    segmentation, field = row.get("segmentation"), f"{field}.segmentation"
    if isinstance(segmentation, dict):
        size, counts = [image["height"], image["width"]], segmentation.get("counts")
        if isinstance(counts, str):
            if segmentation.get("size") != size or not _is_whole(size, counts):
                raise _bad_rle(segmentation, size, path, field)
            return kept | {"segmentation": segmentation}
        checked = checks.run_lengths(segmentation, image["height"], image["width"], path, field)
        return kept | {"segmentation": checked}
    if not isinstance(segmentation, list) or not segmentation:
        raise _refusal(path, field, "polygons or an RLE", segmentation, "add it, or score boxes with --iou-type bbox")
    for i, polygon in enumerate(segmentation):
        checks.polygon(polygon, path, f"{field}[{i}]")
    return kept | {"segmentation": segmentation}


def read_results(path: Path, iou_type: str, truth: Truth, truth_path: Path) -> dict[int, list[Detection]]:
    """The checked results by image_id, in the order of the file."""
    categories = {category["id"] for category in truth.categories}
    sizes: dict[int, list[Any]] = {
        image_id: [image.get("height"), image.get("width")] for image_id, image in truth.images.items()
    }
    shape = _mask if iou_type == SEGM else _box
    found: dict[int, list[Detection]] = {image_id: [] for image_id in sizes}
    for i, entry in enumerate(_entries(path)):
        if type(entry) is not dict:
            raise _refusal(path, f"[{i}]", "an object", entry, _REMEDY)
        image_id, category = entry.get("image_id"), entry.get("category_id")
        confidence: Any = entry.get("score")
        if type(image_id) is not int or image_id not in sizes:
            expected, remedy = f"an image id of {truth_path.name}", "score against the file the results were made for"
            raise _refusal(path, f"[{i}].image_id", expected, image_id, remedy)
        if type(category) is not int or category not in categories:
            expected, remedy = f"a category id of {truth_path.name}", "translate the detector's classes to its ids"
            raise _refusal(path, f"[{i}].category_id", expected, category, remedy)
        if type(confidence) not in _NUMBERS or not isfinite(confidence):
            raise _refusal(path, f"[{i}].score", "a finite number", confidence, "add the confidence of the detection")
        found[image_id].append((category, confidence, shape(entry, sizes[image_id], path, i)))
    return found


def _box(entry: dict[str, Any], size: list[int], path: Path, i: int) -> list[float]:
    box: list[float] = entry.get("bbox", [])
    if not checks.is_box(box):
        expected = "x, y, width, height: 4 finite numbers, no negative size"
        found, remedy = entry.get("bbox"), "correct it"
        if found is None and "segmentation" in entry:
            remedy = "score the masks with --iou-type segm"
        raise _refusal(path, f"[{i}].bbox", expected, found, remedy)
    return box


def _mask(entry: dict[str, Any], size: list[int], path: Path, i: int) -> str:
    rle = entry.get("segmentation")
    if type(rle) is not dict or type(counts := rle.get("counts")) is not str:
        remedy = "encode the mask with pycocotools"
        if rle is None and "bbox" in entry:
            remedy = "score the boxes with --iou-type bbox"
        raise _refusal(path, f"[{i}].segmentation", "a compressed RLE with size and counts", rle, remedy)
    if rle.get("size") != size or not _is_whole(size, counts):
        raise _bad_rle(rle, size, path, f"[{i}].segmentation")
    return counts


def _is_whole(size: list[int], counts: str) -> bool:
    """Whether the runs of a compressed RLE sum to its size."""
    try:
        RLEMask.from_dict({"size": size, "counts": counts.encode()})
    except ValueError:
        return False
    return True


def _bad_rle(rle: dict[str, Any], size: list[int], path: Path, field: str) -> InputError:
    if rle.get("size") != size:
        expected, remedy = f"[height, width] of its image, {size}", "encode the mask at the size of its image"
        return _refusal(path, f"{field}.size", expected, rle.get("size"), remedy)
    expected = f"runs that sum to height * width = {size[0] * size[1]}"
    return _refusal(path, f"{field}.counts", expected, rle["counts"], "encode the mask again")


def _entries(path: Path) -> Iterator[Any]:
    """The entries of a JSON file that is one list, each parsed when its turn comes."""
    scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_PIECE).lstrip()
            if not text.startswith("["):
                raise _refusal(path, "", "a list of results", text or None, _REMEDY)
            text, at, number = text[1:].lstrip(), 0, 0
            if text.startswith("]"):
                return
            while True:
                try:
                    entry, end = scan(text, at)
                    if not (delimiter := _DELIMITER.match(text, end)):
                        raise ValueError("no comma after it")
                except (StopIteration, ValueError, RecursionError) as error:
                    # Perhaps only cut off: as much again as there is, so that nothing is parsed more than twice.
                    more = file.read(max(_PIECE, len(text) - at))
                    if not more:
                        reason = str(error) if isinstance(error, ValueError) else "the end of the file"
                        raise checks.refusal(path, f"[{number}]", "JSON", reason, "write the file again") from None
                    text, at = (text[at:] + more).lstrip(), 0
                    continue
                yield entry
                if delimiter[1] == "]":
                    return
                at, number = delimiter.end(), number + 1
    except OSError as error:
        raise checks.refusal(path, "", "a readable file", str(error.strerror), _REMEDY) from None
    except UnicodeDecodeError as error:
        raise checks.refusal(path, "", "JSON", str(error), _REMEDY) from None


def _refusal(path: Path, field: str, expected: str, found: Any, remedy: str) -> InputError:
    return checks.refusal(path, field, expected, checks.show(found), remedy)
