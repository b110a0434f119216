"""Annotations in other formats: recognized, so that a refusal can say what they are and how COCO is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
PANOPTIC, YOLO, LABELME, MASKS, VIDEOS = "panoptic", "yolo", "labelme", "masks", "videos"
IMPORTED = {
    PANOPTIC: "a panoptic JSON of COCO",
    YOLO: "labels of YOLO",
    LABELME: "labelme annotations",
    MASKS: "masks as images",
    VIDEOS: "annotations of videos in the format of YouTube-VIS",
}
_BY_SUFFIX = {
    ".xml": "XML, as of PASCAL VOC or CVAT; export the dataset as COCO",
    ".csv": "a CSV file; export the dataset as COCO",
    ".zip": "an archive; unpack it and name the annotation file in it",
    ".tar": "an archive; unpack it and name the annotation file in it",
    ".parquet": "a Parquet file; write its annotations as COCO",
}
_LOOKED_AT = 1000  # files of a folder


def kind_of_document(document: Any) -> str:
    """Which format that `sambench import` reads a parsed JSON file has; empty for others."""
    if not isinstance(document, dict):
        return ""
    rows = document.get("annotations")
    if isinstance(document.get("videos"), list) and not document.get("images"):
        return VIDEOS
    if isinstance(rows, list) and rows and isinstance(rows[0], dict) and "segments_info" in rows[0]:
        return PANOPTIC
    return LABELME if isinstance(document.get("shapes"), list) else ""


def kind_of_path(path: Path) -> str:
    """Which format that `sambench import` reads a folder or file has; empty for others."""
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".json":
            return kind_of_document(_json(path))
        return YOLO if suffix == ".txt" or (suffix in (".yaml", ".yml") and "names" in _text(path)) else ""
    if any(path.glob("*.yaml")) and any("names" in _text(file) for file in path.glob("*.yaml")):
        return YOLO
    files = [file for _, file in zip(range(_LOOKED_AT), sorted(path.rglob("*")), strict=False) if file.is_file()]
    suffixes = [file.suffix.lower() for file in files]
    labels = next((file for file in files if file.suffix == ".txt" and _is_label(file)), None)
    if labels is not None:
        return YOLO
    jsons = [file for file in files if file.suffix.lower() == ".json"]
    if jsons and kind_of_document(_json(jsons[0])):
        return kind_of_document(_json(jsons[0]))
    return MASKS if suffixes.count(".png") > len(suffixes) / 2 else ""


def found_instead(path: Path, document: Any = None) -> tuple[str, str]:
    """What stands instead of COCO annotations, and what to do; both empty where that is not known."""
    kind = kind_of_document(document) if document is not None else kind_of_path(path)
    if kind:
        return IMPORTED[kind], f"`sambench import {path} --images FOLDER -o instances.json` makes COCO of it"
    if isinstance(document, list) and document and isinstance(document[0], dict) and "score" in document[0]:
        return "a list of results", "name the annotation file that it was made for"
    if isinstance(document, dict) and "_via_img_metadata" in document:
        return "a project of the VGG Image Annotator", "export it as COCO"
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        return "GeoJSON", "convert it to COCO, in pixels of the images"
    if document is None and path.suffix.lower() in _BY_SUFFIX:
        found, _, remedy = _BY_SUFFIX[path.suffix.lower()].partition("; ")
        return found, remedy
    if document is None and path.is_dir():
        names = sorted(file.name for file in path.rglob("*.json"))[:3]
        return "a folder", f"name the annotation file{', such as ' + ', '.join(names) if names else ''}"
    return "", ""


def _is_label(path: Path) -> bool:
    """Whether a text file looks like labels of YOLO: a class and at least four numbers per line."""
    lines = _text(path).splitlines()[:1]
    try:
        values = [float(value) for line in lines for value in line.split()]
    except ValueError:
        return False
    return len(values) >= 5 and values[0].is_integer() and all(-0.5 <= value <= 1.5 for value in values[1:])


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
