"""The one reader of COCO-format annotation files: index, detectors, average precision and `sambench score` take what it
gives, so that what one of them accepts the others accept too.

Reading has three steps: the file is parsed, what only looks different is put right (whole numbers written as floats,
nulls, a root category), and then every field is checked. LVIS files are COCO files with fields of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from sambench.datasets import checks, federated
from sambench.datasets.faults import Faults
from sambench.datasets.merging import merge
from sambench.datasets.pictures import PIXEL_LIMIT
from sambench.errors import InputError

# What is checked of an annotation: its ids only, what an AP of boxes needs, or everything, as the index does.
Geometry = Literal["none", "boxes", "masks"]

FREQUENCIES = ("r", "c", "f")  # of categories, in LVIS
DEGENERATE = "degenerate_parts_left_out"


class Instance(NamedTuple):
    """A checked annotation. box: x, y, width, height. box and area are None where the file has none that counts.

    segmentation: polygons, each (2 * corners,) float64, or an RLE; None where there is none.
    """

    annotation_id: int
    image_id: int
    category_id: int
    box: list[float] | None
    area: float | None
    iscrowd: bool
    segmentation: list[np.ndarray] | dict[str, Any] | None


@dataclass(frozen=True)
class Annotations:
    """A checked annotation file.

    images: its entries by id, in the order of the file. instances: in the order of the file. categories: its entries;
    where it lists none, one per id that an annotation has. federated: whether it is LVIS. counts: what was left out.
    total: annotations in the file.
    """

    images: dict[int, dict[str, Any]]
    instances: list[Instance]
    categories: list[dict[str, Any]]
    federated: bool
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0


def read(path: Path | Sequence[Path], geometry: Geometry = "masks", faults: Faults | None = None) -> Annotations:
    """Read and check an annotation file, or several as one (merging.py).

    faults: takes in what is wrong with single annotations, for the caller to report; without it `read` reports it.

    Raises InputError for anything that does not follow the COCO format.
    """
    own = faults or Faults()
    paths = [path] if isinstance(path, Path) else list(path)
    documents = [(each, checks.read_annotations(each)) for each in paths]
    found = [_checked(each, document, geometry, own) for each, document in documents]
    if faults is None:
        own.stop({"annotations": sum(each.total for each in found)})
    if len(found) == 1:
        return found[0]
    own.stop({"annotations": sum(each.total for each in found)})
    merged = _checked(paths[0], merge(documents), geometry, own)
    return replace(merged, counts=sum((each.counts for each in found), Counter()))


def read_document(path: Path | Sequence[Path], *, segmentations: bool = True) -> dict[str, Any]:
    """An annotation file, or several as one, parsed; of several the ids are checked too.

    segmentations: else they are left out.
    """
    if isinstance(path, Path) or len(path) == 1:
        one = path if isinstance(path, Path) else path[0]
        return checks.read_annotations(one, segmentations=segmentations)
    documents = [(each, checks.read_annotations(each, segmentations=segmentations)) for each in path]
    own = Faults()
    for each, document in documents:
        _checked(each, document, "none", own)
    own.stop({"annotations": sum(len(document["annotations"]) for _, document in documents)})
    return merge(documents)


def _checked(path: Path, document: dict[str, Any], geometry: Geometry, own: Faults) -> Annotations:
    """A parsed file, checked; faults of its annotations are in `own`."""
    images = _images(document, path, geometry, own)
    own.stop({"images": len(document["images"])})
    lvis = federated.is_federated(document["images"])
    categories = _categories(document, path, lvis)
    counts: Counter[str] = Counter()
    instances = _instances(document, images, {category["id"] for category in categories}, path, geometry, own, counts)
    return Annotations(images, instances, categories, lvis, counts, len(document["annotations"]))


def draw(segmentation: list[np.ndarray] | dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """A checked segmentation -> compressed RLE, drawn by pycocotools like everybody's."""
    rle: dict[str, Any]
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return rle


def _images(document: dict[str, Any], path: Path, geometry: Geometry, faults: Faults) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    lvis = federated.is_federated(document["images"])
    for i, entry in enumerate(document["images"]):
        place = f"images[{i}]"
        with faults.collected("images"):
            image_id = checks.integer(entry, "id", path, place)
            if image_id in found:
                raise checks.repeated(path, place, image_id)
            found[image_id] = entry
            if geometry == "masks":
                check_size(entry, path, place)
            for name in federated.FIELDS if lvis else ():
                ids = entry.get(name)
                if not isinstance(ids, list) or not all(type(each) is int for each in ids):
                    remedy = "take the complete LVIS file"
                    raise checks.refusal(path, f"{place}.{name}", "a list of category ids", checks.show(ids), remedy)
    return found


def check_size(entry: dict[str, Any], path: Path, place: str) -> tuple[int, int]:
    """Height and width of an image's entry."""
    width = checks.integer(entry, "width", path, place, low=1, high=checks.SIDE_LIMIT)
    height = checks.integer(entry, "height", path, place, low=1, high=checks.SIDE_LIMIT)
    if width * height > PIXEL_LIMIT:
        remedy = "cut the image and its annotations into tiles"
        raise checks.refusal(path, place, f"at most {PIXEL_LIMIT:,} pixels", f"{width}x{height}", remedy)
    return height, width


def _categories(document: dict[str, Any], path: Path, lvis: bool) -> list[dict[str, Any]]:
    categories: list[dict[str, Any]] = document["categories"]
    if not categories:
        used = [row.get("category_id") for row in document["annotations"]]
        return [{"id": each} for each in sorted({each for each in used if type(each) is int and each >= 0})]
    ids = checks.category_ids(document, path) or set()
    if len(ids) < len(categories):
        found = f"{len(categories) - len(ids)} repeated"
        raise checks.refusal(path, "categories", "ids that differ", found, "remove the repetition")
    # All of them or none: AP by frequency would be of a part.
    complete = lvis and any(entry.get("frequency") is not None for entry in categories)
    for i, entry in enumerate(categories):
        frequency = entry.get("frequency")
        if frequency not in FREQUENCIES and (complete or frequency is not None):
            remedy = "take the complete LVIS file" if complete else "correct it, or leave it out"
            place = f"categories[{i}].frequency"
            raise checks.refusal(path, place, "r, c or f", checks.show(frequency), remedy)
    return categories


def _instances(
    document: dict[str, Any],
    images: dict[int, dict[str, Any]],
    categories: set[int],
    path: Path,
    geometry: Geometry,
    faults: Faults,
    counts: Counter[str],
) -> list[Instance]:
    seen: set[int] = set()
    found = []
    for i, row in enumerate(document["annotations"]):
        place = f"annotations[{i}]"
        try:
            annotation_id = checks.integer(row, "id", path, place)
            if annotation_id in seen:
                raise checks.repeated(path, place, annotation_id)
            seen.add(annotation_id)
            image = images.get(checks.integer(row, "image_id", path, place))
            if image is None:
                remedy = "add the image or remove its annotations"
                absent = str(row["image_id"])
                raise checks.refusal(path, f"{place}.image_id", "an id listed under `images`", absent, remedy)
            if geometry != "none":
                found.append(_instance(row, image, categories, geometry, path, place, counts))
        except InputError as error:
            faults.add("annotations", error)
    if geometry == "masks" and found and not any(instance.segmentation for instance in found):
        for i, row in enumerate(document["annotations"]):
            if not row.get("segmentation"):
                remedy = "add it, or score boxes with --iou-type bbox"
                lacking = checks.refusal(path, f"annotations[{i}].segmentation", "polygons or an RLE", "none", remedy)
                faults.add("annotations", lacking)
    return found


def _instance(
    row: dict[str, Any],
    image: dict[str, Any],
    categories: set[int],
    geometry: Geometry,
    path: Path,
    place: str,
    counts: Counter[str],
) -> Instance:
    category = checks.integer(row, "category_id", path, place)
    if category not in categories:
        remedy = "add the category or correct the id"
        raise checks.refusal(path, f"{place}.category_id", "an id listed under `categories`", str(category), remedy)
    crowd = row.get("iscrowd")
    if crowd not in (None, 0, 1):
        remedy = "correct it, or leave it out for 0"
        raise checks.refusal(path, f"{place}.iscrowd", "0 or 1", checks.show(crowd), remedy)
    box = row.get("bbox")
    if box is not None:
        checks.box(box, path, f"{place}.bbox")
    area: Any = row.get("area")
    if area is not None and not (checks.is_number(area) and area >= 0):
        remedy = "correct it, or leave it out for the mask's own"
        expected = "a finite number of pixels, not negative"
        raise checks.refusal(path, f"{place}.area", expected, checks.show(area), remedy)
    segmentation = None
    if geometry == "masks" or box is None or not area:
        segmentation = row.get("segmentation") or None
    checked = None
    if segmentation is not None:
        if geometry == "boxes":  # where sizes need not be there otherwise
            check_size(image, path, f"images (id {image['id']})")
        try:
            checked = _mask(segmentation, image, path, f"{place}.segmentation", counts)
        except InputError:
            if area is None or not 0 < area < 1:  # the protocol leaves such out, so that its mask need not be one
                raise
    return Instance(row["id"], row["image_id"], category, box, area or None, bool(crowd), checked)


def _mask(
    segmentation: Any, image: dict[str, Any], path: Path, place: str, counts: Counter[str]
) -> list[np.ndarray] | dict[str, Any] | None:
    """None for polygons of which no part has an inside."""
    if isinstance(segmentation, dict):
        return checks.run_lengths(segmentation, image["height"], image["width"], path, place)
    if not isinstance(segmentation, list):
        expected, remedy = "a list of polygons or an RLE object", "use one of COCO's three encodings"
        raise checks.refusal(path, place, expected, checks.show(segmentation), remedy)
    parts = []
    for k, numbers in enumerate(segmentation):
        if checks.is_degenerate(numbers):
            counts[DEGENERATE] += 1
        else:
            parts.append(checks.polygon(numbers, path, f"{place}[{k}]"))
    return parts or None
