"""Detectors: names to ids, boxes of images in any batches and shards, published files, the registry, and YOLOv8n."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sambench.config import read_registries, read_study
from sambench.datasets.checks import read_annotations
from sambench.detectors import boxes as module
from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.boxes import Limits, find_boxes, import_boxes
from sambench.detectors.classes import UNKNOWN, Category, category_ids, read_categories
from sambench.detectors.registry import Detector, build, overview, read_detectors
from sambench.downloads.catalogue import find, read_table, retrievals
from sambench.errors import InputError
from sambench.variants.base import Runtime

ALL = Limits(0.0, 1000)
DETECTIONS = {
    # box AP of the raw files on their 146 images by pycocotools 2.0.11
    "nanodet_m_416_bbox": 0.2701,
    "yolov5n_fp16_bbox": 0.3263,
    "yolov8n-seg_int8_segm_and_bbox": 0.2819,
    "yolov8n_int8_bbox": 0.4023,
}


# Names and ids


CATEGORIES = [Category(90, "toothbrush"), Category(1, "person"), Category(63, "couch"), Category(44, "wine_glass")]


def test_classes_get_the_id_of_their_name_whatever_the_order() -> None:
    names = ["person", "Wine  Glass", "sofa", "toothbrush"]
    assert category_ids(names, CATEGORIES).tolist() == [1, 44, 63, 90]
    assert category_ids(names[::-1], CATEGORIES).tolist() == [90, 63, 44, 1]
    assert category_ids(["couch"], [Category(7, "sofa")]).tolist() == [7]


def test_a_name_that_the_dataset_lacks_has_no_id() -> None:
    assert category_ids(["persons", "N/A", "person"], CATEGORIES).tolist() == [UNKNOWN, UNKNOWN, 1]
    # Without classes, as UVO has it, all that is found counts; beside another category `object` is one like any other.
    assert category_ids(["person", "car"], [Category(7, "Object")]).tolist() == [7, 7]
    assert category_ids(["person", "car"], [Category(7, "object"), Category(8, "car")]).tolist() == [UNKNOWN, 8]


def test_two_categories_of_one_name_are_refused_only_where_it_matters() -> None:
    twins = [*CATEGORIES, Category(91, "Person")]
    with pytest.raises(InputError, match=r"one category named person, found person \(1\), Person \(91\)"):
        category_ids(["person"], twins)
    assert category_ids(["couch"], twins).tolist() == [63]


@pytest.mark.parametrize(
    ("categories", "message"),
    [([], "categories: expected a list"), ([{"id": 1}], r"categories\[0\]\.name: expected a name, found none")],
)
def test_categories_without_names_are_refused(categories: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_categories({"categories": categories}, Path("instances.json"))


# Boxes of images


class Squares(BoxDetector):
    """Finds the white rectangle of an image, in a frame of half the size, and gives it `copies` of falling score."""

    def __init__(self, copies: int = 1, memory: int = 99) -> None:
        self.copies, self.memory = copies, memory
        self.batches: list[int] = []

    def load_files(self, paths: Sequence[Path]) -> None:
        raise AssertionError

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        return ["other", "square"]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image[::2, ::2, 0]

    def shape(self, prepared: np.ndarray) -> Hashable:
        return prepared.shape

    def detect(self, prepared: Sequence[np.ndarray]) -> list[Detections]:
        if len(prepared) > self.memory:
            raise MemoryError
        self.batches.append(len(prepared))
        return [self.found(image) for image in np.stack(prepared)]

    def found(self, image: np.ndarray) -> Detections:
        rows, columns = (2 * np.flatnonzero((image == 255).any(axis=axis)) for axis in (1, 0))
        box = [columns[0], rows[0], columns[-1] + 2, rows[-1] + 2]
        scores = np.linspace(0.1, 0.9, self.copies)  # worst first
        return Detections(np.tile(np.array(box, float), (self.copies, 1)), scores, np.ones(self.copies, np.int64))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, dict[int, list[int]]]:
    """Nine images of three sizes in turn, and the rectangle x, y, w, h in each."""
    folder = tmp_path_factory.mktemp("squares")
    rows, boxes = [], {}
    for i in range(9):
        image_id, (height, width) = 100 - i, [(40, 60), (60, 40), (40, 80)][i % 3]
        x, y, w, h = boxes[image_id] = [2 * i, 4, 10, 6 + 2 * i]
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        Image.fromarray(pixels).save(folder / f"{image_id}.png")
        rows.append((image_id, str(folder / f"{image_id}.png"), width, height))
    table = pd.DataFrame(sorted(rows), columns=["image_id", "path", "width", "height"])
    return table, boxes


def run(detector: Squares, images: pd.DataFrame, limits: Limits = ALL, batch: int = 4) -> pd.DataFrame:
    return find_boxes(detector, images, np.array([UNKNOWN, 17]), limits, batch)


def test_boxes_are_xywh_in_pixels_of_their_own_image(squares: tuple[pd.DataFrame, dict[int, list[int]]]) -> None:
    images, expected = squares
    detector = Squares()
    table = run(detector, images)
    assert table["image_id"].tolist() == sorted(expected)
    found = {row.image_id: [row.x, row.y, row.w, row.h] for row in table.itertuples()}
    assert found == expected
    assert set(table["category_id"]) == {17}
    assert sorted(detector.batches) == [3, 3, 3], "images of one size go together"


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_batches_and_shards_do_not_change_boxes(squares: tuple[pd.DataFrame, dict[int, list[int]]], batch: int) -> None:
    images, _ = squares
    whole = run(Squares(3), images)
    shards = [run(Squares(3), images.iloc[i::2], batch=batch) for i in (0, 1)]
    merged = pd.concat(shards).sort_values("image_id", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(merged, whole)


def test_the_best_are_kept_best_first(squares: tuple[pd.DataFrame, dict[int, list[int]]]) -> None:
    images, _ = squares
    table = run(Squares(9), images, Limits(0.25, 4))
    for _, part in table.groupby("image_id"):
        assert part["score"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert run(Squares(9), images.iloc[:1], Limits(0.75, 99))["score"].tolist() == pytest.approx([0.9, 0.8])


def test_a_batch_that_does_not_fit_is_halved(squares: tuple[pd.DataFrame, dict[int, list[int]]]) -> None:
    images, expected = squares
    detector = Squares(memory=1)
    assert len(run(detector, images)) == len(expected)
    assert detector.batches == [1] * 9
    with pytest.raises(MemoryError):
        run(Squares(memory=0), images)


def test_boxes_are_cut_at_the_border_and_unknown_classes_left_out() -> None:
    row = pd.DataFrame([(1, "", 60, 40)], columns=["image_id", "path", "width", "height"]).itertuples(index=False)
    corners = np.array([[-5, 10, 30, 50], [10, 10, 20, 20], [70, 50, 80, 60], [5, 5, 9, 9]], float)
    answer = Detections(corners, np.array([0.2, 0.5, 0.1, 0.9]), np.array([1, 1, 1, 0]))
    kept = module._kept(next(row), answer, np.array([UNKNOWN, 17]), ALL)
    xywh = np.column_stack([kept[name] for name in "xywh"])
    assert xywh.tolist() == [[10, 10, 10, 10], [0, 10, 30, 30], [60, 40, 0, 0]]
    assert kept["score"].tolist() == [0.5, 0.2, 0.1]


def test_boxes_that_are_not_finite_are_a_bug() -> None:
    row = pd.DataFrame([(1, "", 60, 40)], columns=["image_id", "path", "width", "height"]).itertuples(index=False)
    answer = Detections(np.array([[0, 0, np.nan, 1]]), np.array([0.5]), np.array([0]))
    with pytest.raises(ValueError, match="image 1"):
        module._kept(next(row), answer, np.array([17]), ALL)


# Published boxes


def average_precision(annotations: Path, results: list[dict[str, Any]], image_ids: Sequence[int] | None = None) -> Any:
    """The twelve figures of pycocotools for boxes."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def as_results(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"image_id": r.image_id, "category_id": r.category_id, "bbox": [r.x, r.y, r.w, r.h], "score": r.score}
        for r in table.itertuples()
    ]


def images_of(annotations: Path, folder: Path) -> pd.DataFrame:
    images = json.loads(annotations.read_text())["images"]
    rows = [(each["id"], str(folder / each["file_name"]), each["width"], each["height"]) for each in images]
    return pd.DataFrame(sorted(rows), columns=["image_id", "path", "width", "height"])


@pytest.fixture(scope="module")
def subset(shared: Path) -> tuple[Path, pd.DataFrame]:
    """146 images of COCO val2017: the annotation file and the table of images."""
    folder = shared / "data/coco_val2017_subset"
    annotations = folder / "annotations/instances_val2017.json"
    return annotations, images_of(annotations, folder / "val2017")


def imported(path: Path, annotations: Path, images: pd.DataFrame, limits: Limits = ALL) -> pd.DataFrame:
    document = read_annotations(annotations)
    return import_boxes(path, document, annotations, read_categories(document, annotations), images, limits)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", DETECTIONS)
def test_an_imported_file_has_exactly_its_own_ap(shared: Path, subset: tuple[Path, pd.DataFrame], name: str) -> None:
    annotations, images = subset
    path = shared / "data/detections_coco_val2017_subset" / f"{name}.json"
    raw = [{k: v for k, v in row.items() if k != "segmentation"} for row in json.loads(path.read_text())]
    table = imported(path, annotations, images, Limits(0.0, 100))
    assert len(table) == len(raw)
    expected = average_precision(annotations, raw)
    assert average_precision(annotations, as_results(table)).tolist() == expected.tolist()
    assert expected[0] == pytest.approx(DETECTIONS[name], abs=5e-5)


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """Images 1 and 2 of 60 x 40 pixels and categories 3 and 18; the images exist on paper only."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40} for i in (1, 2)]
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    return path, images_of(path, tmp_path)


def result(**fields: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.5} | fields


def write(folder: Path, results: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(results))
    return path


def test_imported_boxes_are_sorted_cut_and_limited(tiny: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    rows = [
        result(image_id=2, score=0.3),
        result(score=0.2, bbox=[0.1, 0.2, 59.7, 39.6]),
        result(score=0.9, category_id=18, bbox=[50, 30, 20, 20]),
        result(score=0.2, bbox=[-3, -4, 10, 10]),
        result(score=0.1),
    ]
    table = imported(write(tmp_path, rows), *tiny, Limits(0.15, 3))
    assert table[["image_id", "category_id", "score"]].to_numpy().tolist() == [
        [1, 18, 0.9], [1, 3, 0.2], [1, 3, 0.2], [2, 3, 0.3],
    ]  # fmt: skip
    # A box that is inside already keeps every bit: 59.7 + 0.1 - 0.1 would be another number.
    assert table[list("xywh")].to_numpy().tolist() == [
        [50, 30, 10, 10], [0.1, 0.2, 59.7, 39.6], [0, 0, 7, 6], [1, 2, 10, 20],
    ]  # fmt: skip


def test_images_that_are_not_wanted_are_left_out(tiny: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    annotations, images = tiny
    table = imported(write(tmp_path, [result(), result(image_id=2)]), annotations, images.iloc[1:])
    assert table["image_id"].tolist() == [2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (result(image_id=3), r"results.json: \[1\].image_id: expected an image id of instances.json, found 3"),
        (result(category_id=1), r"\[1\].category_id: expected a category id of instances.json, found 1"),
        (result(bbox=[1, 2, -10, 5]), r"\[1\].bbox: expected x, y, width, height"),
        (result(score=None), r"\[1\].score: expected a finite number"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(
    tiny: tuple[Path, pd.DataFrame], tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        imported(write(tmp_path, [result(), row]), *tiny)
    assert "\n" not in str(refusal.value)


# The registry


@pytest.fixture(scope="module")
def cards() -> dict[str, Detector]:
    return read_detectors(read_registries(["detectors"])["detectors"])


def test_every_card_has_boxes_to_offer(cards: dict[str, Detector]) -> None:
    for card in cards.values():
        assert bool(card.builder) != bool(card.published), card.name
        assert bool(card.checkpoints) == bool(card.builder), card.name
        for checkpoint in card.checkpoints:
            assert not checkpoint["file"].endswith(".bin"), card.name


def test_states_and_remedies(cards: dict[str, Detector], tmp_path: Path) -> None:
    card = cards["rtdetr_r50vd"]
    assert card.state("coco_val2017", [tmp_path]) == "no weights"
    assert "put rtdetr_r50vd/config.json, " in card.remedy("coco_val2017", [tmp_path])
    for checkpoint in card.checkpoints:
        path = tmp_path / checkpoint["file"]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert card.state("coco_val2017", [tmp_path]) == "ok"

    published = replace(cards["vitdet_h"], published={"mine": str(tmp_path / "mine.json")})
    assert published.state("mine", []) == "no boxes"
    assert f"put the published boxes at {tmp_path / 'mine.json'}" in published.remedy("mine", [])
    assert published.state("other", []) == "not available"
    assert "detectors.vitdet_h.published.other" in published.remedy("other", [])
    (tmp_path / "mine.json").touch()
    assert published.state("mine", []) == "ok"


def test_the_list_says_what_is_missing(cards: dict[str, Detector], tmp_path: Path) -> None:
    lines = {line.name: line for line in overview(cards, [tmp_path])}
    assert list(lines) == list(cards)
    assert all((line.status == "ok") == (line.reason == "") for line in lines.values())
    own = lines["vitdet_cascade_h"]
    assert (own.family, own.licence, own.status) == ("ViTDet", "Apache-2.0 / Apache-2.0", "no weights")
    assert f"put model_final_f05665.pkl into {tmp_path}" in own.reason and own.params_m == 688.825
    boxes = tmp_path / "mine.json"
    mine = {"mine": Detector(name="mine", family="mine", published={"a": str(boxes), "b": str(boxes)})}
    (line,) = overview(mine, [])
    assert line.status == "no boxes" and str(boxes) in line.reason
    boxes.touch()
    assert overview(mine, [])[0].status == "ok"


def test_random_weights_need_a_network_that_no_file_describes(cards: dict[str, Detector], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a network that can be built without files"):
        build(cards["rtdetr_r50vd"], Runtime(device="cpu"), [tmp_path], random_weights=True)
    with pytest.raises(InputError, match="expected a detector that can run, found"):
        build(cards["yolov8s"], Runtime(device="cpu"), [tmp_path])


@pytest.mark.ultralytics
@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_successors_of_yolov8_find_boxes(cards: dict[str, Detector], tmp_path: Path, name: str) -> None:
    card = replace(cards[name], arguments={**cards[name].arguments, "size": 160, "limit": 40})
    detector = build(card, Runtime(device="cpu"), [tmp_path], random_weights=True)
    image = np.random.default_rng(0).integers(0, 255, (80, 160, 3), dtype=np.uint8)
    found, again = detector.detect([detector.prepare(image)] * 2)
    assert len(found.scores) == 40 and len(detector.choose_classes([])) == 80
    assert np.array_equal(found.scores, again.scores) and np.isfinite(found.boxes).all()
    # One box per object without suppression: only the head that was trained for it gives boxes ready to use.
    assert detector.module.end2end is (name == "yolo26n")


def test_a_published_file_comes_before_the_network(cards: dict[str, Detector], tmp_path: Path) -> None:
    card = replace(cards["yolov8n"], published={"mine": str(tmp_path / "mine.json")})
    assert card.state("mine", [tmp_path]) == "no boxes"
    assert card.state("other", [tmp_path]) in ("no weights", "not installed")


def test_a_network_runs_in_shards_and_a_file_is_read_as_a_whole(cards: dict[str, Detector], tmp_path: Path) -> None:
    network, file = cards["yolov8n"], replace(cards["vitdet_h"], published={"mine": str(tmp_path / "mine.json")})
    assert network.shard_files("r", "mine", 2) == [f"r/boxes/mine/yolov8n/{i}-of-2.parquet" for i in (0, 1)]
    assert file.shard_files("r", "mine", 2) == ["r/boxes/mine/vitdet_h/0-of-1.parquet"]
    assert network.modules("mine") == ["sambench.detectors.yolo"] and file.modules("mine") == []
    assert network.sources("mine", [tmp_path]) == file.sources("mine", []) == []
    (tmp_path / "mine.json").touch()
    assert file.sources("mine", []) == [str(tmp_path / "mine.json")]


def test_prose_of_a_card_decides_nothing(cards: dict[str, Detector]) -> None:
    card = cards["yolov8n"]
    assert replace(card, notes="other", paper="other").deciding() == card.deciding()
    assert replace(card, top_k=7).deciding() != card.deciding()
    again = Detector(name="yolov8n", family="", **json.loads(json.dumps(cards["rtdetr_r50vd"].deciding())))
    assert [dict(each) for each in again.checkpoints] == list(cards["rtdetr_r50vd"].checkpoints)


def test_what_the_detectors_of_a_study_need(cards: dict[str, Detector]) -> None:
    config = read_registries()
    # Boxes of one's own, which nobody serves.
    config["detectors"]["mine"] = {"family": "mine", "published": {"coco_val2017": "data/boxes/mine.json"}}
    config["prompt_groups"] = {"found": ["vitdet_h", "rtdetr_r50vd", "mine"]}
    config["study"] = {
        **config["study"],
        "datasets": ["coco_val2017"],
        "prompt_groups": ["found"],
        "variants": ["grabcut"],
    }
    items = retrievals(read_study(config)).values()
    names = [name for item in items if item.wanted for name in item.names]
    checkpoints = [file for item in items if item.wanted for file in item.checkpoints]
    assert names == ["coco_annotations", "coco_val2017_images", "coco_vitdet_h"]
    assert [each["file"] for each in checkpoints] == [
        f"rtdetr_r50vd/{file}" for file in ("config.json", "preprocessor_config.json", "model.safetensors")
    ]


def test_files_in_a_folder_of_their_own_keep_it(cards: dict[str, Detector]) -> None:
    items = find(["rtdetr_r50vd"], read_table(), cards, [Path("weights")])
    assert [item.file for item in items] == ["config.json", "preprocessor_config.json", "model.safetensors"]
    assert [str(item.target) for item in items] == [f"weights/rtdetr_r50vd/{item.file}" for item in items]
    assert len({item.name for item in items}) == 3
    assert all("/" not in item.name for item in items), "a name is the name of a folder in the cache"
    assert items[0].urls == ["https://huggingface.co/PekingU/rtdetr_r50vd/resolve/main/config.json"]


# YOLOv8


@pytest.fixture(scope="module")
def yolov8n(shared: Path, cards: dict[str, Detector]) -> BoxDetector:
    return build(cards["yolov8n"], Runtime(device="cpu"), [shared / "data/weights"])


@pytest.mark.ultralytics
@pytest.mark.parametrize("name", ["yolov8n", "yolov8n_seg"])
def test_known_detections(shared: Path, cards: dict[str, Detector], name: str) -> None:
    """Those of verification.json, which were made on a padded square: boxes in pixels of the image, classes by name."""
    known = json.loads((shared / "data/weights/verification.json").read_text())["models"]
    expected = known["seg" if name.endswith("seg") else "det"]
    card = replace(cards[name], arguments={**cards[name].arguments, "confidence": 0.25, "overlap": 0.65})
    detector: Any = build(card, Runtime(device="cpu"), [shared / "data/weights"])
    detector.letterbox = detector.library.LetterBox(640, auto=False)
    names = detector.choose_classes([])
    entries = [entry for entry in expected["images"] if (shared / "data" / entry["file"]).is_file()]
    pictures = [np.array(Image.open(shared / "data" / entry["file"]).convert("RGB")) for entry in entries]
    assert entries
    for entry, found in zip(entries, detector.detect([detector.prepare(each) for each in pictures]), strict=True):
        assert abs(len(found.scores) - entry["n"]) <= 1  # a box may have two classes here
        for detection in entry["detections"]:
            distances = np.abs(found.boxes - detection["xyxy"]).max(axis=1)
            i = int(distances.argmin())
            assert distances[i] < 1
            assert found.scores[i] == pytest.approx(detection["score"], abs=0.01)
            assert names[found.classes[i]] == detection["name"]


def yolo_boxes(detector: BoxDetector, annotations: Path, images: pd.DataFrame) -> pd.DataFrame:
    document = read_annotations(annotations)
    categories = read_categories(document, annotations)
    ids = category_ids(detector.choose_classes([each.name for each in categories]), categories)
    assert UNKNOWN not in ids
    return find_boxes(detector, images, ids, Limits(0.0, 100), 8)


@pytest.mark.ultralytics
def test_ap_of_yolov8n_on_a_few_images(shared: Path, subset: tuple[Path, pd.DataFrame], yolov8n: BoxDetector) -> None:
    annotations, images = subset
    few = images.iloc[::12]
    table = yolo_boxes(yolov8n, annotations, few)
    ids = few["image_id"].tolist()
    other = json.loads((shared / "data/detections_coco_val2017_subset/yolov8n_int8_bbox.json").read_text())
    ap, reference = (average_precision(annotations, rows, ids)[0] for rows in (as_results(table), other))
    assert reference > 0.3
    assert ap == pytest.approx(reference, abs=0.03)  # 13 images: one detection more or less moves it
    sizes = few.set_index("image_id").loc[table["image_id"]]
    assert (table["x"] + table["w"] <= sizes["width"].to_numpy() + 1e-9).all()
    assert (table["y"] + table["h"] <= sizes["height"].to_numpy() + 1e-9).all()


@pytest.mark.ultralytics
@pytest.mark.slow
def test_ap_of_yolov8n_is_that_of_its_known_outputs(subset: tuple[Path, pd.DataFrame], yolov8n: BoxDetector) -> None:
    annotations, images = subset
    ap = average_precision(annotations, as_results(yolo_boxes(yolov8n, annotations, images)))[0]
    assert ap == pytest.approx(DETECTIONS["yolov8n_int8_bbox"], abs=0.005)


@pytest.mark.ultralytics
def test_no_image_is_given_up_on_a_slow_machine(monkeypatch: pytest.MonkeyPatch, yolov8n: Any) -> None:
    """The suppression of ultralytics leaves the rest of a batch without boxes once its time is over."""
    import ultralytics.utils.nms as nms

    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(nms.time, "time", lambda: next(clock))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    found = yolov8n.detect([yolov8n.prepare(pixels)] * 3)
    assert len({len(each.scores) for each in found}) == 1


@pytest.mark.ultralytics
def test_a_published_model_brings_its_names(tmp_path: Path) -> None:
    import torch

    from sambench.detectors.yolo import build_yolo
    from sambench.variants.yolo import ultralytics

    donor = ultralytics().DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    donor.names = {0: "cat", 1: "dog"}
    torch.save({"model": donor.half(), "ema": None, "train_args": {}}, tmp_path / "yolov8n.pt")
    detector = build_yolo(Runtime(device="cpu"), config="yolov8n.yaml", classes=2, size=64)
    detector.load_files([tmp_path / "yolov8n.pt"])
    assert list(detector.choose_classes(["dog"])) == ["cat", "dog"]
    with pytest.raises(InputError, match="names: expected 80 classes, as the card has it, found 2 names"):
        build_yolo(Runtime(device="cpu"), config="yolov8n.yaml").load_files([tmp_path / "yolov8n.pt"])


def test_one_network_in_both_registries_has_one_file() -> None:
    """yolov8n_seg prompts as a detector and answers as a variant."""
    registries = read_registries()
    files = [registries[kind]["yolov8n_seg"]["checkpoints"][0]["file"] for kind in ("detectors", "variants")]
    assert files[0] == files[1]
