"""The fields of COCO-format annotations: each check gives the value back or refuses it in one line.

Shared by the index of a dataset and by `sambench score`. `path` is the file and `field` the place in it that a refusal
names. All raise InputError.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import rlemasklib

from sambench.errors import InputError

# pycocotools keeps pixel indices in 32 bits and walks a polygon's outline in fifths of a pixel, unchecked:
# larger values do not fail there, they corrupt memory.
SIDE_LIMIT = 65_535
COORDINATE_LIMIT = 100_000


def read_annotations(path: Path) -> dict[str, Any]:
    """The parsed file; its lists `images` and `annotations` hold nothing but objects."""
    remedy = "give an annotation file in the COCO format"
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise refusal(path, "", "a readable file", str(error.strerror), remedy) from None
    except (ValueError, RecursionError) as error:
        raise refusal(path, "", "JSON", str(error), remedy) from None
    if not isinstance(document, dict):
        raise refusal(path, "", "a JSON object", f"a {type(document).__name__}", remedy)
    for name in ("images", "annotations"):
        entries = document.get(name)
        if not isinstance(entries, list):
            raise refusal(path, name, "a list", show(entries), remedy)
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise refusal(path, f"{name}[{i}]", "an object", show(entry), remedy)
    return document


def check_ids(rows: list[dict[str, Any]], pictures: Container[int], path: Path) -> None:
    seen: set[int] = set()
    for i, row in enumerate(rows):
        field = f"annotations[{i}]"
        annotation_id = integer(row, "id", path, field)
        if annotation_id in seen:
            raise repeated(path, field, annotation_id)
        seen.add(annotation_id)
        image_id = integer(row, "image_id", path, field)
        if image_id not in pictures:
            remedy = "add the image or remove its annotations"
            raise refusal(path, f"{field}.image_id", "an id listed under `images`", str(image_id), remedy)


def category_ids(document: dict[str, Any], path: Path) -> set[int] | None:
    """The ids of the listed categories; None when the file lists none."""
    entries = document.get("categories")
    if not entries:
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise refusal(path, "categories", "a list of objects", show(entries), "list them or leave it out")
    return {integer(entry, "id", path, f"categories[{i}]") for i, entry in enumerate(entries)}


def polygon(numbers: Any, path: Path, field: str) -> np.ndarray:
    """x0, y0, x1, y1, ... of one polygon -> (2 * corners,) float64."""
    remedy = "correct it or remove the polygon"
    try:
        polygon = np.asarray(numbers)
    except ValueError:  # lists of unequal lengths
        polygon = np.empty(0)
    if polygon.ndim != 1 or polygon.size < 6 or polygon.size % 2 or polygon.dtype.kind not in "iuf":
        expected = "x0, y0, x1, y1, ...: an even count of at least 6 numbers"
        found = f"{len(numbers)} in {show(numbers)}" if isinstance(numbers, list) else show(numbers)
        raise refusal(path, field, expected, found, remedy)
    if not (np.abs(polygon) <= COORDINATE_LIMIT).all():  # NaN compares false
        expected = f"pixels, finite and within {COORDINATE_LIMIT}"
        worst = next(number for number in numbers if not abs(number) <= COORDINATE_LIMIT)
        raise refusal(path, field, expected, str(worst), remedy)
    return polygon.astype(np.float64)


def run_lengths(rle: dict[str, Any], height: int, width: int, path: Path, field: str) -> dict[str, Any]:
    """A checked RLE; its counts are bytes when compressed and a list of integers when not."""
    size, counts = [height, width], rle.get("counts")
    if rle.get("size") != size:
        expected, remedy = f"[height, width] of the image, {size}", "encode the mask at the size of its image"
        raise refusal(path, f"{field}.size", expected, show(rle.get("size")), remedy)
    pixels = height * width
    found = show(counts)
    if isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        if sum(counts) == pixels:
            return {"size": size, "counts": counts}
        found = f"a sum of {sum(counts)}"
    elif isinstance(counts, str):
        try:  # rlemasklib checks the sum; compressed anew, no stray character reaches pycocotools
            return rlemasklib.compress(rlemasklib.decompress({"size": size, "counts": counts.encode()}))
        except ValueError:
            pass
    expected = f"runs that sum to height * width = {pixels}"
    raise refusal(path, f"{field}.counts", expected, found, "encode the mask again")


def integer(
    entry: dict[str, Any], name: str, path: Path, field: str, low: int = -(2**63), high: int = 2**63 - 1
) -> int:
    value = entry.get(name)
    if type(value) is not int or not low <= value <= high:
        expected = f"an integer from {low} to {high}" if low > 0 else "an integer of 64 bits"
        raise refusal(path, f"{field}.{name}", expected, show(value), "add or correct it")
    return value


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) >= 0


def repeated(path: Path, field: str, found: int) -> InputError:
    remedy = "remove the repetition, or give it an id of its own"
    return refusal(path, f"{field}.id", "an id that no entry before it has", f"{found} again", remedy)


def refusal(path: str | Path, field: str, expected: str, found: str, remedy: str) -> InputError:
    return InputError(path, field, expected=expected, found=found, remedy=remedy)


def show(value: Any) -> str:
    """A value of the file, on one short line."""
    return "none" if value is None else reprlib.repr(value)
