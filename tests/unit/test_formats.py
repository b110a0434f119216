"""Files that people have: what means the same is read the same, and other formats are called by their names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sambench.datasets import coco
from sambench.detectors.classes import read_categories
from sambench.errors import InputError
from sambench.evaluate.score import score

SQUARE = [5, 5, 15, 5, 15, 13, 5, 13]


def dataset(**fields: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "x.png", "width": 30, "height": 20}
    row = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [5, 5, 10, 8], "area": 80, "segmentation": [SQUARE]}
    return {"images": [image], "annotations": [row], "categories": [{"id": 7, "name": "thing"}]} | fields


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "x.png")
    return tmp_path


def expected(folder: Path) -> list[Any]:
    path = folder / "plain.json"
    path.write_text(json.dumps(dataset()))
    return values(coco.index(path, folder / "images"))


def values(index: coco.Index) -> list[Any]:
    return [index.images.to_dict("list"), index.instances.to_dict("list")]


def test_floats_nulls_and_nothing_mean_the_same(folder: Path) -> None:
    text = json.dumps(dataset())
    for name in ("id", "image_id", "category_id", "width", "height"):
        for number in (1, 7, 30, 20):
            text = text.replace(f'"{name}": {number},', f'"{name}": {number}.0,').replace(
                f'"{name}": {number}}}', f'"{name}": {number}.0}}'
            )
    document = json.loads(text)
    assert isinstance(document["images"][0]["width"], float) and isinstance(document["categories"][0]["id"], float)
    document["annotations"][0] |= {"iscrowd": None, "segmentation": [[float(value) for value in SQUARE]]}
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    assert values(coco.index(path, folder / "images")) == expected(folder)


@pytest.mark.parametrize("form", ["bom", "gzip", "utf-16"])
def test_the_same_text_in_another_form(folder: Path, form: str) -> None:
    text, path = json.dumps(dataset()), folder / "instances.json"
    results = json.dumps([{"image_id": 1.0, "category_id": 7.0, "bbox": [5, 5, 10, 8], "score": 1}])
    forms = {
        "bom": lambda text: b"\xef\xbb\xbf" + text.encode(),
        "gzip": lambda text: gzip.compress(text.encode()),
        "utf-16": lambda text: text.encode("utf-16"),
    }
    path.write_bytes(forms[form](text))
    assert values(coco.index(path, folder / "images")) == expected(folder)
    if form != "utf-16":
        (folder / "results.json").write_bytes(forms[form](results))
        assert score(path, folder / "results.json")["ap"] == pytest.approx(1)
    if form == "gzip":
        path.write_bytes(forms[form](text)[:-9])
        with pytest.raises(InputError, match=r"expected a whole gzip file, found .*; fetch or compress it again"):
            coco.index(path, folder / "images")


@pytest.mark.parametrize("name", ["images\\x.png", "images/x.png", "./x.png", ".\\x.png"])
def test_names_with_backslashes_and_with_the_folder_twice(folder: Path, name: str) -> None:
    document = dataset()
    document["images"][0]["file_name"] = name
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    for images in (folder / "images", folder) if "images" in name else (folder / "images",):
        assert Path(coco.index(path, images).images["path"][0]).samefile(folder / "images/x.png")


def test_a_missing_image_is_named_with_its_folder(folder: Path) -> None:
    document = dataset()
    document["images"][0]["file_name"] = "val/x.png"
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    with pytest.raises(
        InputError, match=r"images: expected the 1 images of instances\.json, found 1 missing: val/x\.png"
    ):
        coco.index(path, folder / "images")


def test_text_ids_are_one_line(folder: Path) -> None:
    images = [{"id": f"img_{i}", "file_name": "x.png", "width": 30, "height": 20} for i in range(60)]
    path = folder / "instances.json"
    path.write_text(json.dumps(dataset(images=images)))
    with pytest.raises(InputError) as refusal:
        coco.index(path, folder / "images")
    assert str(refusal.value) == (
        f"{path}: 60 of 60 images, first: images[0].id: expected an integer of 64 bits, found 'img_0'; "
        "add or correct it: ids are whole numbers"
    )


def test_the_root_category_of_roboflow_is_no_class() -> None:
    cells = [{"id": 0, "name": "Cells", "supercategory": "none"}, {"id": 1, "name": "cells", "supercategory": "Cells"}]
    rows = [{"category_id": 1}]
    found = read_categories({"categories": cells, "annotations": rows}, Path("a.json"))
    assert [category.category_id for category in found] == [1]
    cells[0]["name"], cells[1] = "Blood", {"id": 1, "name": "cells", "supercategory": "Blood"}
    found = read_categories({"categories": cells, "annotations": rows}, Path("a.json"))
    assert [category.category_id for category in found] == [1]
    ordinary = [
        {"id": 1, "name": "cat", "supercategory": "animal"},
        {"id": 2, "name": "dog", "supercategory": "animal"},
    ]
    found = read_categories({"categories": ordinary, "annotations": rows}, Path("a.json"))
    assert [category.category_id for category in found] == [1, 2]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("files", "named", "found"),
    [
        ({"a.json": {"annotations": [{"segments_info": []}], "images": []}}, "a.json", "a panoptic JSON of COCO"),
        ({"a.json": {"shapes": [], "imagePath": "a.jpg"}}, "a.json", "labelme annotations"),
        ({"d/a.json": {"shapes": [], "imagePath": "a.jpg"}}, "d", "labelme annotations"),
        ({"d/labels/a.txt": "0 0.1 0.2 0.3 0.2 0.3 0.9\n"}, "d", "labels of YOLO"),
        ({"d/data.yaml": "names: [a]\n"}, "d", "labels of YOLO"),
        ({"data.yaml": "names: [a]\n"}, "data.yaml", "labels of YOLO"),
        ({"a.json": [{"image_id": 1, "score": 0.5}]}, "a.json", "a list of results; name the annotation file"),
        ({"a.json": {"_via_img_metadata": {}}}, "a.json", "a project of the VGG Image Annotator; export it as COCO"),
        ({"a.json": {"type": "FeatureCollection", "features": []}}, "a.json", "GeoJSON; convert it"),
        ({"a.xml": "<annotation/>"}, "a.xml", "XML, as of PASCAL VOC or CVAT; export the dataset as COCO"),
        ({"d/instances_val.json": dataset()}, "d", "a folder; name the annotation file, such as instances_val.json"),
    ],
)
def test_other_formats_are_recognized(tmp_path: Path, files: dict[str, Any], named: str, found: str) -> None:
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(InputError) as refusal:
        coco.index(tmp_path / named, tmp_path)
    line = str(refusal.value)
    assert f"{tmp_path / named}: expected an annotation file in the COCO format, found {found}" in line
    if found in ("labelme annotations", "labels of YOLO", "a panoptic JSON of COCO"):
        assert f"`sambench import {tmp_path / named} --images FOLDER -o instances.json` makes COCO of it" in line


def test_a_folder_of_masks_is_recognized(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match="found masks as images; `sambench import"):
        coco.index(tmp_path, tmp_path)
