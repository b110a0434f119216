"""`sambench score`: average precision of a result file against the annotation file that it was made for.

Both files are checked to the last field, because a wrong id or mask would not fail: it would give a lower AP. The
annotations are held as they are; the results may be much larger and are read in pieces, keeping of each what is
compared.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from pycocotools import mask as coco_mask
from rlemasklib import RLEMask

from sambench.datasets import checks, federated
from sambench.datasets.annotations import Instance, draw, read
from sambench.errors import InputError
from sambench.evaluate.average_precision import BBOX, SEGM, Evaluator
from sambench.evaluate.rules import COCO, LVIS, Rules

IOU_TYPES = (SEGM, BBOX)

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


def score(
    truth: Path, results: Path, iou_type: str = "", *, class_agnostic: bool = False, max_dets: int | None = None
) -> dict[str, Any]:
    """All statistics of the format's own evaluator as fractions, unrounded, and what they were made from.

    iou_type: SEGM or BBOX; when empty, masks if the first result has one. max_dets: instead of the format's own
    limit, most detections that are looked at. `over_max_dets` in the answer: images with more objects than that, of
    which some cannot be found.
    A file is LVIS where its images have `neg_category_ids`, else COCO.

    Raises InputError for anything wrong with either file.
    """
    if iou_type not in ("", *IOU_TYPES):
        raise InputError("--iou-type", expected=" or ".join(IOU_TYPES), found=iou_type)
    if not iou_type:
        first = next(_entries(results), None)
        iou_type = SEGM if isinstance(first, dict) and "segmentation" in first else BBOX
    reference = read_truth(truth, iou_type)
    if max_dets is not None:
        if max_dets < 1:
            raise InputError("--max-dets", expected="a whole number from 1", found=max_dets)
        limits = (*(limit for limit in reference.rules.limits[:-1] if limit < max_dets), max_dets)
        reference = replace(reference, rules=replace(reference.rules, limits=limits))
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
        "max_dets": reference.rules.limits[-1],
        "over_max_dets": _over_limit(reference, class_agnostic=class_agnostic),
        "images": len(reference.images),
        "annotations": sum(map(len, reference.annotations.values())),
        "detections": count,
    }


def _over_limit(truth: Truth, *, class_agnostic: bool) -> int:
    """How many images have more objects than detections that are looked at, per category by COCO's rules."""
    together = truth.rules.federated or class_agnostic
    over = 0
    for rows in truth.annotations.values():
        groups = Counter(None if together else row["category_id"] for row in rows if not row["iscrowd"])
        over += any(count > truth.rules.limits[-1] for count in groups.values())
    return over


def read_truth(path: Path | Sequence[Path], iou_type: str) -> Truth:
    """A COCO or LVIS annotation file with everything checked that its evaluator uses, as the index checks it.

    A missing area is that of the mask, or of the box where there is none; a missing box is that of the mask. What has
    no geometry is left out, as it is of the index.
    """
    found = read(path, "masks" if iou_type == SEGM else "boxes")
    annotations = defaultdict(list)
    for instance in found.instances:
        row = _annotation(instance, found.images[instance.image_id], iou_type)
        if row is not None:
            annotations[instance.image_id].append(row)
    return Truth(found.images, annotations, found.categories, LVIS if found.federated else COCO)


def rules_of(document: dict[str, Any]) -> Rules:
    """LVIS for an annotation file whose images have fields that only LVIS has, else COCO."""
    return LVIS if federated.is_federated(document["images"]) else COCO


def _annotation(instance: Instance, image: dict[str, Any], iou_type: str) -> dict[str, Any] | None:
    """What is compared of an annotation; None where there is nothing."""
    segmentation, box, area = instance.segmentation, instance.box, instance.area
    rle = None
    if segmentation is not None and (area is None or (iou_type == BBOX and box is None)):
        rle = draw(segmentation, image["height"], image["width"])
    if iou_type == BBOX and box is None:
        box = None if rle is None else coco_mask.toBbox(rle).tolist()
    if (box if iou_type == BBOX else segmentation) is None:
        return None
    if area is None:
        area = box[2] * box[3] if rle is None else float(coco_mask.area(rle))  # type: ignore[index]
    kept = {
        "id": instance.annotation_id,
        "category_id": instance.category_id,
        "area": area,
        "iscrowd": int(instance.iscrowd),
    }
    if iou_type == BBOX:
        return kept | {"bbox": box}
    if isinstance(segmentation, list):
        return kept | {"segmentation": [polygon.tolist() for polygon in segmentation]}
    return kept | {"segmentation": segmentation}


def read_results(path: Path, iou_type: str, truth: Truth, truth_path: Path) -> dict[int, list[Detection]]:
    """The checked results by image_id, in the order of the file."""
    found: dict[int, list[Detection]] = {image_id: [] for image_id in truth.images}
    for image_id, detection in checked_results(path, iou_type, truth, truth_path):
        found[image_id].append(detection)
    return found


def checked_results(path: Path, iou_type: str, truth: Truth, truth_path: Path) -> Iterator[tuple[int, Detection]]:
    """The results with their image_id, in the order of the file, each checked when its turn comes."""
    categories = {category["id"] for category in truth.categories}
    sizes: dict[int, list[Any]] = {
        image_id: [image.get("height"), image.get("width")] for image_id, image in truth.images.items()
    }
    shape = _mask if iou_type == SEGM else _box
    for i, entry in enumerate(_entries(path)):
        if type(entry) is not dict:
            raise _refusal(path, f"[{i}]", "an object", entry, _REMEDY)
        image_id, category = _whole(entry.get("image_id")), _whole(entry.get("category_id"))
        confidence: Any = entry.get("score")
        if type(image_id) is not int or image_id not in sizes:
            expected, remedy = f"an image id of {truth_path.name}", "score against the file the results were made for"
            raise _refusal(path, f"[{i}].image_id", expected, image_id, remedy)
        if type(category) is not int or category not in categories:
            expected, remedy = f"a category id of {truth_path.name}", "translate the detector's classes to its ids"
            raise _refusal(path, f"[{i}].category_id", expected, category, remedy)
        if not checks.is_number(confidence):
            raise _refusal(path, f"[{i}].score", "a finite number", confidence, "add the confidence of the detection")
        yield image_id, (category, confidence, shape(entry, sizes[image_id], path, i))


def _whole(value: Any) -> Any:
    """A whole number that is written as a float, as an integer; anything else as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


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
        with path.open("rb") as binary:
            packed = binary.read(2) == b"\x1f\x8b"
        # A byte order mark is none of the text.
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            text = file.read(_PIECE).lstrip()
            if not text.startswith("["):
                raise _refusal(path, "", "a list of results", text or None, _REMEDY)
            text, at, number = text[1:].lstrip(), 0, 0
            if text.startswith("]"):
                _refuse_rest(path, text[1:], file)
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
                    _refuse_rest(path, text[delimiter.end() :], file)
                    return
                at, number = delimiter.end(), number + 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise checks.refusal(path, "", "a whole gzip file", str(error), "fetch or compress it again") from None
    except OSError as error:
        raise checks.refusal(path, "", "a readable file", str(error.strerror), _REMEDY) from None
    except UnicodeDecodeError as error:
        raise checks.refusal(path, "", "JSON", str(error), _REMEDY) from None


def _refuse_rest(path: Path, text: str, file: IO[str]) -> None:
    """Raise InputError where something stands after the list: half of two files, or a text that was cut and joined."""
    while text or (text := file.read(_PIECE)):
        if rest := text.strip():
            raise checks.refusal(path, "", "one list", f"{checks.show(rest[:40])} after it", "write the file again")
        text = ""


def _refusal(path: Path, field: str, expected: str, found: Any, remedy: str) -> InputError:
    return checks.refusal(path, field, expected, checks.show(found), remedy)
