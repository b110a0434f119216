"""Any COCO-format dataset as two tables: its images, and its instances with their masks as compressed RLE.

Everything that a later stage could stumble over is found here: in the annotation file, field by field
(annotations.py), in the image files, by their headers (inspection.py), and in what does not fit together. It is told
at once, and what is left out is counted. LVIS images are found by `coco_url`, and their instances carry the frequency
of the category.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from sambench.datasets import checks, federated, inspection, plausibility
from sambench.datasets.annotations import DEGENERATE, Annotations, Instance, draw, read
from sambench.datasets.faults import Faults
from sambench.datasets.identity import identities, picture_path
from sambench.datasets.inspection import Look, Reading
from sambench.datasets.pictures import read_image
from sambench.errors import InputError
from sambench.files import is_file
from sambench.status import ALL_CROWDS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Index", "index", "read_image"]

# What `Index.counts` reports, always all of it, and its note for people.
SKIPPED_IMAGE = "skipped_bad_image"
SKIPPED_AREA = "skipped_area_below_1"
SKIPPED_SEGMENTATION = "skipped_empty_segmentation"
SKIPPED_MASK = "skipped_empty_mask"
COMPUTED_AREA = "area_computed_from_mask"
COMPUTED_BOX = "box_computed_from_mask"
AS_IT_IS = Reading()
_CHUNK = 10_000  # instances whose rows are dicts at once
NOTES = {
    SKIPPED_IMAGE: ("left out", "images that cannot be used"),
    SKIPPED_AREA: ("left out", "instances with an area below 1"),
    SKIPPED_SEGMENTATION: ("left out", "instances without a mask"),
    SKIPPED_MASK: ("left out", "instances without a pixel inside their image"),
    DEGENERATE: ("left out", "parts of polygons with fewer than three corners"),
    COMPUTED_AREA: ("completed", "areas, from masks"),
    COMPUTED_BOX: ("completed", "boxes, from masks"),
}
REASONS = tuple(NOTES)


@dataclass(frozen=True)
class Index:
    """A dataset, ready for prompts.

    images: image_id int64, path str, width and height int32; orientation int8 and scaling str, how it is read
        (pictures.View); identity str, of the file (identity.py); judged_category_ids, for LVIS the categories that it
        judges in the image, else None; sorted by image_id.
    instances: annotation_id, image_id, category_id int64; x, y, w, h float64, the annotation box in pixels;
        area float64; iscrowd bool; rle_size [H, W]; rle_counts bytes; frequency, LVIS's r, c or f of the category,
        else None; sorted by image_id, then annotation_id.
    counts: how much was left out or completed, by reason (REASONS).
    warnings: what is plausible and may yet be wrong: a sentence, and how many images or instances it is about.
    category_names: by id, of the categories that the file lists.
    """

    images: pd.DataFrame
    instances: pd.DataFrame
    counts: dict[str, int]
    warnings: dict[str, int] = field(default_factory=dict)
    category_names: dict[int, str] = field(default_factory=dict)

    def notes(self) -> pd.DataFrame:
        """The columns of records.NOTES: how much there is, what was left out or completed, and warnings."""
        import pandas as pd

        categories = self.instances["category_id"].nunique()
        crowd = int(self.instances["iscrowd"].sum())
        sizes = {
            "images": len(self.images),
            "instances": len(self.instances),
            "instances that are crowds": crowd,
            "categories with instances": categories,
        }
        lines = [("count", name, count) for name, count in sizes.items()]
        lines += [(*NOTES[reason], count) for reason, count in self.counts.items() if count]
        lines += [("warning", text, count) for text, count in self.warnings.items()]
        return pd.DataFrame(lines, columns=["kind", "note", "count"])


class _Image(NamedTuple):
    image_id: int
    path: str
    width: int
    height: int


def index(
    annotations: Path | Sequence[Path],
    images: Path,
    *,
    image_limit: int | None = None,
    reading: Reading = AS_IT_IS,
    on_bad_image: Literal["stop", "skip"] = "stop",
    report: Path | None = None,
) -> Index:
    """Read the annotation file `annotations` of the image folder `images`; several files count as one.

    image_limit: keep only the first so many images by id that have an annotation. reading: how pictures are looked at.
    on_bad_image: `skip` leaves out pictures that cannot be used, with their annotations. report: a text file for all
    faults where there are several.

    Raises InputError for anything that does not follow the COCO format, and for missing or unusable images.
    """
    faults = Faults(report)
    truth = read(annotations, faults=faults)
    annotations = annotations if isinstance(annotations, Path) else annotations[0]
    names = _names(truth.images, annotations, faults)
    totals = {"images": len(names), "annotations": truth.total}
    pictures = {
        image_id: _Image(
            image_id, str(picture_path(images, name)), truth.images[image_id]["width"], truth.images[image_id]["height"]
        )
        for image_id, name in names.items()
    }
    if image_limit is not None:
        annotated = sorted({instance.image_id for instance in truth.instances} & set(pictures))[:image_limit]
        pictures = {image_id: pictures[image_id] for image_id in annotated}
        totals["images"] = len(pictures)
    looks, bad = _look_at(pictures, reading)
    if on_bad_image == "stop" and bad:
        absent = [names[image_id] for image_id in sorted(bad) if not is_file(pictures[image_id].path)]
        if len(absent) == len(bad) and not faults.of_kind:
            raise _missing(images, absent, f"the {len(pictures)} images of {annotations.name}")
        for image_id in sorted(bad):
            faults.add("images", bad[image_id])
    faults.stop(totals)
    counts = Counter(truth.counts)
    counts[SKIPPED_IMAGE] = len(bad)
    pictures = {image_id: picture for image_id, picture in pictures.items() if image_id not in bad}

    frequencies = {category["id"]: category.get("frequency") for category in truth.categories}
    chosen = [instance for instance in truth.instances if instance.image_id in pictures]
    chosen.sort(key=lambda instance: (instance.image_id, instance.annotation_id))
    judged = _judged_categories(truth, sorted(pictures))
    total, evidence = len(truth.instances), array("d")
    truth.instances.clear()  # polygons go as their masks are drawn
    warnings = _told(
        plausibility.polygons_of_images(_polygons(chosen, pictures)), annotations, "segmentation in pixels of the image"
    )
    drawn = _table(chosen, pictures, counts, evidence)
    if drawn.empty:
        raise _nothing_left(annotations, total, counts, [*bad.values()])
    pairs = np.asarray(evidence).reshape(-1, 10)
    findings = plausibility.boxes_of_masks(pairs[:, :4], pairs[:, 4:8], pairs[:, 8:])
    remedy = "convert them, or leave bbox out for the mask's own"
    warnings |= _told(findings, annotations, f"bbox as {plausibility.STATED}", remedy)
    warnings |= _repeated(drawn, pictures) | _left_out(counts, total) | _crowding(drawn, truth.federated)
    warnings |= inspection.warnings([(pictures[image_id].path, looks[image_id]) for image_id in sorted(pictures)])

    import pandas as pd  # takes longer than all else does for a command that wants the checks only

    rows = sorted(pictures.values())
    table = pd.DataFrame(rows, columns=list(_Image._fields)).assign(
        orientation=[looks[row.image_id].view.orientation for row in rows],
        scaling=[looks[row.image_id].view.scaling for row in rows],
        identity=identities([row.path for row in rows], whole=reading.whole),
        judged_category_ids=judged,
    )
    return Index(
        images=table.astype({"image_id": "int64", "width": "int32", "height": "int32", "orientation": "int8"}),
        instances=drawn.assign(frequency=drawn["category_id"].map(frequencies.get).astype(object)),
        counts={reason: counts[reason] for reason in REASONS},
        warnings=warnings,
        category_names={entry["id"]: str(entry.get("name", entry["id"])) for entry in truth.categories},
    )


def _names(entries: Mapping[int, dict[str, Any]], path: Path, faults: Faults) -> dict[int, str]:
    """The image file of each image, relative to the folder of the images."""
    found: dict[int, str] = {}
    for i, (image_id, entry) in enumerate(entries.items()):
        name = entry.get("file_name")
        if name is None and isinstance(url := entry.get("coco_url"), str):
            name = "/".join(url.split("/")[-2:])  # LVIS v1: .../val2017/000000000139.jpg
        if isinstance(name, str) and name:
            found[image_id] = name
            continue
        remedy, place = "add file_name, or coco_url as LVIS has it", f"images[{i}].file_name"
        faults.add("images", checks.refusal(path, place, "the name of an image file", checks.show(name), remedy))
    return found


def _judged_categories(truth: Annotations, images: Sequence[int]) -> list[list[int] | None]:
    """The categories that LVIS judges in each of the images, also those of annotations that become no instance."""
    if not truth.federated:
        return [None] * len(images)
    present: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    for instance in truth.instances:
        if instance.image_id in present:
            area = 1 if instance.area is None else instance.area
            present[instance.image_id].append({"category_id": instance.category_id, "area": area})
    return [sorted(federated.known_categories(truth.images[image], present[image])) for image in images]


def _look_at(pictures: Mapping[int, _Image], reading: Reading) -> tuple[dict[int, Look], dict[int, InputError]]:
    """What was seen of each picture, and why some cannot be used, by id."""
    rows = [pictures[image_id] for image_id in sorted(pictures)]
    found = inspection.look_at_all([(row.path, row.width, row.height) for row in rows], reading)
    looks = {row.image_id: look for row, look in zip(rows, found, strict=True) if isinstance(look, Look)}
    bad = {row.image_id: look for row, look in zip(rows, found, strict=True) if isinstance(look, InputError)}
    return looks, bad


def _missing(folder: Path, names: Sequence[str], expected: str) -> InputError:
    listed = ", ".join([*names[:3]] + ["..."] * (len(names) > 3))
    remedy = "fetch them, or name the folder that file_name is relative to"
    return checks.refusal(folder, "", expected, f"{len(names)} missing: {listed}", remedy)


def _nothing_left(path: Path, total: int, counts: Mapping[str, int], bad: Sequence[InputError]) -> InputError:
    """Why an annotation file gives no instance."""
    words = {
        SKIPPED_AREA: "with an area below 1",
        SKIPPED_SEGMENTATION: "without a segmentation",
        SKIPPED_MASK: "without a pixel inside their image",
    }
    reasons = [f"{counts[reason]} {word}" for reason, word in words.items() if counts[reason]]
    rest = total - sum(counts[reason] for reason in words)
    if bad:
        reasons.append(f"{rest} in {len(bad)} images that cannot be used, first: {bad[0]}")
    remedy = "mend what is counted here" if reasons else "add annotations"
    found = f"none in {total}" + (f": {', '.join(reasons)}" if reasons else "")
    return checks.refusal(path, "annotations", "at least one instance with a mask", found, remedy)


def _polygons(
    chosen: Sequence[Instance], pictures: Mapping[int, _Image]
) -> Iterator[tuple[list[np.ndarray], int, int]]:
    """The polygons of each instance that has some, with the width and height of its image."""
    for instance in chosen:
        if isinstance(instance.segmentation, list) and instance.segmentation:
            picture = pictures[instance.image_id]
            yield instance.segmentation, picture.width, picture.height


def _told(
    findings: Sequence[plausibility.Finding], path: Path, expected: str, remedy: str = "convert them"
) -> dict[str, int]:
    """Findings as warnings; InputError where one is beyond doubt."""
    for finding in findings:
        if finding.sure:
            found = f"{finding.count} of {finding.total} {finding.text}"
            raise checks.refusal(path, "annotations", expected, found, remedy)
    return {finding.text: finding.count for finding in findings}


def _repeated(drawn: pd.DataFrame, pictures: Mapping[int, _Image]) -> dict[str, int]:
    """Warnings about images and instances that are there twice."""
    files = Counter(picture.path for picture in pictures.values())
    found = {
        "images that share their file with another": sum(count for count in files.values() if count > 1),
        "instances that are there twice": int(drawn.duplicated(["image_id", "category_id", "rle_counts"]).sum()),
    }
    least = {"instances that are there twice": plausibility.FEW * len(drawn)}
    return {text: count for text, count in found.items() if count > least.get(text, 0)}


def _left_out(counts: Mapping[str, int], total: int) -> dict[str, int]:
    skipped = sum(counts[reason] for reason in (SKIPPED_AREA, SKIPPED_SEGMENTATION, SKIPPED_MASK))
    return {f"annotations that are left out, most of the {total:,}": skipped} if 2 * skipped > total else {}


def _crowding(drawn: pd.DataFrame, lvis: bool) -> dict[str, int]:
    """Warnings about what average precision cannot see."""
    objects = drawn[~drawn["iscrowd"]]
    if objects.empty:
        return {ALL_CROWDS: len(drawn)}
    limit, kind = (300, "") if lvis else (100, " of a category")
    groups = objects.groupby(["image_id"] if lvis else ["image_id", "category_id"]).size()
    images = {*groups[groups > limit].index.get_level_values("image_id")}
    text = f"images with more than {limit} instances{kind}: average precision looks at {limit} detections{kind}"
    return {text: len(images)} if images else {}


def _table(
    chosen: list[Instance], pictures: Mapping[int, _Image], counts: Counter[str], evidence: array[float]
) -> pd.DataFrame:
    """The rows of all instances that are kept; `chosen` is empty afterwards."""
    import pandas as pd

    parts = []
    chosen.reverse()
    while chosen:
        some = [chosen.pop() for _ in range(min(_CHUNK, len(chosen)))]
        rows = [row for instance in some if (row := _draw(instance, pictures[instance.image_id], counts, evidence))]
        if rows:
            parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _draw(instance: Instance, picture: _Image, counts: Counter[str], evidence: array[float]) -> dict[str, Any] | None:
    """The row of an instance; None, and counted, for one that the protocol leaves out or that has no pixel.

    evidence: takes in a box that the file has, the corners of the mask's own, and the size of the image.
    """
    if instance.area is not None and instance.area < 1:
        counts[SKIPPED_AREA] += 1
        return None
    if instance.segmentation is None:
        counts[SKIPPED_SEGMENTATION] += 1
        return None
    size = (picture.height, picture.width)
    rle = draw(instance.segmentation, *size)
    # One mask at a time: the areas of more than 255 masks in one call overflow under NumPy 2.
    pixels = int(coco_mask.area(rle))
    if not pixels:
        counts[SKIPPED_MASK] += 1
        return None
    counts[COMPUTED_AREA] += instance.area is None
    counts[COMPUTED_BOX] += instance.box is None
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    box = [x, y, w, h] if instance.box is None else instance.box
    if instance.box is not None:
        evidence.extend([*instance.box, x, y, x + w, y + h, picture.width, picture.height])
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
