"""Several annotation files count as one: each image once, ids of their own, categories by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sambench.datasets import coco
from sambench.datasets.annotations import read_document
from sambench.datasets.merging import RENUMBERED
from sambench.errors import InputError
from sambench.evaluate.average_precision import BBOX, SEGM
from sambench.evaluate.instances import truth_of
from sambench.masks import decode_rle
from sambench.settings import Dataset

WIDTH, HEIGHT = 30, 20
SQUARES = {1: [5, 5, 9, 5, 9, 9, 5, 9], 2: [2, 2, 8, 2, 8, 12, 2, 12], 3: [10, 1, 20, 1, 20, 6, 10, 6]}


def image(image_id: int, name: str) -> dict[str, Any]:
    return {"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT}


def row(annotation_id: int, image_id: int, category_id: int, square: int) -> dict[str, Any]:
    found = {"id": annotation_id, "image_id": image_id, "category_id": category_id}
    return found | {"segmentation": [SQUARES[square]]}


FIRST = {
    "images": [image(1, "a.png"), image(2, "b.png")],
    "annotations": [row(1, 1, 1, 1), row(2, 2, 2, 2)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
# The ids of the first file stand for other things here, but for b.png and dog.
SECOND = {
    "images": [image(1, "c.png"), image(7, "b.png")],
    "annotations": [row(1, 1, 1, 3), row(9, 7, 2, 1)],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cow"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder: Path, *documents: Any) -> list[Path]:
    paths = [folder / f"{i}.json" for i in range(len(documents))]
    for path, document in zip(paths, documents, strict=True):
        path.write_text(json.dumps(document))
    return paths


def test_two_files_are_one_dataset(folder: Path) -> None:
    paths = write(folder, FIRST, SECOND)
    index = coco.index(paths, folder)
    names = {row.image_id: Path(row.path).name for row in index.images.itertuples()}
    assert names == {1: "a.png", 2: "b.png", 8: "c.png"}
    document = read_document(paths)
    categories = {entry["id"]: entry["name"] for entry in document["categories"]}
    assert categories == {1: "cat", 2: "dog", 3: "cow"} and document[RENUMBERED] == 2
    found = {
        row.annotation_id: (names[row.image_id], categories[row.category_id], decode_rle(row.rle_size, row.rle_counts))
        for row in index.instances.itertuples()
    }
    assert {key: value[:2] for key, value in found.items()} == {
        1: ("a.png", "cat"),
        2: ("b.png", "dog"),
        10: ("c.png", "dog"),
        9: ("b.png", "cow"),
    }
    assert [int(found[key][2].sum()) for key in (1, 2, 10, 9)] == [16, 60, 50, 16]
    for iou_type in (SEGM, BBOX):
        truth = truth_of(paths, iou_type, index.images)
        assert {image_id: [each["id"] for each in rows] for image_id, rows in truth.annotations.items()} == {
            1: [1],
            2: [2, 9],
            8: [10],
        }


def test_one_file_in_a_list_is_that_file(folder: Path) -> None:
    paths = write(folder, FIRST)
    one, other = coco.index(paths, folder), coco.index(paths[0], folder)
    assert one.instances.to_dict("list") == other.instances.to_dict("list")
    assert one.images.to_dict("list") == other.images.to_dict("list")


def test_mistakes_are_named_by_file(folder: Path) -> None:
    wrong = json.loads(json.dumps(SECOND))
    wrong["annotations"][1]["category_id"] = 77
    paths = write(folder, FIRST, wrong)
    with pytest.raises(InputError, match=r"1\.json: annotations\[1\]\.category_id: expected an id listed"):
        coco.index(paths, folder)
    wrong = json.loads(json.dumps(SECOND))
    wrong["images"][1]["width"] = 31
    with pytest.raises(InputError, match=r"1\.json: images\[1\]: expected 30x20 as in another file, found 31x20"):
        coco.index(write(folder, FIRST, wrong), folder)
    lvis = json.loads(json.dumps(SECOND))
    for entry in lvis["images"]:
        entry |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    with pytest.raises(InputError, match=r"1\.json: images: expected LVIS, as in the other files, found COCO"):
        coco.index(write(folder, lvis, FIRST), folder)


def test_settings_take_one_file_or_several() -> None:
    assert Dataset(annotations="a.json", images="x").annotation_files == ("a.json",)
    assert Dataset(annotations=["a.json", "b.json"], images="x").annotation_files == ("a.json", "b.json")  # type: ignore[arg-type]
    assert Dataset(generator="scenes").annotation_files == ()
