"""Any COCO-format dataset as two tables: its images, and its instances with their masks as compressed RLE.

Everything that can be wrong with an annotation file is found here, in passes over its fields that come before
the first mask is drawn, and is told in one line. LVIS files are COCO files here: their images are found by
`coco_url`, and what only their evaluator needs (`neg_category_ids` and the like) is left alone.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rlemasklib
from PIL import ExifTags, Image, ImageOps
from pycocotools import mask as coco_mask

from sambench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

# What `Index.counts` reports, always all of it. The first three are instances left out.
SKIPPED_AREA = "skipped_area_below_1"
SKIPPED_SEGMENTATION = "skipped_empty_segmentation"
SKIPPED_MASK = "skipped_empty_mask"
COMPUTED_AREA = "area_computed_from_mask"
COMPUTED_BOX = "box_computed_from_mask"
REASONS = (SKIPPED_AREA, SKIPPED_SEGMENTATION, SKIPPED_MASK, COMPUTED_AREA, COMPUTED_BOX)

# pycocotools keeps pixel indices in 32 bits and walks a polygon's outline in fifths of a pixel, unchecked:
# larger values do not fail there, they corrupt memory.
_SIDE_LIMIT = 65_535
_COORDINATE_LIMIT = 100_000


@dataclass(frozen=True)
class Index:
    """A dataset, ready for prompts.

    images: image_id int64, path str, width and height int32; sorted by image_id.
    instances: annotation_id, image_id, category_id int64; x, y, w, h float64, the annotation box in pixels;
        area float64; iscrowd bool; rle_size [H, W]; rle_counts bytes; sorted by image_id, then annotation_id.
    counts: how many instances were skipped or completed, by reason (REASONS).
    """

    images: pd.DataFrame
    instances: pd.DataFrame
    counts: dict[str, int]


class _Image(NamedTuple):
    image_id: int
    path: str
    width: int
    height: int


class _Instance(NamedTuple):
    """A checked annotation, its mask still as the file has it; box and area are None where it has none."""

    image_id: int
    annotation_id: int
    category_id: int
    box: list[float] | None
    area: float | None
    iscrowd: bool
    segmentation: list[np.ndarray] | dict[str, Any]


def index(annotations: Path, images: Path, *, image_limit: int | None = None) -> Index:
    """Read the annotation file `annotations` of the image folder `images`.

    image_limit: keep only the first so many images by id that have an annotation.

    Raises InputError for whatever is not as the COCO format has it, and for images that the folder lacks.
    """
    document = _read(annotations)
    pictures = _images(document["images"], annotations, images)
    rows = document["annotations"]
    _check_ids(rows, pictures, annotations)
    if image_limit is not None:
        annotated = sorted({row["image_id"] for row in rows})[:image_limit]
        pictures = {image_id: pictures[image_id] for image_id in annotated}
    _check_files(pictures.values(), annotations, images)

    categories = _categories(document, annotations)
    counts: Counter[str] = Counter()
    checked = [
        instance
        for i, row in enumerate(rows)
        if (picture := pictures.get(row["image_id"]))
        and (instance := _instance(row, picture, categories, counts, annotations, f"annotations[{i}]"))
    ]
    checked.sort(key=lambda instance: (instance.image_id, instance.annotation_id))
    drawn = [row for instance in checked if (row := _draw(instance, pictures[instance.image_id], counts))]
    if not drawn:
        expected = "at least one instance with a mask"
        raise _refusal(annotations, "annotations", expected, f"none in {len(rows)}", "add segmentations")

    import pandas as pd  # takes longer than all else does for a command that wants the checks only

    return Index(
        images=pd.DataFrame(sorted(pictures.values()), columns=list(_Image._fields)).astype(
            {"image_id": "int64", "width": "int32", "height": "int32"}
        ),
        instances=pd.DataFrame(drawn),
        counts={reason: counts[reason] for reason in REASONS},
    )


def read_image(path: str | Path, width: int, height: int) -> np.ndarray:
    """An image file of any colour mode -> (height, width, 3) uint8 RGB, without alpha and lower bits of 16.

    Annotations are in the frame of the stored pixels, so an EXIF rotation is applied only where the rotated
    size is the one that the dataset states and the stored size is not.

    Raises InputError for a file that is missing, broken or of another size.
    """
    stated = (width, height)
    try:
        with Image.open(path) as picture:
            stored = picture.size
            if stored == stated:
                return _rgb(picture)
            # Orientations 5 to 8 exchange width and height.
            if stored == stated[::-1] and picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
                return _rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow's decoders raise a dozen types on broken files, and no base class
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refusal(path, "", "a readable image", found, "fetch the file again") from error
    raise _refusal(
        path,
        "size",
        f"{width}x{height} as in the annotations",
        f"{stored[0]}x{stored[1]}",
        "use the images that the annotations were made on",
    )


def _rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I;16"):  # Pillow's own conversion may clip at 255
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {picture.mode})")
    if picture.mode == "P":  # by way of RGBA, or Pillow warns about transparent palettes
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def _read(path: Path) -> dict[str, Any]:
    """The parsed file; its lists `images` and `annotations` hold nothing but objects."""
    remedy = "give an annotation file in the COCO format"
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise _refusal(path, "", "a readable file", str(error.strerror), remedy) from None
    except (ValueError, RecursionError) as error:
        raise _refusal(path, "", "JSON", str(error), remedy) from None
    if not isinstance(document, dict):
        raise _refusal(path, "", "a JSON object", f"a {type(document).__name__}", remedy)
    for name in ("images", "annotations"):
        entries = document.get(name)
        if not isinstance(entries, list):
            raise _refusal(path, name, "a list", _show(entries), remedy)
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise _refusal(path, f"{name}[{i}]", "an object", _show(entry), remedy)
    return document


def _images(entries: list[dict[str, Any]], path: Path, folder: Path) -> dict[int, _Image]:
    found: dict[int, _Image] = {}
    for i, entry in enumerate(entries):
        field = f"images[{i}]"
        image_id = _integer(entry, "id", path, field)
        if image_id in found:
            raise _repeated(path, field, image_id)
        name = entry.get("file_name")
        if name is None and isinstance(url := entry.get("coco_url"), str):
            name = "/".join(url.split("/")[-2:])  # LVIS v1: .../val2017/000000000139.jpg
        if not isinstance(name, str) or not name:
            remedy = "add file_name, or coco_url as LVIS has it"
            raise _refusal(path, f"{field}.file_name", "the name of an image file", _show(name), remedy)
        width = _integer(entry, "width", path, field, low=1, high=_SIDE_LIMIT)
        height = _integer(entry, "height", path, field, low=1, high=_SIDE_LIMIT)
        found[image_id] = _Image(image_id, str(folder / name), width, height)
    return found


def _check_ids(rows: list[dict[str, Any]], pictures: dict[int, _Image], path: Path) -> None:
    seen: set[int] = set()
    for i, row in enumerate(rows):
        field = f"annotations[{i}]"
        annotation_id = _integer(row, "id", path, field)
        if annotation_id in seen:
            raise _repeated(path, field, annotation_id)
        seen.add(annotation_id)
        image_id = _integer(row, "image_id", path, field)
        if image_id not in pictures:
            remedy = "add the image or remove its annotations"
            raise _refusal(path, f"{field}.image_id", "an id listed under `images`", str(image_id), remedy)


def _categories(document: dict[str, Any], path: Path) -> set[int] | None:
    """The ids of the listed categories; None when the file lists none."""
    entries = document.get("categories")
    if not entries:
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _refusal(path, "categories", "a list of objects", _show(entries), "list them or leave it out")
    return {_integer(entry, "id", path, f"categories[{i}]") for i, entry in enumerate(entries)}


def _check_files(pictures: Collection[_Image], path: Path, folder: Path) -> None:
    missing = [picture.path for picture in sorted(pictures) if not Path(picture.path).is_file()]
    if missing:
        names = ", ".join([Path(name).name for name in missing[:3]] + ["..."] * (len(missing) > 3))
        expected = f"the {len(pictures)} images of {path.name}"
        remedy = "fetch them, or name the folder that file_name is relative to"
        raise _refusal(folder, "", expected, f"{len(missing)} missing: {names}", remedy)


def _instance(
    row: dict[str, Any],
    picture: _Image,
    categories: set[int] | None,
    counts: Counter[str],
    path: Path,
    field: str,
) -> _Instance | None:
    """One annotation with every field checked; None, and counted, for one that the protocol leaves out."""
    category = _integer(row, "category_id", path, field)
    if categories is not None and category not in categories:
        remedy = "add the category or correct the id"
        raise _refusal(path, f"{field}.category_id", "an id listed under `categories`", str(category), remedy)
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _refusal(path, f"{field}.iscrowd", "0 or 1", _show(crowd), "correct it, or leave it out for 0")
    box, area, remedy = row.get("bbox"), row.get("area"), "correct it, or leave it out for the mask's own"
    if box is not None and not _is_box(box):
        expected = "x, y, width, height: 4 finite numbers, no negative size"
        raise _refusal(path, f"{field}.bbox", expected, _show(box), remedy)
    if area is not None and not (_is_number(area) and area >= 0):
        expected = "a finite number of pixels, not negative"
        raise _refusal(path, f"{field}.area", expected, _show(area), remedy)
    if area is not None and area < 1:
        counts[SKIPPED_AREA] += 1
        return None
    segmentation = row.get("segmentation")
    if not segmentation:
        counts[SKIPPED_SEGMENTATION] += 1
        return None
    checked: list[np.ndarray] | dict[str, Any]
    field += ".segmentation"
    if isinstance(segmentation, dict):
        checked = _run_lengths(segmentation, picture, path, field)
    elif isinstance(segmentation, list):
        checked = [_polygon(numbers, path, f"{field}[{k}]") for k, numbers in enumerate(segmentation)]
    else:
        expected = "a list of polygons or an RLE object"
        raise _refusal(path, field, expected, _show(segmentation), "use one of COCO's three encodings")
    return _Instance(row["image_id"], row["id"], category, box, area, bool(crowd), checked)


def _polygon(numbers: Any, path: Path, field: str) -> np.ndarray:
    """x0, y0, x1, y1, ... of one polygon -> (2 * corners,) float64."""
    remedy = "correct it or remove the polygon"
    try:
        polygon = np.asarray(numbers)
    except ValueError:  # lists of unequal lengths
        polygon = np.empty(0)
    if polygon.ndim != 1 or polygon.size < 6 or polygon.size % 2 or polygon.dtype.kind not in "iuf":
        expected = "x0, y0, x1, y1, ...: an even count of at least 6 numbers"
        found = f"{len(numbers)} in {_show(numbers)}" if isinstance(numbers, list) else _show(numbers)
        raise _refusal(path, field, expected, found, remedy)
    if not (np.abs(polygon) <= _COORDINATE_LIMIT).all():  # NaN compares false
        expected = f"pixels, finite and within {_COORDINATE_LIMIT}"
        worst = next(number for number in numbers if not abs(number) <= _COORDINATE_LIMIT)
        raise _refusal(path, field, expected, str(worst), remedy)
    return polygon.astype(np.float64)


def _run_lengths(rle: dict[str, Any], picture: _Image, path: Path, field: str) -> dict[str, Any]:
    """A checked RLE; its counts are bytes when compressed and a list of integers when not."""
    size, counts = [picture.height, picture.width], rle.get("counts")
    if rle.get("size") != size:
        expected, remedy = f"[height, width] of the image, {size}", "encode the mask at the size of its image"
        raise _refusal(path, f"{field}.size", expected, _show(rle.get("size")), remedy)
    pixels = picture.height * picture.width
    found = _show(counts)
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
    raise _refusal(path, f"{field}.counts", expected, found, "encode the mask again")


def _draw(instance: _Instance, picture: _Image, counts: Counter[str]) -> dict[str, Any] | None:
    """The row of an instance, its mask drawn by pycocotools like everybody's; None when no pixel is in it."""
    segmentation, size = instance.segmentation, (picture.height, picture.width)
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, *size)
    else:
        rle = segmentation
    # One mask at a time: the areas of more than 255 masks in one call overflow under NumPy 2.
    pixels = int(coco_mask.area(rle))
    if not pixels:
        counts[SKIPPED_MASK] += 1
        return None
    counts[COMPUTED_AREA] += instance.area is None
    counts[COMPUTED_BOX] += instance.box is None
    box = coco_mask.toBbox(rle) if instance.box is None else instance.box
    return {
        "annotation_id": instance.annotation_id,
        "image_id": instance.image_id,
        "category_id": instance.category_id,
        **{name: float(value) for name, value in zip("xywh", box, strict=True)},
        "area": float(pixels if instance.area is None else instance.area),
        "iscrowd": instance.iscrowd,
        "rle_size": list(size),
        "rle_counts": rle["counts"],
    }


def _integer(
    entry: dict[str, Any], name: str, path: Path, field: str, low: int = -(2**63), high: int = 2**63 - 1
) -> int:
    value = entry.get(name)
    if type(value) is not int or not low <= value <= high:
        expected = f"an integer from {low} to {high}" if low > 0 else "an integer of 64 bits"
        raise _refusal(path, f"{field}.{name}", expected, _show(value), "add or correct it")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and min(box[2:]) >= 0


def _repeated(path: Path, field: str, found: int) -> InputError:
    remedy = "remove the repetition, or give it an id of its own"
    return _refusal(path, f"{field}.id", "an id that no entry before it has", f"{found} again", remedy)


def _refusal(path: str | Path, field: str, expected: str, found: str, remedy: str) -> InputError:
    return InputError(path, field, expected=expected, found=found, remedy=remedy)


def _show(value: Any) -> str:
    """A value of the file, on one short line."""
    return "none" if value is None else reprlib.repr(value)
