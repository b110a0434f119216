"""`sambench score`: figures of the references, and one line for every wrong file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sambench.cli import app
from sambench.errors import InputError
from sambench.evaluate import score as module
from sambench.evaluate.score import score
from sambench.masks import encode_rle

SIZE = [20, 30]
MASK = np.zeros(SIZE, bool)
MASK[5:15, 5:15] = True
RLE = {"size": SIZE, "counts": encode_rle(MASK).decode()}


def truth() -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "area": 100, "iscrowd": 0, "bbox": [5, 5, 10, 10]}
    return {
        "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}, {"id": 2, "height": 8, "width": 9}],
        "annotations": [annotation | {"segmentation": dict(RLE)}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def lvis_truth() -> dict[str, Any]:
    document = truth()
    for image in document["images"]:
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    for category in document["categories"]:
        category["frequency"] = "r"
    return document


def results() -> list[dict[str, Any]]:
    return [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": dict(RLE), "bbox": [5, 5, 10, 10]}]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write ground truth and results; a str is written as it is."""

    def write(*contents: Any) -> tuple[Path, Path]:
        paths = tmp_path / "truth.json", tmp_path / "results.json"
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return paths

    return write


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_the_command_gives_the_24_figures(shared: Path, iou_type: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared / "data/eval_fixtures/cocoapi"
    expected = json.loads((folder / "expected_stats.json").read_text())[iou_type]
    arguments = ["score", "instances_val2014_100.json", f"instances_val2014_fake{iou_type}100_results.json"]
    with pytest.raises(SystemExit) as end:
        app([arguments[0], *(str(folder / name) for name in arguments[1:]), "--iou-type", iou_type])
    assert end.value.code in (None, 0)
    found = json.loads(capsys.readouterr().out)
    assert list(found.values())[:12] == expected
    assert list(found)[:7] == ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1"]
    assert found["iou_type"] == iou_type and found["rules"] == "COCO"


def test_the_geometry_is_found_out(files: Callable[..., tuple[Path, Path]]) -> None:
    assert score(*files(truth(), results()))["iou_type"] == "segm"
    boxes = [{name: value for name, value in result.items() if name != "segmentation"} for result in results()]
    found = score(*files(truth(), boxes))
    assert found["iou_type"] == "bbox" and found["ap"] == pytest.approx(1)


def test_lvis_is_recognized(files: Callable[..., tuple[Path, Path]]) -> None:
    found = score(*files(lvis_truth(), results()))
    assert found["rules"] == "LVIS" and found["ap_rare"] == pytest.approx(1) and found["ap_common"] == -1
    # Image 2 says nothing of category 1, so that LVIS cannot judge this detection; to COCO it is wrong.
    whole = {"size": [8, 9], "counts": encode_rle(np.ones((8, 9), bool)).decode()}
    unjudged = results()[0] | {"image_id": 2, "score": 0.9, "segmentation": whole}
    found = score(*files(lvis_truth(), [*results(), unjudged]))
    assert found["ap"] == pytest.approx(1) and found["detections"] == 2
    assert score(*files(truth(), [*results(), unjudged]))["ap"] == pytest.approx(0.5)


def test_class_agnostic(files: Callable[..., tuple[Path, Path]]) -> None:
    paths = files(truth(), [results()[0] | {"category_id": 3}])
    assert score(*paths)["ap"] == 0
    assert score(*paths, class_agnostic=True)["ap"] == pytest.approx(1)


@pytest.mark.parametrize("document", [truth(), lvis_truth()])
@pytest.mark.parametrize("iou_type", ["", "bbox", "segm"])
def test_no_results_at_all(files: Callable[..., tuple[Path, Path]], document: dict[str, Any], iou_type: str) -> None:
    found = score(*files(document, " [ ] "), iou_type)
    assert found["ap"] == found["ap_small"] == 0 and found["ap_large"] == -1 and found["detections"] == 0


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_results_are_read_in_pieces(
    files: Callable[..., tuple[Path, Path]], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    entries = [{"a": f"}}{i}], [{{"} for i in range(20)] + [{"b": [1.5, {"c": None}]}]
    for indent in (None, 3):
        _, path = files("", json.dumps(entries, indent=indent) + "\n")
        assert list(module._entries(path)) == entries


def changed(place: str, value: Any) -> Any:
    """A result with one field replaced, or removed where the value is None."""
    result = results()
    fields = place.split(".")
    entry: Any = result[0]
    for field in fields[:-1]:
        entry = entry[field]
    if value is None:
        del entry[fields[-1]]
    else:
        entry[fields[-1]] = value
    return result


@pytest.mark.parametrize(
    ("content", "iou_type", "message"),
    [
        ("", "", r"expected a list of results, found none; give a list"),
        ("<html>", "", r"expected a list of results, found '<html>'; give a list"),
        ({"annotations": []}, "", r"expected a list of results, found .*annotations"),
        ('[{"image_id": 1', "", r"\[0\]: expected JSON, found .*; write the file again"),
        ('[{"image_id": 1} {}]', "", r"\[0\]: expected JSON, found no comma after it; write"),
        (json.dumps(results())[:-1] + ",]", "", r"\[1\]: expected JSON, found the end of the file"),
        ([5], "", r"\[0\]: expected an object, found 5"),
        (changed("image_id", 77), "", r"\[0\]\.image_id: expected an image id of truth\.json, found 77; score against"),
        (changed("image_id", "1"), "", r"\[0\]\.image_id: expected an image id of truth\.json, found '1'"),
        (changed("category_id", 2), "", r"\[0\]\.category_id: expected a category id of truth\.json, found 2; transl"),
        (changed("category_id", True), "", r"\[0\]\.category_id: expected .*, found True"),
        (changed("score", None), "", r"\[0\]\.score: expected a finite number, found none; add the confidence"),
        (changed("score", float("nan")), "", r"\[0\]\.score: expected a finite number, found nan"),
        (changed("score", "0.5"), "", r"\[0\]\.score: expected a finite number, found '0\.5'"),
        (changed("bbox", [1, 2, 3]), "bbox", r"\[0\]\.bbox: expected x, y, width, height.*, found \[1, 2, 3\]"),
        (changed("bbox", [1, 2, -3, 4]), "bbox", r"\[0\]\.bbox: expected .* no negative size, found \[1, 2, -3, 4\]"),
        (changed("bbox", None), "bbox", r"\[0\]\.bbox: expected .*, found none; score the masks with --iou-type segm"),
        (changed("segmentation", None), "segm", r"\[0\]\.segmentation: expected .*; score the boxes with --iou-type"),
        (changed("segmentation", [[1, 2, 3, 4, 5, 6]]), "", r"\[0\]\.segmentation: expected a compressed RLE"),
        (
            changed("segmentation.size", [30, 20]),
            "",
            r"\[0\]\.segmentation\.size: expected .*\[20, 30\], found \[30, 20\]",
        ),
        (
            changed("segmentation.counts", "zzz"),
            "",
            r"\[0\]\.segmentation\.counts: expected runs that sum to .*600, found 'z",
        ),
        (
            changed("segmentation.counts", "0"),
            "",
            r"\[0\]\.segmentation\.counts: expected runs that sum to .*600, found '0'",
        ),
    ],
)
def test_wrong_results(files: Callable[..., tuple[Path, Path]], content: Any, iou_type: str, message: str) -> None:
    paths = files(truth(), content)
    with pytest.raises(InputError, match=r"results\.json: " + message) as error:
        score(*paths, iou_type)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_far_result_is_named(files: Callable[..., tuple[Path, Path]]) -> None:
    with pytest.raises(InputError, match=r"results\.json: \[123\]\.score"):
        score(*files(truth(), results() * 123 + changed("score", None) + results()))


def without(document: dict[str, Any], place: str) -> dict[str, Any]:
    entry: Any = document
    *fields, last = place.split(".")
    for field in fields:
        entry = entry[int(field) if field.isdigit() else field]
    del entry[last]
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[1", "expected JSON"),
        ([], "expected a JSON object, found a list"),
        (truth() | {"categories": truth()["categories"] * 2}, "categories: expected ids that differ, found 2 repeated"),
        (without(truth(), "images.1.height"), r"images\[1\]\.height: expected an integer"),
        (truth() | {"images": truth()["images"] + truth()["images"][:1]}, r"images\[2\]\.id: expected an id that no"),
        (truth() | {"images": truth()["images"][1:]}, r"annotations\[0\]\.image_id: expected an id listed under"),
        (truth() | {"categories": truth()["categories"][1:]}, r"annotations\[0\]\.category_id: expected an id listed"),
        (without(truth(), "annotations.0.segmentation"), r"annotations\[0\]\.segmentation: expected polygons or an"),
        (without(truth(), "annotations.0.segmentation.size"), r"annotations\[0\]\.segmentation\.size: expected"),
        (without(lvis_truth(), "images.1.neg_category_ids"), r"images\[1\]\.neg_category_ids: expected a list of cat"),
        (without(lvis_truth(), "categories.0.frequency"), r"categories\[0\]\.frequency: expected r, c or f"),
    ],
)
def test_wrong_ground_truth(files: Callable[..., tuple[Path, Path]], document: Any, message: str) -> None:
    paths = files(document, results())
    with pytest.raises(InputError, match=r"truth\.json: " + message) as error:
        score(*paths, "segm")
    assert "\n" not in str(error.value)


def test_other_mistakes(files: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    paths = files(truth(), results())
    with pytest.raises(InputError, match="--iou-type: expected segm or bbox, found mask"):
        score(*paths, "mask")
    with pytest.raises(InputError, match=r"absent\.json: expected a readable file, found No such file"):
        score(paths[0], tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"absent\.json: expected a readable file, found No such file"):
        score(tmp_path / "absent.json", paths[1])
