"""One set of rules: what the index accepts every later stage accepts, and what `score` refuses the index refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from sambench.datasets import coco
from sambench.datasets.annotations import DEGENERATE
from sambench.errors import InputError
from sambench.evaluate.average_precision import BBOX, SEGM
from sambench.evaluate.instances import box_precision, mask_precision, truth_of
from sambench.evaluate.score import read_truth, score
from sambench.prompts import make_prompts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 30, 20
SQUARE = [5, 5, 15, 5, 15, 13, 5, 13]
TRIANGLE = [20, 2, 28, 2, 24, 12]


def row(annotation_id: int, **fields: Any) -> dict[str, Any]:
    known = {"id": annotation_id, "image_id": 1, "category_id": 7, "bbox": [5, 5, 10, 8], "area": 80, "iscrowd": 0}
    return known | {"segmentation": [SQUARE]} | fields


def dataset(*rows: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2)]
    categories = [{"id": 7, "name": "thing"}, {"id": 9, "name": "other"}]
    return {"images": images, "annotations": list(rows), "categories": categories}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    for i in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), (i, 20, 30)).save(folder / f"{i}.png")
    return folder


def write(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path


def run_every_stage(path: Path, folder: Path) -> None:
    """What a study does after the index, with boxes and masks of a perfect detector."""
    index = coco.index(path, folder)
    make_prompts("d", index.instances, ["box", "tight_box", "noisy_box", "mask_center", "random_3"])
    boxes = index.instances[["image_id", "category_id", "x", "y", "w", "h"]].assign(score=0.5)
    box_precision(truth_of(path, BBOX, index.images), boxes)
    masks = index.instances[["image_id", "category_id", "rle_size", "rle_counts"]]
    masks = masks.assign(detector="d", selection="argmax", predicted_iou=0.5, status="ok", score=0.5)
    ids = index.images["image_id"].tolist()
    mask_precision(truth_of(path, SEGM, index.images), [("d", "argmax")], [(ids, masks)])


def results_of(path: Path, iou_type: str) -> Path:
    results = path.with_name("results.json")
    results.write_text("[]")
    score(path, results, iou_type)
    return results


VALUES = st.sampled_from(
    [None, 0, -1, 1, 2, 7, 9, 1.0, 7.0, 0.5, 2**63, 2**63 - 1, True, "1", "", [], {}, [[]], [[1, 2, 3, 4]], [SQUARE]]
    + [[TRIANGLE, [1, 1]], [[90, 90, 95, 90, 95, 95]], {"size": [HEIGHT, WIDTH], "counts": [600]}, float("nan")]
    + [{"size": [HEIGHT, WIDTH], "counts": [200, 100, 300]}, {"size": [20.0, 30.0], "counts": [0.0, 600.0]}]
    + [[0, 0, 0, 0], [0, 0, 30, 20.5], [-3, -4, 400, 1], [1, 2, 3], [{}], ..., "nothing"]
)
PLACES = st.sampled_from(
    [f"annotations.{i}.{key}" for i in (0, 1) for key in row(1)]
    + [f"images.{i}.{key}" for i in (0, 1) for key in ("id", "file_name", "width", "height")]
    + [f"categories.{i}.{key}" for i in (0, 1) for key in ("id", "name", "frequency")]
    + ["images", "annotations", "categories", "images.0", "annotations.0", "categories.0"]
    + [f"images.{i}.{key}" for i in (0, 1) for key in ("neg_category_ids", "not_exhaustive_category_ids")]
)


def changed(document: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The document with a value in another place; `...` removes it."""
    found = copy.deepcopy(document)
    *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    entry: Any = found
    for key in parents:
        entry = entry[key]
    if value is ...:
        del entry[last]
    else:
        entry[last] = value
    return found


@settings(max_examples=150, deadline=None)
@given(first=st.tuples(PLACES, VALUES), second=st.none() | st.tuples(PLACES, VALUES))
def test_what_the_index_accepts_every_stage_accepts(
    folder: Path, first: tuple[str, Any], second: tuple[str, Any] | None
) -> None:
    document = dataset(row(1), row(2, segmentation=[TRIANGLE], bbox=[20, 2, 8, 10], area=40))
    for change in (first, second):
        try:
            document = changed(document, *change) if change else document
        except (KeyError, IndexError, TypeError):
            return  # the first change took away what the second one changes
    path = write(folder, document)
    refusal = ""
    try:
        coco.index(path, folder)
    except InputError as error:
        refusal = str(error)
        assert "\n" not in refusal
    if not refusal:
        run_every_stage(path, folder)
    for iou_type in (SEGM, BBOX):
        try:
            results_of(path, iou_type)
        except InputError as error:
            assert refusal, f"score refuses and the index does not: {error}"
            if second is None:
                assert f"expected {error.expected}, found {error.found}" in refusal


def test_a_missing_area_is_that_of_the_mask(folder: Path) -> None:
    for area in (..., None, 0):
        path = write(folder, changed(dataset(row(1)), "annotations.0.area", area))
        assert coco.index(path, folder).instances["area"].tolist() == [80.0]
        for iou_type in (SEGM, BBOX):
            assert [each["area"] for each in read_truth(path, iou_type).annotations[1]] == [80.0]


def test_a_missing_box_is_that_of_the_mask_and_without_both_there_is_no_instance(folder: Path) -> None:
    lone = row(1)
    del lone["bbox"]
    path = write(folder, dataset(lone, row(2, segmentation=[], bbox=None)))
    assert read_truth(path, BBOX).annotations[1][0]["bbox"] == [5, 5, 10, 8]
    assert [each["id"] for each in read_truth(path, BBOX).annotations[1]] == [1]
    assert coco.index(path, folder).counts[coco.SKIPPED_SEGMENTATION] == 1


def test_a_degenerate_part_is_left_out_and_counted(folder: Path) -> None:
    """detectron2 (data/datasets/coco.py) drops parts of fewer than 6 numbers."""
    rows = [row(1, segmentation=[[1, 1, 2, 2], SQUARE]), row(2, segmentation=[SQUARE, [], TRIANGLE])]
    path = write(folder, dataset(*rows, row(3, segmentation=[[1, 1, 2, 2]])))
    index = coco.index(path, folder)
    drawn = [coco_mask.merge(coco_mask.frPyObjects(parts, HEIGHT, WIDTH)) for parts in ([SQUARE], [SQUARE, TRIANGLE])]
    assert index.instances["rle_counts"].tolist() == [rle["counts"] for rle in drawn]
    assert index.counts[DEGENERATE] == 3 and index.counts[coco.SKIPPED_SEGMENTATION] == 1
    run_every_stage(path, folder)


def test_faults_are_collected(folder: Path, tmp_path: Path) -> None:
    rows = [row(i) for i in range(1, 61)]
    for i in (4, 7, 50):
        rows[i]["area"] = -i
    path = write(folder, dataset(*rows))
    with pytest.raises(InputError) as refusal:
        coco.index(path, folder, report=tmp_path / "faults.txt")
    assert str(refusal.value) == (
        f"{path}: 3 of 60 annotations, first: annotations[4].area: expected a finite number of pixels, not negative, "
        f"found -4; correct it, or leave it out for the mask's own; all in {tmp_path / 'faults.txt'}"
    )
    listed = (tmp_path / "faults.txt").read_text().splitlines()
    assert [line.partition(".area")[0] for line in listed] == [f"{path}: annotations[{i}]" for i in (4, 7, 50)]
    with pytest.raises(InputError, match=r"3 of 60 annotations, first: annotations\[4\]\.area: expected a finite"):
        read_truth(path, SEGM)
    write(folder, dataset(row(1)))
    coco.index(path, folder, report=tmp_path / "faults.txt")
    assert not (tmp_path / "faults.txt").exists(), "a list of faults that are mended misleads"


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        ([], "none in 0; add annotations"),
        ([row(1, area=0.5), row(2, area=0.5)], "none in 2: 2 with an area below 1; mend"),
        (
            [row(1, area=0.5), row(2, segmentation=[[90, 90, 95, 90, 95, 95]]), row(3, segmentation=[])],
            "none in 3: 1 with an area below 1, 1 without a segmentation, 1 without a pixel inside their image; mend",
        ),
    ],
)
def test_when_nothing_remains_the_reasons_are_counted(folder: Path, rows: list[Any], reasons: str) -> None:
    with pytest.raises(InputError, match=f"expected at least one instance with a mask, found {reasons}"):
        coco.index(write(folder, dataset(*rows)), folder)


@pytest.mark.parametrize("place", ["annotations.0.id", "annotations.0.image_id", "images.0.id", "categories.0.id"])
def test_ids_below_0_are_refused_by_the_index_and_by_score(folder: Path, place: str) -> None:
    path = write(folder, changed(dataset(row(1)), place, -1))
    for read in (lambda: coco.index(path, folder), lambda: read_truth(path, SEGM), lambda: read_truth(path, BBOX)):
        with pytest.raises(InputError, match="expected an integer of 64 bits, not negative, found -1; add or correct"):
            read()


def test_categories_may_be_left_out_of_a_coco_file(folder: Path) -> None:
    document = dataset(row(1, category_id=3), row(2, category_id=5, segmentation=[TRIANGLE]))
    for categories in (..., None, []):
        path = write(folder, changed(document, "categories", categories))
        assert [category["id"] for category in read_truth(path, SEGM).categories] == [3, 5]
        run_every_stage(path, folder)


def test_a_file_without_masks_can_still_be_scored_by_boxes(folder: Path) -> None:
    path = write(folder, dataset(row(1, segmentation=[]), row(2, segmentation=None)))
    assert len(read_truth(path, BBOX).annotations[1]) == 2
    expected = (
        r"2 of 2 annotations, first: annotations\[0\]\.segmentation: expected polygons or an RLE, found none; add"
    )
    for read in (lambda: read_truth(path, SEGM), lambda: coco.index(path, folder)):
        with pytest.raises(InputError, match=expected):
            read()


def test_areas_of_real_files_stay(shared: Path) -> None:
    path = shared / "data/coco_val2017_subset/annotations/instances_val2017.json"
    truth = read_truth(path, SEGM)
    areas = {each["id"]: each["area"] for rows in truth.annotations.values() for each in rows}
    assert areas == {each["id"]: each["area"] for each in json.loads(path.read_text())["annotations"]}
    assert np.isfinite(list(areas.values())).all()
