"""`sambench import`: labels of YOLO, panoptic JSON, masks as images, labelme and videos -> COCO annotations.

Exact: a polygon stays the polygon that it is, scaled to pixels, and a mask of pixels becomes the RLE of these pixels.
Libraries that convert go through integers or outlines and change masks (docs/decisions-data.md).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from sambench.datasets import checks, formats, pictures
from sambench.datasets.annotations import draw
from sambench.errors import InputError
from sambench.files import write_text
from sambench.masks import encode_rle

_VOID = 255  # the index of borders that belong to nothing, in palette images as of PASCAL VOC


@dataclass
class Collected:
    """COCO annotations in the making. left_out: what has no mask, by reason."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def image(self, name: str, width: int, height: int, image_id: int | None = None) -> int:
        number = len(self.images) + 1 if image_id is None else image_id
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        return number

    def add(self, image: dict[str, Any], category: int, segmentation: Any, *, crowd: int = 0) -> None:
        """One instance: polygons, an RLE, or (H, W) bool pixels; its area and box are those of the mask."""
        height, width = image["height"], image["width"]
        if isinstance(segmentation, np.ndarray):
            counts = encode_rle(segmentation)
            rle: dict[str, Any] = {"size": [height, width], "counts": counts}
            segmentation = {"size": [height, width], "counts": counts.decode()}
        elif isinstance(segmentation, dict):
            rle = segmentation
            segmentation = {"size": [height, width], "counts": rle["counts"].decode()}
        else:
            rle = draw([np.asarray(part, dtype=np.float64) for part in segmentation], height, width)
        area = int(coco_mask.area(rle))
        if not area:
            self.leave_out("masks without a pixel")
            return
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image["id"],
                "category_id": category,
                "segmentation": segmentation,
                "area": area,
                "bbox": coco_mask.toBbox(rle).tolist(),
                "iscrowd": crowd,
            }
        )

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def convert(source: Path, images: Path, output: Path, kind: str = "", masks: Path | None = None) -> Collected:
    """Write the COCO annotations of `source`, whose image files are in the folder `images`, to `output`.

    kind: panoptic, yolo, labelme, masks or videos; found out where it is empty. masks: of a panoptic JSON, the folder
    of its PNG files; by default a folder of the JSON's name beside it.

    Raises InputError for what cannot be read, and where nothing has a mask.
    """
    kind = kind or formats.kind_of_path(source)
    if kind not in _READERS:
        expected = "panoptic JSON, labels of YOLO, labelme, masks as images or videos"
        raise InputError(source, expected=expected, found=kind or "none of them", remedy="name it by --format")
    if not images.is_dir():
        raise InputError(images, expected="the folder of the image files", found="none", remedy="name it by --images")
    found = Collected()
    if kind == formats.PANOPTIC:
        _panoptic(source, masks or source.with_suffix(""), found)
    else:
        _READERS[kind](source, images, found)
    if not found.annotations:
        left_out = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
        remedy = "sambench measures masks; boxes alone are no instances"
        raise InputError(source, expected="at least one mask", found=left_out or "none", remedy=remedy)
    document = {
        "images": found.images,
        "annotations": found.annotations,
        "categories": [{"id": number, "name": name} for number, name in sorted(found.categories.items())],
    }
    write_text(output, json.dumps(document))
    return found


def _image_files(folder: Path) -> dict[str, Path]:
    """The images of a folder and those below it, by their names in it."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in formats.IMAGE_SUFFIXES)
    return {path.relative_to(folder).as_posix(): path for path in files}


def _by_stem(folder: Path, files: dict[str, Path]) -> dict[str, str]:
    """The name of each image by its name without suffix and, where that is unique, without folders."""
    full = {name.rpartition(".")[0]: name for name in files}
    stems: dict[str, list[str]] = {}
    for name, path in files.items():
        stems.setdefault(path.stem, []).append(name)
    return {stem: names[0] for stem, names in stems.items() if len(names) == 1} | full


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of an image as a viewer shows it, the frame of YOLO's and labelme's coordinates."""
    with pictures.readable(path), pictures.opened(path) as picture:
        return pictures.seen_size(picture, pictures.orientation_of(picture))


def _yolo(source: Path, images: Path, found: Collected) -> None:
    """One text file per image, one line per object: the class, and x, y of each corner as fractions of the image."""
    root = source if source.is_dir() else source.parent
    settings = source if source.suffix in (".yaml", ".yml") else next(iter(sorted(root.glob("*.y*ml"))), None)
    found.categories = {number + 1: name for number, name in _yolo_names(settings).items()}
    labels = root / "labels" if (root / "labels").is_dir() else root
    texts = {
        path.relative_to(labels).with_suffix("").as_posix(): path
        for path in sorted(labels.rglob("*.txt"))
        if path.name != "classes.txt"
    }
    for name, path in _image_files(images).items():
        width, height = _size(path)
        stem = name.rpartition(".")[0]
        found.image(name, width, height)
        image = found.images[-1]
        text = texts.get(stem) or texts.get(path.stem)
        for number, line in enumerate(text.read_text(encoding="utf-8-sig").splitlines() if text else (), 1):
            if not line.strip():
                continue
            try:
                kind, *values = map(float, line.split())
            except ValueError:
                kind, values = -1.0, []
            if not kind.is_integer() or kind < 0 or not np.isfinite(values).all():
                expected = "a class and the corners x, y, ... as fractions"
                raise InputError(str(text), f"line {number}", expected=expected, found=checks.show(line))
            category = int(kind) + 1
            found.categories.setdefault(category, str(int(kind)))
            if len(values) == 4:
                found.leave_out("boxes without a mask")
            elif len(values) < 6 or len(values) % 2:
                expected = "an even count of at least 6 numbers after the class"
                raise InputError(str(text), f"line {number}", expected=expected, found=len(values))
            else:
                corners = np.array(values).reshape(-1, 2) * [width, height]
                found.add(image, category, [corners.ravel().tolist()])


def _yolo_names(settings: Path | None) -> dict[int, str]:
    if settings is None:
        return {}
    try:
        names = (yaml.safe_load(settings.read_text(encoding="utf-8-sig")) or {}).get("names")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        names = None
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict) and all(isinstance(number, int) for number in names):
        return {number: str(name) for number, name in names.items()}
    raise InputError(settings, "names", expected="a list of class names, or names by number", found=checks.show(names))


def _labelme(source: Path, images: Path, found: Collected) -> None:
    """One JSON per image with shapes; shapes of one label and group are one instance."""
    files = [source] if source.is_file() else sorted(source.rglob("*.json"))
    documents = {path: _read_json(path) for path in files}
    documents = {path: document for path, document in documents.items() if formats.kind_of_document(document)}
    labels = sorted({str(shape.get("label")) for document in documents.values() for shape in document["shapes"]})
    numbers = {label: number for number, label in enumerate(labels, 1)}
    found.categories = {number: label for label, number in numbers.items()}
    names = _by_stem(images, _image_files(images))
    for path, document in documents.items():
        stem = Path(str(document.get("imagePath") or path).replace("\\", "/")).stem
        name = names.get(stem) or names.get(path.stem)
        if name is None:
            remedy = "name the folder of the images by --images"
            raise InputError(path, "imagePath", expected=f"an image in {images}", found=stem, remedy=remedy)
        found.image(name, *_size(images / name))
        image = found.images[-1]
        groups: dict[Any, list[Any]] = {}
        for k, shape in enumerate(document["shapes"]):
            label, group = str(shape.get("label")), shape.get("group_id")
            parts = groups.setdefault((label, k if group is None else f"group {group}"), [])
            part = _shape(shape, image, path, f"shapes[{k}]")
            if part is None:
                found.leave_out(f"shapes of the kind {shape.get('shape_type')}, which have no inside")
            else:
                parts.append(part)
        for (label, _), parts in groups.items():
            if all(isinstance(part, list) for part in parts) and parts:
                found.add(image, numbers[label], parts)
            elif parts:
                found.add(image, numbers[label], np.any([_pixels(part, image) for part in parts], axis=0))


def _shape(shape: dict[str, Any], image: dict[str, Any], path: Path, place: str) -> list[float] | np.ndarray | None:
    """A polygon x, y, ..., or (H, W) bool pixels; None for lines and points."""
    kind = shape.get("shape_type") or "polygon"
    try:
        points = np.asarray(shape.get("points"), dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(points).all():
            raise ValueError
        if kind == "polygon":
            return points.ravel().tolist() if len(points) >= 3 else None
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
            return [x0, y0, x1, y0, x1, y1, x0, y1]
        if kind == "circle":
            centre, edge = points
            ys, xs = np.mgrid[: image["height"], : image["width"]] + 0.5
            circle: np.ndarray = np.hypot(xs - centre[0], ys - centre[1]) <= np.hypot(*(edge - centre))
            return circle
        if kind == "mask":
            part = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
            x, y = points[0].astype(int)
            pixels = np.zeros((image["height"], image["width"]), dtype=bool)
            pixels[y : y + part.shape[0], x : x + part.shape[1]] = part
            return pixels
    except (TypeError, ValueError, KeyError, OSError) as error:
        raise InputError(path, place, expected=f"a {kind} of labelme", found=str(error) or "other points") from None
    return None


def _pixels(part: list[float] | np.ndarray, image: dict[str, Any]) -> np.ndarray:
    if isinstance(part, np.ndarray):
        return part
    drawn: np.ndarray = coco_mask.decode(draw([np.array(part)], image["height"], image["width"])) > 0
    return drawn


def _masks(source: Path, images: Path, found: Collected) -> None:
    """A mask image of the name of each image, whose values other than 0 are one object each; or a folder of that name,
    in which every file is one object."""
    found.categories = {1: "object"}
    files, folder = {}, {}
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            folder[path.relative_to(source).as_posix()] = path
        elif path.suffix.lower() in formats.IMAGE_SUFFIXES:
            files[path.relative_to(source).with_suffix("").as_posix()] = path
    for name, path in _image_files(images).items():
        if path.is_relative_to(source) and source != images:
            continue
        with pictures.readable(path), pictures.opened(path) as picture:
            width, height = pictures.size_of(picture)
        stem = name.rpartition(".")[0]
        found.image(name, width, height)
        image = found.images[-1]
        single = next((folder[key] for key in (stem, path.stem) if key in folder), None)
        if single is not None:
            for file in sorted(each for each in single.iterdir() if each.suffix.lower() in formats.IMAGE_SUFFIXES):
                found.add(image, 1, _labels(file, width, height) > 0)
        elif file := next((files[key] for key in (stem, path.stem) if key in files), None):  # type: ignore[assignment]
            labels = _labels(file, width, height)
            for value in np.unique(labels[labels > 0]):
                found.add(image, 1, labels == value)
        else:
            found.leave_out("images without a mask file")


def _labels(path: Path, width: int, height: int) -> np.ndarray:
    """(H, W) int64: the values of a mask image; of a colour image, a number for each colour, 0 for black."""
    with pictures.readable(path), pictures.opened(path) as picture:
        palette = getattr(picture, "mode", "") == "P"
        values = pictures.raw(picture).astype(np.int64)
    if values.shape[:2] != (height, width):
        found = f"{values.shape[1]}x{values.shape[0]}"
        raise InputError(path, "size", expected=f"{width}x{height} as its image", found=found)
    if values.ndim == 3:
        values = values[..., :3] @ np.array([1, 1 << 16, 1 << 32]) if values.shape[2] >= 3 else values[..., 0]
    if palette and values.max(initial=0) == _VOID and len(np.unique(values)) > 2:
        values = np.where(values == _VOID, 0, values)
    return values


def _panoptic(source: Path, masks: Path, found: Collected) -> None:
    """Segments by the colour of their pixels, id = R + 256 G + 65536 B (cocodataset.org, format-data, panoptic).

    Stuff is left out: it has no instances.
    """
    document = _read_json(source)
    categories = document.get("categories") or []
    things = {entry["id"] for entry in categories if entry.get("isthing", 1)}
    found.categories = {entry["id"]: str(entry.get("name")) for entry in categories if entry["id"] in things}
    sizes = {entry["id"]: entry for entry in document.get("images") or []}
    for i, row in enumerate(document["annotations"]):
        place, entry = f"annotations[{i}]", sizes.get(row.get("image_id"))
        if entry is None:
            expected = "an id listed under `images`"
            raise InputError(source, f"{place}.image_id", expected=expected, found=checks.show(row.get("image_id")))
        path = masks / str(row.get("file_name"))
        with pictures.readable(path), pictures.opened(path) as picture:
            colours = np.asarray(picture.convert("RGB")).astype(np.int64)
        ids = colours @ np.array([1, 1 << 8, 1 << 16])
        found.image(entry["file_name"], ids.shape[1], ids.shape[0], entry["id"])
        image = found.images[-1]
        if (entry.get("width"), entry.get("height")) != (ids.shape[1], ids.shape[0]):
            expected = f"{entry.get('width')}x{entry.get('height')} as in {source.name}"
            raise InputError(path, "size", expected=expected, found=f"{ids.shape[1]}x{ids.shape[0]}")
        segments = row.get("segments_info") or []
        unknown = sorted(set(np.unique(ids).tolist()) - {segment.get("id") for segment in segments} - {0})
        if unknown:
            expected = "colours of segments that are listed"
            raise InputError(path, f"{place}.segments_info", expected=expected, found=unknown[0])
        for segment in segments:
            if segment.get("category_id") not in things:
                found.leave_out("segments of stuff")
            else:
                found.add(image, segment["category_id"], ids == segment["id"], crowd=int(segment.get("iscrowd") or 0))


def _videos(source: Path, images: Path, found: Collected) -> None:
    """Frames with the masks of each object in them, as YouTube-VIS and UVO have it; every frame becomes an image."""
    document = _read_json(source)
    found.categories = {entry["id"]: str(entry.get("name")) for entry in document.get("categories") or []}
    frames: dict[Any, list[dict[str, Any]]] = {}
    for i, video in enumerate(document["videos"]):
        try:
            names, width, height = video["file_names"], int(video["width"]), int(video["height"])
            frames[video["id"]] = [found.images[found.image(str(name), width, height) - 1] for name in names]
        except (TypeError, KeyError, ValueError) as error:
            expected = "id, width, height and file_names"
            raise InputError(source, f"videos[{i}]", expected=expected, found=f"no {error}") from None
    for i, track in enumerate(document.get("annotations") or []):
        place, video_id = f"annotations[{i}]", track.get("video_id")
        if video_id not in frames:
            expected = "an id listed under `videos`"
            raise InputError(source, f"{place}.video_id", expected=expected, found=checks.show(video_id))
        parts, category = track.get("segmentations") or [], track.get("category_id")
        if len(parts) != len(frames[video_id]):
            expected = f"{len(frames[video_id])}, one for each frame or null"
            raise InputError(source, f"{place}.segmentations", expected=expected, found=len(parts))
        found.categories.setdefault(category, str(category))
        for k, (image, part) in enumerate(zip(frames[video_id], parts, strict=True)):
            if part is None:
                continue
            if isinstance(part, dict):
                part = _run_lengths(part, image, source, f"{place}.segmentations[{k}]")
            found.add(image, category, part, crowd=int(track.get("iscrowd") or 0))


def _run_lengths(part: dict[str, Any], image: dict[str, Any], source: Path, place: str) -> dict[str, Any]:
    """An RLE, compressed or not, of the size of its image -> compressed."""
    size, counts = [image["height"], image["width"]], part.get("counts")
    if part.get("size") != size:
        raise InputError(source, f"{place}.size", expected=str(size), found=checks.show(part.get("size")))
    try:
        if isinstance(counts, list):
            rle: dict[str, Any] = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
            return rle
        return {"size": size, "counts": counts.encode()}  # type: ignore[union-attr]
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(source, place, expected="run lengths", found=error) from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, expected="JSON", found=error) from None


_READERS: dict[str, Callable[[Path, Path, Collected], None]] = {
    formats.YOLO: _yolo,
    formats.LABELME: _labelme,
    formats.MASKS: _masks,
    formats.VIDEOS: _videos,
    formats.PANOPTIC: lambda source, images, found: _panoptic(source, source.with_suffix(""), found),
}


def lines(found: Collected) -> Iterator[str]:
    """What was made, for people."""
    yield f"{len(found.images)} images, {len(found.annotations)} instances, {len(found.categories)} categories"
    for reason, count in found.left_out.items():
        yield f"left out: {count} {reason}"
