"""Plausible but wrong data is told: boxes in other formats, pictures of other kinds, objects that cannot be found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sambench.datasets import coco, plausibility
from sambench.datasets.checks import read_annotations
from sambench.datasets.inspection import Reading, look
from sambench.datasets.pictures import read_image
from sambench.detectors.boxes import Limits, import_boxes
from sambench.errors import InputError
from sambench.evaluate.average_precision import SEGM
from sambench.evaluate.instances import only_crowds
from sambench.evaluate.score import read_truth, score

WIDTH, HEIGHT = 90, 70
# x, y, width, height of rectangles, off the corner of the image.
BOXES = np.array([[20, 10, 30, 20], [40, 30, 25, 35], [10, 25, 60, 12], [50, 5, 8, 60], [33, 22, 44, 11]], dtype=float)

AS = {
    "corners x0, y0, x1, y1": lambda b: np.column_stack([b[:, :2], b[:, :2] + b[:, 2:]]),
    "centres x, y, width, height": lambda b: np.column_stack([b[:, :2] + b[:, 2:] / 2, b[:, 2:]]),
    "y, x, height, width": lambda b: b[:, [1, 0, 3, 2]],
    "corners y0, x0, y1, x1": lambda b: np.column_stack([b[:, :2], b[:, :2] + b[:, 2:]])[:, [1, 0, 3, 2]],
}
TURNED = ("y, x, height, width", "corners y0, x0, y1, x1")
SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
AS |= {
    f"fractions of the image ({name})": lambda b, make=make, turn=name in TURNED: (
        make(b) / (SCALE[[1, 0, 3, 2]] if turn else SCALE)
    )
    for name, make in AS.items()
}
AS["fractions of the image (x, y, width, height)"] = lambda b: b / SCALE


def dataset(folder: Path, boxes: np.ndarray, **fields: Any) -> Path:
    """One image with the rectangles BOXES as masks."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "1.png")
    rows = []
    for i, ((x, y, w, h), box) in enumerate(zip(BOXES, boxes, strict=True), 1):
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        row = {"id": i, "image_id": 1, "category_id": 1, "segmentation": [polygon], "bbox": box.tolist(), "area": w * h}
        rows.append(row | fields)
    images = [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}))
    return path


@pytest.mark.parametrize("kind", AS)
def test_boxes_in_another_format_are_refused_with_its_name(tmp_path: Path, kind: str) -> None:
    path = dataset(tmp_path, AS[kind](BOXES))
    with pytest.raises(InputError) as refusal:
        coco.index(path, tmp_path)
    assert str(refusal.value) == (
        f"{path}: annotations: expected bbox as x, y, width, height in pixels, found 5 of 5 boxes that are {kind}"
        + ", or masks with x and y exchanged" * (kind in TURNED)
        + "; convert them, or leave bbox out for the mask's own"
    )


# Each box in pixels of its image when that was resized; images are 90 x 70 and 45 x 60.
@pytest.mark.parametrize(
    ("resize", "words"),
    [
        (lambda box, w, h: box * 0.4, "pixels of images of 0.4 times the size"),
        (lambda box, w, h: box * 640 / max(w, h), "pixels of images whose longest side is 640"),
        (lambda box, w, h: box * 416 / np.array([w, h, w, h]), "pixels of images of 416 x 416"),
    ],
)
def test_boxes_of_resized_images_are_refused_with_their_size(resize: Any, words: str) -> None:
    inner = BOXES * 0.6
    sizes = np.array([(WIDTH, HEIGHT)] * 5 + [(45, 60)] * 5)
    whole = np.concatenate([BOXES, inner])
    masks = np.column_stack([whole[:, :2], whole[:, :2] + whole[:, 2:]])
    boxes = np.array([resize(box, *size) for box, size in zip(whole, sizes, strict=True)])
    (finding,) = plausibility.boxes_of_masks(boxes, masks, sizes)
    assert finding == plausibility.Finding(f"boxes that are {words}", 10, 10, sure=True)


def test_polygons_of_other_images(tmp_path: Path) -> None:
    path = dataset(tmp_path, BOXES)
    document = json.loads(path.read_text())

    def refit(width: float, height: float) -> dict[str, Any]:
        scaled = json.loads(json.dumps(document))
        for row in scaled["annotations"]:
            row["segmentation"] = [(np.array(row["segmentation"][0]) * np.tile([width, height], 4)).tolist()]
            del row["bbox"]
        return scaled

    path.write_text(json.dumps(refit(1 / WIDTH, 1 / HEIGHT)))
    with pytest.raises(
        InputError, match="expected segmentation in pixels of the image, found 5 of 5 polygons that are"
    ):
        coco.index(path, tmp_path)
    path.write_text(json.dumps(refit(1.5, 1.5)))
    told = coco.index(path, tmp_path).warnings
    assert told == {"polygons that stick out of their image and are cut": 4}, "edges at 105, 105 and 87 of 90; 97 of 70"


def test_what_is_there_twice_and_what_is_left_out(tmp_path: Path) -> None:
    path = dataset(tmp_path, BOXES)
    document = json.loads(path.read_text())
    document["images"].append(document["images"][0] | {"id": 2})
    again = [row | {"id": row["id"] + 10} for row in document["annotations"][:2]]
    lost = [row | {"id": row["id"] + 20, "segmentation": [], "image_id": 2} for row in document["annotations"]] * 2
    lost = [row | {"id": 100 + i} for i, row in enumerate(lost)]
    path.write_text(json.dumps(document | {"annotations": document["annotations"] + again + lost}))
    assert coco.index(path, tmp_path).warnings == {
        "images that share their file with another": 2,
        "instances that are there twice": 2,
        "annotations that are left out, most of the 17": 10,
    }


def test_right_boxes_and_loose_boxes_are_told_apart(tmp_path: Path) -> None:
    assert coco.index(dataset(tmp_path, BOXES), tmp_path).warnings == {}
    loose = BOXES + np.array([-1, -1, 2, 2])
    assert coco.index(dataset(tmp_path, loose), tmp_path).warnings == {}
    shifted = np.maximum(BOXES + np.array([-15, -9, 20, 25]), 0)
    (text,) = coco.index(dataset(tmp_path, shifted), tmp_path).warnings
    assert text == "boxes that overlap the box of their mask by less than 0.7"


def test_boxes_without_an_area(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 5 of 5 boxes without an area; convert them, or leave bbox out"):
        coco.index(dataset(tmp_path, 0 * BOXES), tmp_path)
    one = BOXES.copy()
    one[3] = 0
    assert coco.index(dataset(tmp_path, one), tmp_path).warnings == {"boxes without an area": 1}


@pytest.mark.parametrize("name", ["coco_val2017_subset/annotations/instances_val2017.json"])
def test_boxes_of_real_files_are_right(shared: Path, name: str) -> None:
    folder = shared / "data/coco_val2017_subset"
    assert coco.index(shared / "data" / name, folder / "val2017").warnings == {}


def imported(folder: Path, boxes: np.ndarray, scores: Any = None, truth: bool = True) -> tuple[pd.DataFrame, dict]:
    annotations = dataset(folder, BOXES)
    document = read_annotations(annotations)
    if not truth:
        document["annotations"] = []
    values = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": value}
        for box, value in zip(boxes.tolist(), values, strict=True)
    ]
    path = folder / "results.json"
    path.write_text(json.dumps(rows))
    images = pd.DataFrame([(1, "1.png", WIDTH, HEIGHT)], columns=["image_id", "path", "width", "height"])
    warnings: dict[str, int] = {}
    return import_boxes(path, document, annotations, (CATEGORY,), images, Limits(0.0, 100), warnings), warnings


class CATEGORY:
    category_id = 1


@pytest.mark.parametrize("kind", AS)
def test_boxes_of_a_detector_in_another_format_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="expected bbox as x, y, width, height in pixels, found 5 of 5 boxes that are"):
        imported(tmp_path, AS[kind](BOXES))


def test_without_ground_truth_the_image_decides(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 5 of 5 boxes that are corners x0, y0, x1, y1; convert them"):
        imported(tmp_path, AS["corners x0, y0, x1, y1"](BOXES), truth=False)
    _, warnings = imported(tmp_path, BOXES + np.array([0, 0, 60, 0]))
    assert list(warnings) == ["boxes that stick out of their image and are cut"]


def test_scores_above_1_and_images_without_boxes(tmp_path: Path) -> None:
    table, warnings = imported(tmp_path, BOXES, [97.0, 80.0, 1.0, 0.5, 3.0])
    assert warnings == {"scores above 1, which thresholds between 0 and 1 keep": 3} and len(table) == 5
    _, warnings = imported(tmp_path, BOXES, [3.0, -1.5, 0.2, -4.0, 0.1])
    assert warnings["scores below 0, which thresholds between 0 and 1 leave out"] == 2
    assert imported(tmp_path, BOXES[:0])[1] == {}, "a file without any box is empty, not wrong"
    assert imported(tmp_path, BOXES)[1] == {}


def detected(**changes: Any) -> tuple[plausibility.Detected, dict[int, np.ndarray]]:
    """Five objects of three categories in each of eight images, each found with its score; changes by column."""
    ids, categories = np.repeat(np.arange(8), 5), np.tile([1, 2, 3, 1, 2], 8)
    boxes, scores = np.tile(BOXES, (8, 1)), np.linspace(0.9, 0.3, 40)
    truth = {image: np.column_stack([BOXES, categories[:5]]) for image in range(8)}
    columns = {"boxes": boxes, "scores": scores, "image_ids": ids, "category_ids": categories} | changes
    return plausibility.Detected(sizes=np.tile([WIDTH, HEIGHT], (len(columns["boxes"]), 1)), **columns), truth


def test_detections_of_other_categories_images_and_files() -> None:
    def texts(**changes: Any) -> dict[str, int]:
        return {found.text: found.count for found in plausibility.boxes_of_detector(*detected(**changes))}

    categories, scores = np.tile([1, 2, 3, 1, 2], 8), np.linspace(0.9, 0.3, 40)
    assert texts() == {}
    (text,) = texts(category_ids=categories + 1)
    assert text.startswith("boxes on objects of other categories")
    assert texts(category_ids=np.where(np.arange(40) % 3, categories + 1, categories)) == {}, "a third is right"
    small = np.tile([70, 50, 3, 3], (40, 1)) + np.arange(40)[:, None] % 4
    (text,) = texts(boxes=small)
    assert text.startswith("boxes, the best of each image, of which next to none is on an object")
    assert texts(scores=np.ones(40)) == {"scores that are all the same: average precision has no order": 40}
    columns = {name: np.tile(getattr(detected()[0], name), 2) for name in ("scores", "image_ids", "category_ids")}
    columns |= {"boxes": np.tile(BOXES, (16, 1)), "scores": np.concatenate([scores, scores / 2])}
    assert texts(**columns) == {"boxes that are there twice": 40}


def test_only_crowds(tmp_path: Path) -> None:
    path = dataset(tmp_path, BOXES, iscrowd=1)
    assert coco.index(path, tmp_path).warnings == {"all instances are crowds": 5}
    assert only_crowds(read_truth(path, SEGM))
    assert not only_crowds(read_truth(dataset(tmp_path, BOXES), SEGM))


def test_more_objects_than_detections_that_are_looked_at(tmp_path: Path) -> None:
    """150 objects of a category: 100 perfect detections find two thirds, 150 all (100 is pycocotools' own limit)."""
    images = [{"id": 1, "file_name": "1.png", "width": 300, "height": 40}]
    places = [[2 * i, 3, 1, 9] for i in range(150)]
    rows = [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(places)]
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    rows = [row | {"area": 9, "segmentation": [rectangle(*row["bbox"])]} for row in rows]
    truth.write_text(json.dumps({"images": images, "annotations": rows}))
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - i / 1000} for i, box in enumerate(places)]
    results.write_text(json.dumps(found))
    capped = score(truth, results)
    # Precision is 1 up to a recall of 2/3: the first 67 of 101 recalls.
    assert capped["ap"] == pytest.approx(67 / 101) and capped["max_dets"] == 100 and capped["over_max_dets"] == 1
    whole = score(truth, results, max_dets=150)
    assert whole["ap"] == pytest.approx(1) and whole["over_max_dets"] == 0 and whole["ar_150"] == pytest.approx(1)
    assert score(truth, results, max_dets=5)["ar_5"] == pytest.approx(5 / 150)
    with pytest.raises(InputError, match="--max-dets: expected a whole number from 1, found 0"):
        score(truth, results, max_dets=0)
    Image.new("RGB", (300, 40)).save(tmp_path / "1.png")
    (text,) = coco.index(truth, tmp_path).warnings
    assert text.startswith("images with more than 100 instances of a category")


def rectangle(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def deep(folder: Path, dtype: Any, bands: int, name: str = "x.tif") -> tuple[Path, np.ndarray]:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(bands).integers(0, 3000, (HEIGHT, WIDTH, bands)).astype(dtype)
    kind = "rgb" if bands in (3, 4) else "minisblack"
    tifffile.imwrite(folder / name, values.squeeze(), photometric=kind, planarconfig="contig" if bands > 1 else None)
    return folder / name, values


@pytest.mark.parametrize("bands", [1, 2, 3, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_range_makes_colours_of_deep_pictures(tmp_path: Path, bands: int, dtype: Any) -> None:
    path, values = deep(tmp_path, dtype, bands)
    seen = look(str(path), WIDTH, HEIGHT, Reading(scaling="0.0,3000.0"))
    assert seen.surplus == (bands not in (1, 3) or (dtype is np.float32 and bands == 3))
    picture = read_image(path, WIDTH, HEIGHT, seen.view)
    first = values[..., :3] if bands >= 3 else values[..., [0, 0, 0]]
    np.testing.assert_array_equal(picture, np.rint(first.astype(np.float64) / 3000 * 255).astype(np.uint8))
    low, high = np.percentile(first if bands >= 3 else values[..., 0], (1, 99))
    view = look(str(path), WIDTH, HEIGHT, Reading(scaling="percentile")).view
    expected = np.rint((first.astype(np.float64).clip(low, high) - low) / (high - low) * 255)
    np.testing.assert_array_equal(read_image(path, WIDTH, HEIGHT, view), expected.astype(np.uint8))
    if dtype is np.float32:
        with pytest.raises(
            InputError, match=r"found pixels of 32 bits \(floats\); say which values are black and white"
        ):
            look(str(path), WIDTH, HEIGHT, Reading())
    else:
        plain = read_image(path, WIDTH, HEIGHT, look(str(path), WIDTH, HEIGHT, Reading()).view)
        np.testing.assert_array_equal(plain, (first >> 8).astype(np.uint8))


def test_a_range_leaves_pictures_of_8_bits_alone(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "x.png")
    view = look(str(tmp_path / "x.png"), WIDTH, HEIGHT, Reading(scaling="0.0,10.0")).view
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", WIDTH, HEIGHT, view), values)


def test_colours_of_16_bits_in_a_png_keep_all_bits_for_a_range(tmp_path: Path) -> None:
    import cv2

    values = np.random.default_rng(0).integers(0, 3000, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), values[..., ::-1])
    seen = look(str(tmp_path / "x.png"), WIDTH, HEIGHT, Reading(scaling="0.0,3000.0"))
    picture = read_image(tmp_path / "x.png", WIDTH, HEIGHT, seen.view)
    np.testing.assert_array_equal(picture, np.rint(values / 3000 * 255).astype(np.uint8))


def test_what_had_to_be_guessed_about_pictures_is_a_warning(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "turned.jpg", exif=exif)
    deep(tmp_path, np.uint16, 1, "dark.tif")
    deep(tmp_path, np.uint16, 5, "bands.tif")
    images = [
        {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(("turned.jpg", "dark.tif", "bands.tif"), 1)
    ]
    row = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [rectangle(5, 5, 20, 20)]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": [row]}))
    assert coco.index(path, tmp_path).warnings == {
        "images with an EXIF orientation that their size does not settle, read as stored (key `exif`)": 1,
        "images with more bands than red, green and blue, of which the first three are read": 1,
        "images of 16 bits with values up to 2999, which become 0 to 11 of 255 (key `range`)": 2,
    }
    said = coco.index(path, tmp_path, reading=Reading("ignore", "percentile")).warnings
    assert list(said) == ["images with more bands than red, green and blue, of which the first three are read"]


def test_one_limit_for_huge_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """14,000 x 14,000 pixels are more than Pillow reads by default."""
    Image.new("1", (14_000, 14_000)).save(tmp_path / "x.png")
    assert look(str(tmp_path / "x.png"), 14_000, 14_000, Reading()).view.orientation == 1
    path = dataset(tmp_path, BOXES)
    document = json.loads(path.read_text())
    document["images"][0] |= {"width": 65_535, "height": 65_535}
    path.write_text(json.dumps(document))
    with pytest.raises(
        InputError, match=r"images\[0\]: expected at most 268,435,456 pixels, found 65535x65535; cut the"
    ):
        coco.index(path, tmp_path)
    monkeypatch.setattr("sambench.datasets.pictures.PIXEL_LIMIT", 1000)
    with pytest.raises(InputError, match=r"size: expected at most 1,000 pixels, found 90x70; cut the picture"):
        look(str(tmp_path / "1.png"), WIDTH, HEIGHT, Reading())


def test_boxes_are_compared_by_hand() -> None:
    a, b = np.array([[0, 0, 4, 2], [5, 5, 1, 1]], float), np.array([[2, 0, 6, 2], [0, 0, 9, 9]], float)
    assert plausibility.ious(a, b).tolist() == [4 / 12, 0]
