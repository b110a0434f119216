"""From the names of a detector's classes to the category ids of a dataset. Positions and ids never are compared."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sambench.datasets import checks
from sambench.errors import InputError

UNKNOWN = -1

# What darknet and the detectors converted from it call six classes of COCO (these are the names of PASCAL VOC).
SYNONYMS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


OBJECT = "object"
NO_NAME = "N/A"  # a position that stands for nothing; no category has this name


def coco_names() -> list[str]:
    """The 80 names of COCO in the order of their ids."""
    return [line.partition(" ")[2] for line in _lines("coco.txt")]


def coco_names_by_id() -> list[str]:
    """The name of each id 0..90 of COCO, NO_NAME for the ids that were never given."""
    names = [NO_NAME] * 91
    for line in _lines("coco.txt"):
        number, _, name = line.partition(" ")
        names[int(number)] = name
    return names


def lvis_names() -> list[str]:
    """The 1,203 names of LVIS v1 in the order of their ids, 1 to 1203."""
    return _lines("lvis_v1.txt")


def _lines(file: str) -> list[str]:
    return files("sambench.detectors").joinpath("names", file).read_text(encoding="utf-8").splitlines()


class Category(NamedTuple):
    """One category of a dataset."""

    category_id: int
    name: str


def read_categories(document: dict[str, Any], path: Path) -> list[Category]:
    """The categories of an annotation file, in its order.

    A category without annotations is left out where it only groups others (the root that Roboflow writes) or has the
    name of one with annotations. Raises InputError when it lists none, or one without a name.
    """
    ids = checks.category_ids(document, path)
    entries = document.get("categories") or []
    if not ids:
        remedy = "list the categories, or detectors cannot be told what to look for"
        raise checks.refusal(path, "categories", "a list of at least one category", "none", remedy)
    for i, entry in enumerate(entries):
        if not isinstance(entry.get("name"), str) or not entry["name"].strip():
            found = checks.show(entry.get("name"))
            raise checks.refusal(path, f"categories[{i}].name", "a name", found, "detectors find categories by name")
    used = {row.get("category_id") for row in document.get("annotations", ())}
    taken = {canonical(entry["name"]) for entry in entries if entry["id"] in used}
    groups = [entry.get("supercategory") for entry in entries if entry["id"] in used]
    return [
        Category(entry["id"], entry["name"])
        for entry in entries
        if entry["id"] in used
        or not (canonical(entry["name"]) in taken or (entry["name"] in groups and entry.get("supercategory") == "none"))
    ]


def known_ids(document: dict[str, Any], path: Path) -> set[int]:
    """The ids of the categories of an annotation file; where it lists none, those that its annotations have."""
    used = {row.get("category_id") for row in document["annotations"]}
    return checks.category_ids(document, path) or {each for each in used if type(each) is int}


def canonical(name: str) -> str:
    """A name in lower case, with spaces for underscores, and COCO's word for the synonyms."""
    plain = " ".join(name.lower().replace("_", " ").split())
    return SYNONYMS.get(plain, plain)


def category_ids(names: Sequence[str], categories: Sequence[Category], where: str | Path = "categories") -> np.ndarray:
    """For each name of a class the id of the category of the same canonical name, else UNKNOWN: (C,) int64.

    A data set whose only category is `object` has no classes: everything that a detector finds is one.

    Raises InputError when two categories share a name that a class has.
    """
    if [canonical(category.name) for category in categories] == [OBJECT]:
        return np.full(len(names), categories[0].category_id, dtype=np.int64)
    known: dict[str, list[Category]] = {}
    for category in categories:
        known.setdefault(canonical(category.name), []).append(category)
    ids = np.full(len(names), UNKNOWN, dtype=np.int64)
    for i, name in enumerate(names):
        found = known.get(canonical(name), [])
        if len(found) > 1:
            twins = ", ".join(f"{each.name} ({each.category_id})" for each in found)
            remedy = "give them names that differ"
            raise InputError(where, "categories", expected=f"one category named {name}", found=twins, remedy=remedy)
        if found:
            ids[i] = found[0].category_id
    return ids
