"""Any COCO-format dataset as two tables: its images, and its instances with their masks as compressed RLE.

Everything that can be wrong with an annotation file is found here, in passes over its fields that come before
the first mask is drawn, and is told in one line. LVIS files are COCO files here: their images are found by
`coco_url` and carry the categories that are judged there, their instances carry the frequency of the category, and
what else only their evaluator needs is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps
from pycocotools import mask as coco_mask

from sambench.datasets import checks, federated

if TYPE_CHECKING:
    import pandas as pd

# What `Index.counts` reports, always all of it. The first three are instances left out.
SKIPPED_AREA = "skipped_area_below_1"
SKIPPED_SEGMENTATION = "skipped_empty_segmentation"
SKIPPED_MASK = "skipped_empty_mask"
COMPUTED_AREA = "area_computed_from_mask"
COMPUTED_BOX = "box_computed_from_mask"
REASONS = (SKIPPED_AREA, SKIPPED_SEGMENTATION, SKIPPED_MASK, COMPUTED_AREA, COMPUTED_BOX)


@dataclass(frozen=True)
class Index:
    """A dataset, ready for prompts.

    images: image_id int64, path str, width and height int32, judged_category_ids, for LVIS the categories that it
        judges in the image, else None; sorted by image_id.
    instances: annotation_id, image_id, category_id int64; x, y, w, h float64, the annotation box in pixels;
        area float64; iscrowd bool; rle_size [H, W]; rle_counts bytes; frequency, LVIS's r, c or f of the category,
        else None; sorted by image_id, then annotation_id.
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
    document = checks.read_annotations(annotations)
    pictures = _images(document["images"], annotations, images)
    rows = document["annotations"]
    checks.check_ids(rows, pictures, annotations)
    if image_limit is not None:
        annotated = sorted({row["image_id"] for row in rows})[:image_limit]
        pictures = {image_id: pictures[image_id] for image_id in annotated}
    _check_files(pictures.values(), annotations, images)

    categories = checks.category_ids(document, annotations)
    frequencies = _frequencies(document.get("categories") or [], annotations)
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
        raise checks.refusal(annotations, "annotations", expected, f"none in {len(rows)}", "add segmentations")

    judged = _judged_categories(document, pictures)
    import pandas as pd  # takes longer than all else does for a command that wants the checks only

    return Index(
        images=pd.DataFrame(sorted(pictures.values()), columns=list(_Image._fields))
        .astype({"image_id": "int64", "width": "int32", "height": "int32"})
        .assign(judged_category_ids=[judged.get(image_id) for image_id in sorted(pictures)]),
        instances=pd.DataFrame(drawn).assign(frequency=[frequencies.get(row["category_id"]) for row in drawn]),
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
        raise checks.refusal(path, "", "a readable image", found, "fetch the file again") from error
    raise checks.refusal(
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


def _images(entries: list[dict[str, Any]], path: Path, folder: Path) -> dict[int, _Image]:
    found: dict[int, _Image] = {}
    for i, entry in enumerate(entries):
        field = f"images[{i}]"
        image_id = checks.integer(entry, "id", path, field)
        if image_id in found:
            raise checks.repeated(path, field, image_id)
        name = entry.get("file_name")
        if name is None and isinstance(url := entry.get("coco_url"), str):
            name = "/".join(url.split("/")[-2:])  # LVIS v1: .../val2017/000000000139.jpg
        if not isinstance(name, str) or not name:
            remedy = "add file_name, or coco_url as LVIS has it"
            raise checks.refusal(path, f"{field}.file_name", "the name of an image file", checks.show(name), remedy)
        width = checks.integer(entry, "width", path, field, low=1, high=checks.SIDE_LIMIT)
        height = checks.integer(entry, "height", path, field, low=1, high=checks.SIDE_LIMIT)
        found[image_id] = _Image(image_id, str(folder / name), width, height)
    return found


def _judged_categories(document: dict[str, Any], pictures: Collection[int]) -> dict[int, list[int]]:
    """The categories that LVIS judges, by image, also those of annotations that become no instance.

    Empty for other formats, and where an image does not say which categories it lacks: only the evaluator minds, and
    refuses the file.
    """
    images = [image for image in document["images"] if image["id"] in pictures]
    if not federated.is_federated(images) or not all(map(federated.says_what_is_absent, images)):
        return {}
    present: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in pictures}
    for row in document["annotations"]:
        if row["image_id"] in present:
            area = row.get("area")
            present[row["image_id"]].append({"category_id": row["category_id"], "area": 1 if area is None else area})
    return {image["id"]: sorted(federated.known_categories(image, present[image["id"]])) for image in images}


def _frequencies(categories: list[dict[str, Any]], path: Path) -> dict[int, str | None]:
    """How frequent LVIS calls each category, by id; None in other formats."""
    for i, category in enumerate(categories):
        if category.get("frequency") not in (None, "r", "c", "f"):
            found, remedy = checks.show(category["frequency"]), "correct it, or leave it out"
            raise checks.refusal(path, f"categories[{i}].frequency", "r, c or f", found, remedy)
    return {category["id"]: category.get("frequency") for category in categories}


def _check_files(pictures: Collection[_Image], path: Path, folder: Path) -> None:
    missing = [picture.path for picture in sorted(pictures) if not Path(picture.path).is_file()]
    if missing:
        names = ", ".join([Path(name).name for name in missing[:3]] + ["..."] * (len(missing) > 3))
        expected = f"the {len(pictures)} images of {path.name}"
        remedy = "fetch them, or name the folder that file_name is relative to"
        raise checks.refusal(folder, "", expected, f"{len(missing)} missing: {names}", remedy)


def _instance(
    row: dict[str, Any],
    picture: _Image,
    categories: set[int] | None,
    counts: Counter[str],
    path: Path,
    field: str,
) -> _Instance | None:
    """One annotation with every field checked; None, and counted, for one that the protocol leaves out."""
    category = checks.integer(row, "category_id", path, field)
    if categories is not None and category not in categories:
        remedy = "add the category or correct the id"
        raise checks.refusal(path, f"{field}.category_id", "an id listed under `categories`", str(category), remedy)
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        remedy = "correct it, or leave it out for 0"
        raise checks.refusal(path, f"{field}.iscrowd", "0 or 1", checks.show(crowd), remedy)
    box, area, remedy = row.get("bbox"), row.get("area"), "correct it, or leave it out for the mask's own"
    if box is not None and not checks.is_box(box):
        expected = "x, y, width, height: 4 finite numbers, no negative size"
        raise checks.refusal(path, f"{field}.bbox", expected, checks.show(box), remedy)
    if area is not None and not (checks.is_number(area) and area >= 0):
        expected = "a finite number of pixels, not negative"
        raise checks.refusal(path, f"{field}.area", expected, checks.show(area), remedy)
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
        checked = checks.run_lengths(segmentation, picture.height, picture.width, path, field)
    elif isinstance(segmentation, list):
        checked = [checks.polygon(numbers, path, f"{field}[{k}]") for k, numbers in enumerate(segmentation)]
    else:
        expected = "a list of polygons or an RLE object"
        raise checks.refusal(path, field, expected, checks.show(segmentation), "use one of COCO's three encodings")
    return _Instance(row["image_id"], row["id"], category, box, area, bool(crowd), checked)


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
