"""The fields of COCO-format annotations: each check gives the value back or refuses it in one line.

`path` is the file and `field` the place in it that a refusal names. All raise InputError.
"""

from __future__ import annotations

import gzip
import json
import reprlib
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rlemasklib

from sambench.datasets import formats
from sambench.datasets.json_stream import read_object
from sambench.errors import InputError

# pycocotools keeps pixel indices in 32 bits and walks a polygon's outline in fifths of a pixel, unchecked:
# larger values do not fail there, they corrupt memory.
SIDE_LIMIT = 65_535
COORDINATE_LIMIT = 100_000
LARGEST = sys.float_info.max
_REMEDY = "give an annotation file in the COCO format"
_WHOLE = {"images": ("id", "width", "height"), "annotations": ("id", "image_id", "category_id", "iscrowd")}


def read_annotations(path: Path, *, segmentations: bool = True) -> dict[str, Any]:
    """The file as JSON, with `images`, `annotations` and `categories` lists of objects.

    What means the same is written the same: whole numbers as integers, no `categories` as an empty list. Polygons that
    are in order are arrays, which take a quarter of the memory of lists. segmentations: else they are left out.
    """
    try:
        document = _parse(path, _with_arrays if segmentations else _without_segmentation)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refusal(path, "", "a whole gzip file", str(error), "fetch or compress it again") from None
    except OSError as error:
        named = _other_format(path) if path.is_dir() else None
        raise named or refusal(path, "", "a readable file", str(error.strerror), _REMEDY) from None
    except (ValueError, RecursionError) as error:
        raise _other_format(path) or refusal(path, "", "JSON", str(error), _REMEDY) from None
    if not isinstance(document, dict):
        named = _other_format(path, document)
        raise named or refusal(path, "", "a JSON object", f"a {type(document).__name__}", _REMEDY)
    if named := _other_format(path, document):
        raise named
    for name in ("images", "annotations"):
        entries = document.get(name)
        if not isinstance(entries, list):
            raise refusal(path, name, "a list", show(entries), _REMEDY)
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise refusal(path, f"{name}[{i}]", "an object", show(entry), _REMEDY)
            for key in _WHOLE[name]:
                if type(value := entry.get(key)) is float and value.is_integer():
                    entry[key] = int(value)
    if document.get("categories") is None:
        document["categories"] = []
    entries = document["categories"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        found = show(entries)
        raise refusal(path, "categories", "a list of objects", found, "list them or leave it out")
    for entry in entries:
        if type(value := entry.get("id")) is float and value.is_integer():
            entry["id"] = int(value)
    return document


def _parse(path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    with path.open("rb") as binary:
        packed = binary.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            return read_object(file, hook)
    except (ValueError, RecursionError):  # at once, which says what is wrong; or another encoding, or no object
        content = path.read_bytes()
        return json.loads(gzip.decompress(content) if packed else content)


def _with_arrays(entry: dict[str, Any]) -> dict[str, Any]:
    parts = entry.get("segmentation")
    if type(parts) is list:
        entry["segmentation"] = [_array(part) for part in parts]
    return entry


def _without_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _array(part: Any) -> Any:
    """A polygon that `polygon` will take as it is, as (2 * corners,) float64; anything else as it is."""
    if type(part) is not list or len(part) < 6 or len(part) % 2 or not {*map(type, part)} <= {int, float}:
        return part
    try:
        numbers = np.array(part, dtype=np.float64)
    except OverflowError:
        return part
    return numbers if (np.abs(numbers) <= COORDINATE_LIMIT).all() else part


def _other_format(path: Path, document: Any = None) -> InputError | None:
    """The refusal of annotations in a format that is known, but not COCO's."""
    found, remedy = formats.found_instead(path, document)
    return refusal(path, "", "an annotation file in the COCO format", found, remedy) if found else None


def category_ids(document: dict[str, Any], path: Path) -> set[int] | None:
    """The ids of the listed categories; None when the file lists none."""
    entries = document.get("categories")
    if not entries:
        return None
    return {integer(entry, "id", path, f"categories[{i}]") for i, entry in enumerate(entries)}


def is_degenerate(numbers: Any) -> bool:
    """Whether a part of a polygon has fewer than three corners: pycocotools and detectron2 leave such parts out."""
    return isinstance(numbers, list) and len(numbers) < 6 and all(type(number) in (int, float) for number in numbers)


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
    if isinstance(counts, list) and any(type(count) is float and count.is_integer() for count in counts):
        counts = [int(count) if type(count) is float and count.is_integer() else count for count in counts]
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


def integer(entry: dict[str, Any], name: str, path: Path, field: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """A whole number; by default an id, which nothing downstream takes below 0."""
    value = entry.get(name)
    if type(value) is not int or not low <= value <= high:
        expected = f"an integer from {low} to {high}" if low > 0 else "an integer of 64 bits"
        if type(value) is int and value < 0:
            expected += ", not negative"
        remedy = "add or correct it" + (": ids are whole numbers" if isinstance(value, str) else "")
        raise refusal(path, f"{field}.{name}", expected, show(value), remedy)
    return value


def box(value: Any, path: Path, field: str) -> list[float]:
    """x, y, width, height in pixels."""
    if not is_box(value):
        expected = "x, y, width, height: 4 finite numbers, no negative size"
        raise refusal(path, field, expected, show(value), "correct it, or leave it out for the mask's own")
    checked: list[float] = value
    return checked


def is_number(value: Any) -> bool:
    return (
        type(value) in (int, float) and -LARGEST <= value <= LARGEST
    )  # NaN compares false; whole numbers may be larger


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
