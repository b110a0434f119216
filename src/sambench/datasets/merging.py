"""Several annotation files as one: the images of all, each once, with the annotations of all.

An image is known by its file, a category by its name. Ids stay as they are in the first file that has them; where
another file means something else by the same id, its entries get new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sambench.datasets import federated
from sambench.errors import InputError

RENUMBERED = "renumbered_images"  # in a merged document: how many images have another id than in their file


def merge(documents: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """Parsed and checked files -> one document of the same kind.

    Raises InputError where LVIS and other files are mixed, or where an image has two sizes.
    """
    lvis = [federated.is_federated(document["images"]) for _, document in documents]
    if any(lvis) and not all(lvis):
        other = documents[lvis.index(False)][0]
        raise InputError(
            other, "images", expected="LVIS, as in the other files", found="COCO", remedy="keep them apart"
        )
    images: dict[str, dict[str, Any]] = {}
    categories: dict[Any, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    ids = {name: _Ids(documents, name) for name in ("images", "annotations", "categories")}
    renumbered = 0
    for path, document in documents:
        of_image, of_category = {}, {}
        for entry in document["categories"]:
            key = str(entry.get("name") or entry["id"])
            if key not in categories:
                categories[key] = entry | {"id": ids["categories"].give(entry["id"])}
            of_category[entry["id"]] = categories[key]["id"]
        for i, entry in enumerate(document["images"]):
            key = str(entry.get("file_name") or entry.get("coco_url") or f"{path} {entry['id']}").replace("\\", "/")
            if key not in images:
                images[key] = entry | {"id": ids["images"].give(entry["id"])}
            known = images[key]
            if (known.get("width"), known.get("height")) != (entry.get("width"), entry.get("height")):
                expected = f"{known.get('width')}x{known.get('height')} as in another file"
                found = f"{entry.get('width')}x{entry.get('height')}"
                raise InputError(path, f"images[{i}]", expected=expected, found=found, remedy="correct one of the two")
            for name in federated.FIELDS if all(lvis) else ():
                known[name] = sorted({*known[name], *entry[name]})
            of_image[entry["id"]] = known["id"]
            renumbered += known["id"] != entry["id"]
        for row in document["annotations"]:
            category = of_category.get(row["category_id"], row["category_id"])
            given = ids["annotations"].give(row["id"])
            annotations.append(row | {"id": given, "image_id": of_image[row["image_id"]], "category_id": category})
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": list(categories.values()),
        RENUMBERED: renumbered,
    }


class _Ids:
    """Ids of one kind: each is given once, and then new ones above all that any file has."""

    def __init__(self, documents: Sequence[tuple[Path, dict[str, Any]]], name: str) -> None:
        self.taken: set[int] = set()
        self.free = 1 + max((entry["id"] for _, document in documents for entry in document[name]), default=0)

    def give(self, wanted: int) -> int:
        if wanted in self.taken:
            wanted, self.free = self.free, self.free + 1
        self.taken.add(wanted)
        return wanted
