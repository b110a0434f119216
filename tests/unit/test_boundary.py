"""Boundary IoU and boundary AP: small cases by hand, and numbers that the authors' code gave."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_average_precision import adversarial

from sambench import masks
from sambench.boundary import boundary, boundary_iou, width_of
from sambench.evaluate.boundary_precision import boundary_ap, boundary_precision
from sambench.evaluate.rules import COCO, LVIS
from sambench.evaluate.score import Truth
from sambench.evaluate.segany import ChosenIous, evaluate, plan, result_table
from sambench.jobs import Job
from sambench.results.tables.boundary import SCHEMA, draw, lines
from sambench.status import NO_WEIGHTS, OK
from sambench.variants.base import Runtime
from sambench.variants.baselines import BoxFill


def disc(size: tuple[int, int], x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    found: np.ndarray = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return found


def published(mask: np.ndarray) -> np.ndarray:
    """The boundary as the paper has it: the mask without what 3x3 erosions leave, with zeros all around."""
    size = mask.shape
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    steps = max(1, round(0.02 * float(np.hypot(*size))))
    left = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
    return mask & ~left.astype(bool)


@pytest.mark.parametrize(("size", "width"), [((480, 640), 16), ((24, 32), 1), ((1, 1), 1), ((333, 500), 12)])
def test_width_is_two_per_cent_of_the_diagonal(size: tuple[int, int], width: int) -> None:
    assert width_of(*size) == width


def test_a_square_by_hand() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True  # 10 x 10, of which the inner 6 x 6 are deeper than two pixels
    found = boundary(mask, 2)
    assert (found.corner, found.area) == ((5, 5), 100 - 36)
    moved = np.roll(mask, 1, axis=1)
    # Columns 6 to 14 of rows 5 to 14 are in both; of these, 5 x 6 are deep in both and 2 x 6 in one of them alone.
    assert boundary_iou(found, boundary(moved, 2)) == (90 - 30 - 12) / (64 + 64 - 48)
    whole = boundary(np.ones((8, 8), bool), 2)
    assert whole.area == 64 - 16, "what is cut by the image's border has a boundary there"


def test_masks_that_share_nothing_or_are_empty() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:5, :5] = True
    empty = boundary(np.zeros_like(mask), 1)
    assert boundary_iou(empty, empty) == 0.0 and boundary_iou(empty, boundary(mask, 1)) == 0.0
    assert boundary_iou(boundary(mask, 1), boundary(mask[::-1, ::-1], 1)) == 0.0
    assert boundary_iou(boundary(mask, 1), boundary(mask, 1)) == 1.0


# Pixels of both boundaries, of their intersection and union, by mask_to_boundary of the authors' code.
OFFICIAL = {
    "a disc": ((120, 160), (80, 60, 40), (84, 63, 40), (1204, 1204, 458, 1950)),
    "cut by the border": ((120, 160), (0, 60, 50), (6, 60, 50), (1131, 1179, 624, 1686)),
    "all boundary": ((480, 640), (300, 200, 9), (305, 200, 9), (253, 253, 166, 340)),
    "large": ((480, 640), (320, 240, 200), (330, 240, 190), (24516, 23236, 12409, 35343)),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_equal_to_the_official_code(name: str) -> None:
    size, one, two, (area_a, area_b, shared, union) = OFFICIAL[name]
    a, b = (boundary(disc(size, *circle), width_of(*size)) for circle in (one, two))
    assert (a.area, b.area) == (area_a, area_b)
    assert boundary_iou(a, b) == shared / union


def test_equal_to_the_definition_on_random_masks() -> None:
    random = np.random.default_rng(4)
    for _ in range(40):
        size = (int(random.integers(1, 130)), int(random.integers(1, 130)))
        pair = []
        for _ in range(2):
            blobs = cv2.blur(random.random(size).astype(np.float32), (9, 9)) > random.choice([0.45, 0.5, 0.52])
            pair.append(blobs & disc(size, size[1] // 2, size[0] // 2, int(random.integers(1, 70))))
        expected = [published(mask) for mask in pair]
        found = [boundary(mask, width_of(*size)) for mask in pair]
        assert [each.area for each in found] == [int(each.sum()) for each in expected]
        union = (expected[0] | expected[1]).sum()
        assert boundary_iou(*found) == ((expected[0] & expected[1]).sum() / union if union else 0)


# AP of `boundary_iou.coco_instance_api` on the documents of test_average_precision, by seed: with categories, without.
OFFICIAL_AP = {
    0: (5.61056105610561, 4.110158915051168),
    1: (8.643373952779895, 6.297713012144722),
    2: (3.806380638063806, 2.478247824782478),
}


def truth_of(seed: int) -> tuple[Truth, list[dict[str, object]]]:
    document, results = adversarial(seed)
    by_image: dict[int, list[dict[str, object]]] = {}
    for row in document["annotations"]:
        by_image.setdefault(row["image_id"], []).append(row)
    truth = Truth({image["id"]: image for image in document["images"]}, by_image, document["categories"], COCO)
    return truth, [{name: row[name] for name in row if name != "bbox"} for row in results]


@pytest.mark.parametrize("seed", OFFICIAL_AP)
def test_boundary_ap_equals_the_official_code(seed: int) -> None:
    truth, results = truth_of(seed)
    found = [boundary_ap(truth, results, class_agnostic=agnostic) for agnostic in (False, True)]
    assert found == pytest.approx(list(OFFICIAL_AP[seed]), rel=1e-12)


def test_boundary_ap_of_shards_and_of_nothing() -> None:
    truth, results = truth_of(0)
    rows = pd.DataFrame(
        {
            **{name: [row[name] for row in results] for name in ("image_id", "category_id", "score")},
            "rle_size": [row["segmentation"]["size"] for row in results],  # type: ignore[index]
            "rle_counts": [row["segmentation"]["counts"].encode() for row in results],  # type: ignore[index]
            "detector": "mine",
            "selection": "argmax",
            "status": OK,
        }
    )
    shards = [rows.iloc[:20], rows.iloc[20:], rows.assign(selection="single"), rows.assign(status="out of memory")]
    found = boundary_precision(truth, [("mine", "argmax"), ("other", "argmax")], lambda: shards)
    assert found[("mine", "argmax")] == pytest.approx(OFFICIAL_AP[0][0], rel=1e-12)
    assert found[("other", "argmax")] == 0.0
    federated = Truth(truth.images, truth.annotations, truth.categories, LVIS)
    assert boundary_precision(federated, [("mine", "argmax")], lambda: shards) == {}


def test_every_row_of_segany_has_its_boundary_iou(tmp_path: Path) -> None:
    """A square of 40 x 40 pixels and a box that is two columns wider, in an image whose boundary is 2 pixels wide."""
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:60] = True
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "1.png")
    images = pd.DataFrame({"image_id": [1], "path": [str(tmp_path / "1.png")], "width": 80, "height": 60})
    facts = {"annotation_id": [7], "image_id": [1], "category_id": 1, "area": 1600.0, "iscrowd": False}
    instances = pd.DataFrame({**facts, "rle_size": [[60, 80]], "rle_counts": [masks.encode_rle(mask)]})
    boxes = [np.array(edges, np.float32) for edges in ([20, 10, 62, 50], [20, 10, 60, 50])]
    prompts = pd.DataFrame({"annotation_id": [7, 7], "image_id": 1, "prompt": ["box", "tight_box"], "box": boxes})
    prompts = prompts.assign(points=None, labels=None)
    scores = ChosenIous(2, boundary=True)
    evaluate(BoxFill(Runtime(device="cpu")), plan(images, instances, prompts), scores)
    table = result_table(prompts, instances, scores)
    truth, wide = 40 * 40 - 36 * 36, 42 * 40 - 38 * 36
    # In both boundaries: two rows of 40 above and below, and two columns of 36 on the left.
    shared = 4 * 40 + 2 * 36
    assert table["boundary_iou"].tolist() == [shared / (truth + wide - shared), 1.0]
    scores = ChosenIous(2)
    evaluate(BoxFill(Runtime(device="cpu")), plan(images, instances, prompts), scores)
    assert np.isnan(scores.boundary_iou).all(), "nobody asked"


def test_the_table_by_hand() -> None:
    rows = pd.DataFrame(
        {"image_id": [1, 1, 2], "area": [100.0, 2000.0, 9999.0], "iscrowd": False, "prompt": "box", "status": OK}
        | {"iou": [0.5, 0.7, 0.9], "boundary_iou": [0.5, 0.4, 0.3]}
    )
    job, bootstrap = Job("d", "v", "eager", "g"), {"resamples": 100, "seed": 0}
    table = pd.DataFrame(lines(job, "box", rows, {"statistics": bootstrap}))
    assert set(table.columns) == set(SCHEMA.names)
    line = table.iloc[0]
    assert [line["boundary_iou"], line["miou"]] == pytest.approx([40, 70])
    assert [line[f"boundary_iou_{size}"] for size in ("small", "medium", "large")] == pytest.approx([50, 40, 30])
    nothing = pd.DataFrame(
        lines(job, "box", rows.assign(status=NO_WEIGHTS), {"statistics": bootstrap}), columns=SCHEMA.names
    ).iloc[0]
    assert pd.isna(nothing["boundary_iou"]) and nothing["status"] == NO_WEIGHTS
    assert "boundary IoU, %" in str(draw(table).static)
