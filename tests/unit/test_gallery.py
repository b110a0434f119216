"""The gallery: which instances it picks, the masks that it keeps, and what the report gets of them."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sambench.errors import InputError
from sambench.evaluate.segany import ChosenIous, evaluate, plan
from sambench.gallery.masks import KeptMasks, table
from sambench.gallery.pick import Field, Pick, ahead, field, pick, with_chosen
from sambench.gallery.pictures import SIDE, pictured
from sambench.gallery.view import POINTS, of_dataset, path, read_gallery
from sambench.jobs import gallery_file, picks_file
from sambench.masks import decode_rle, encode_rle
from sambench.parquet import inputs, read_parquet, write_parquet
from sambench.records import GALLERY, IMAGES, PICKS
from sambench.results.paired import Scores, System
from sambench.status import NO_WEIGHTS, OK, UNSUPPORTED_PROMPT
from sambench.variants.base import Runtime
from sambench.variants.baselines import BoxFill

SMALL, MEDIUM, LARGE = 500.0, 5000.0, 50000.0


def scores(iou: list[list[float]], areas: list[float], systems: str, **facts: list[object]) -> Scores:
    """One row of IoU per instance; annotation 10, 11, ..., each in an image of its own. systems: their variants."""
    count = len(areas)
    rows = {"annotation_id": range(10, 10 + count), "image_id": range(count), "category_id": 1}
    instances = pd.DataFrame(rows | {"area": areas, "iscrowd": False} | facts)
    names = tuple(System(name, "eager") for name in systems.split())
    return Scores(instances, names, np.array(iou, dtype=float), ("ok",) * len(names))


def field_of(given: Scores) -> Field:
    return field(given, networks={"a", "b", "c"}, ceilings={"truth"})


def test_ahead_of_the_mean_of_the_others() -> None:
    found = ahead(np.array([[90.0, 60.0, 30.0], [50.0, np.nan, 20.0]]))
    np.testing.assert_allclose(found, [[45, 0, -45], [30, np.nan, -30]])
    np.testing.assert_allclose(ahead(np.array([[70.0]])), [[70]])


def test_disagreement_then_the_worst_then_the_best() -> None:
    """By hand: the box is worth nothing where networks compete; sizes come in turn, small, medium, large."""
    iou = [
        [90.0, 20.0, 100.0, 0.0],  # small: 70 apart, b is 70 behind
        [80.0, 79.0, 100.0, 0.0],  # small
        [50.0, 95.0, 100.0, 0.0],  # medium: a is 45 behind b
        [99.0, 98.0, 100.0, 0.0],  # medium
        [60.0, 30.0, 100.0, 0.0],  # large: a leads by 30
        [10.0, 15.0, 100.0, 0.0],  # large: b leads by 5
    ]
    given = scores(iou, [SMALL, SMALL, MEDIUM, MEDIUM, LARGE, LARGE], "a b truth box_fill")
    assert pick({"box": field_of(given)}, 3) == [
        Pick(10, "box", "variants disagree most"),
        Pick(12, "box", "worst of a against the others"),
        Pick(14, "box", "best of a against the others"),
    ]
    # The next round starts a size later, and the other variant's turn has come: of what is left in the medium size 13,
    # where they are 1 apart, then b's worst of the large ones, then its best of the small ones.
    assert pick({"box": field_of(given)}, 6)[3:] == [
        Pick(13, "box", "variants disagree most"),
        Pick(15, "box", "worst of b against the others"),
        Pick(11, "box", "best of b against the others"),
    ]
    assert len(pick({"box": field_of(given)}, 50)) == 6, "no more than there are"


def test_prompts_take_turns_and_no_instance_comes_twice() -> None:
    random = np.random.default_rng(0)
    fields = {
        prompt: field_of(scores(random.uniform(0, 100, (30, 3)).tolist(), [MEDIUM] * 30, "a b c"))
        for prompt in ("box", "mask_center")
    }
    found = pick(fields, 12)
    assert [each.prompt for each in found] == ["box", "mask_center"] * 6
    assert len({each.annotation_id for each in found}) == 12
    worst = [each.reason for each in found if each.reason.startswith("worst")]
    assert len({*worst}) == 3, "each variant once before any is again"


def test_an_image_comes_again_only_when_no_other_is_left() -> None:
    iou = [[90.0, 10.0], [90.0, 11.0], [90.0, 80.0]]
    given = scores(iou, [MEDIUM] * 3, "a b", image_id=[1, 1, 2])
    assert [each.annotation_id for each in pick({"box": field_of(given)}, 3)] == [10, 12, 11]


def test_crowds_and_specks_only_when_there_is_nothing_else() -> None:
    iou = [[90.0, 10.0], [90.0, 20.0], [90.0, 80.0]]
    given = scores(iou, [MEDIUM, 50.0, MEDIUM], "a b", iscrowd=[True, False, False])
    assert [each.annotation_id for each in pick({"box": field_of(given)}, 3)] == [12]
    specks = scores(iou, [50.0] * 3, "a b")
    assert len(pick({"box": field_of(specks)}, 3)) == 3


def test_a_single_variant_shows_its_worst_and_its_best() -> None:
    given = scores([[50.0, 100.0], [5.0, 100.0], [95.0, 100.0]], [MEDIUM] * 3, "a truth")
    assert [(each.annotation_id, each.reason) for each in pick({"box": field_of(given)}, 3)] == [
        (11, "worst of a"),
        (10, "worst of a"),
        (12, "best of a"),
    ]


def test_without_numbers_nothing_is_picked() -> None:
    given = scores([[np.nan, 100.0]] * 2, [MEDIUM] * 2, "a truth")
    assert pick({"box": field_of(given)}, 6) == []


def test_chosen_annotations_come_first_with_every_prompt() -> None:
    picks = [Pick(1, "box", "x"), Pick(2, "box", "y")]
    found = with_chosen(picks, [2], ["box", "mask_center"], {1, 2, 3}, "d")
    assert found == [Pick(2, "box", "chosen"), Pick(2, "mask_center", "chosen"), Pick(1, "box", "x")]
    with pytest.raises(
        InputError, match=r"study\.gallery_annotations\.d: expected annotations of the dataset, found 9"
    ):
        with_chosen([], [9], ["box"], {1}, "d")


@pytest.fixture
def small(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An image of 60 x 40 with a disk, picked with a box of twice its area and with a point."""
    y, x = np.mgrid[:40, :60]
    disk = (x - 30) ** 2 + (y - 20) ** 2 <= 100
    Image.fromarray(np.full((40, 60, 3), 90, dtype=np.uint8)).save(tmp_path / "1.png")
    facts = {"orientation": 1, "scaling": "", "identity": "", "judged_category_ids": [[1]]}
    images = pd.DataFrame({"image_id": [1], "path": [str(tmp_path / "1.png")], "width": 60, "height": 40} | facts)
    truth = {"annotation_id": 5, "image_id": 1, "category_id": 7, "x": 20.0, "y": 10.0, "w": 21.0, "h": 21.0}
    truth |= {"area": float(disk.sum()), "iscrowd": False, "rle_size": [40, 60], "rle_counts": encode_rle(disk)}
    instances = pd.DataFrame([truth]).set_index("annotation_id", drop=False)
    own = {"annotation_id": 5, "image_id": 1}
    prompts = {
        "box": pd.DataFrame([own | {"points": None, "labels": None, "box": [20.0, 10.0, 41.0, 31.0]}]),
        "mask_center": pd.DataFrame([own | {"points": [30.0, 20.0], "labels": [1], "box": None}]),
    }
    picks = [Pick(5, "box", "chosen"), Pick(5, "mask_center", "chosen")]
    return images, pictured(picks, instances, prompts, images, {7: "disk"})


def test_a_picture_is_the_part_around_the_instance(small: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    _, picks = small
    assert picks["category"].tolist() == ["disk"] * 2
    # Small: of 96 pixels as many as the image has.
    assert picks["window"].iloc[0] == [0, 0, 60, 40]
    pixels = cv2.imdecode(np.frombuffer(picks["picture"].iloc[0], np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (round(40 * SIDE / 60), SIDE, 3)
    np.testing.assert_allclose(pixels, 90, atol=3)


def test_masks_are_kept_with_the_scores_of_segany(small: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    images, picks = small
    variant = BoxFill(Runtime(name="eager", device="cpu"))
    truth = picks.drop_duplicates("annotation_id").reset_index(drop=True)
    tasks = plan(images, truth, picks)
    kept, scored = KeptMasks(len(picks)), ChosenIous(len(picks))
    evaluate(variant, tasks, kept)
    evaluate(variant, tasks, scored)
    rows = table(picks, kept)
    assert rows["status"].tolist() == [OK, UNSUPPORTED_PROMPT]
    assert rows["rle_counts"].iloc[1] is None
    mask = decode_rle(rows["rle_size"].iloc[0], rows["rle_counts"].iloc[0])
    expected = np.zeros((40, 60), dtype=bool)
    expected[10:31, 20:41] = True
    np.testing.assert_array_equal(mask, expected)
    assert rows["iou"].iloc[0] == scored.iou["argmax"][0] == picks["area"].iloc[0] / 21**2

    # Through files, as the stages do it.
    indexed = tmp_path / "images.parquet"
    write_parquet(indexed, images, IMAGES, {})
    file = Path(picks_file(tmp_path, "d"))
    write_parquet(file, picks, PICKS, inputs(images=indexed))
    for variant_name, content, state in (
        ("box_fill", rows, OK),
        ("absent", table(picks, KeptMasks(len(picks), NO_WEIGHTS)), NO_WEIGHTS),
    ):
        where = Path(gallery_file(tmp_path, "d", variant_name, "eager"))
        write_parquet(where, content, GALLERY, {"status": state} | inputs(picks=file))
    jobs = [["d", "box_fill", "eager"], ["d", "absent", "eager"]]
    (entry,) = read_gallery(tmp_path, {"d": file}, jobs)
    assert entry["without"] == {"eager": "no weights (absent)"}
    box, point = entry["pictures"]
    assert [mask[:2] for mask in box["masks"]["eager"]] == [["box_fill", round(100 * rows["iou"].iloc[0], 1)]]
    assert box["without"] == {"eager": ""} and point["without"] == {"eager": "unsupported prompt (box_fill)"}
    assert point["masks"] == {"eager": []} and point["box"] == [] and point["labels"] == [1]
    scale = SIDE / 60
    assert box["box"] == [[round(20 * scale), round(10 * scale)], [round(41 * scale), round(31 * scale)]]
    assert point["points"] == [[round(30 * scale), round(20 * scale)]]
    assert base64.b64decode(box["data"].partition(",")[2]) == picks["picture"].iloc[0]

    # Picks that were made again: masks of other ones are refused.
    write_parquet(file, picks.assign(reason="another"), PICKS, inputs(images=indexed))
    with pytest.raises(InputError, match="picks"):
        read_gallery(tmp_path, {"d": file}, jobs)
    assert read_parquet(file, PICKS).num_rows == 2


def drawn(outline: str, size: tuple[int, int]) -> np.ndarray:
    """An outline filled again, with OpenCV."""
    parts = []
    for part in re.findall(r"M(-?\d+) (-?\d+)([^M]*)z", outline):
        steps = [list(map(int, step.split())) for step in part[2].split("l") if step]
        parts.append(np.cumsum([[int(part[0]), int(part[1])], *steps], axis=0).astype(np.int32))
    canvas = np.zeros(size, dtype=np.uint8)
    cv2.fillPoly(canvas, parts, 1)  # by the rule of even and odd
    return canvas.astype(bool)


def test_an_outline_is_the_mask_with_its_hole() -> None:
    y, x = np.mgrid[:100, :200]
    ring = ((x - 100) ** 2 + (y - 50) ** 2 < 40**2) & ((x - 90) ** 2 + (y - 50) ** 2 > 15**2)
    window = [50, 0, 150, 100]
    found = drawn(path(ring, window), (SIDE, SIDE))
    expected = cv2.resize(ring[:, 50:150].astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).astype(bool)
    assert (found & expected).sum() / (found | expected).sum() > 0.97


def test_a_ragged_mask_stays_small() -> None:
    noise = np.random.default_rng(0).random((400, 400)) < 0.5
    text = path(noise, [0, 0, 400, 400])
    assert text and len(re.findall("[Ml]", text)) <= POINTS
    assert path(np.zeros((40, 40), dtype=bool), [0, 0, 40, 40]) == ""


def test_a_data_set_without_picks_says_why() -> None:
    empty = pd.DataFrame(columns=PICKS.names)
    rows = pd.DataFrame(columns=GALLERY.names)
    entry = of_dataset("d", empty, {("a", "eager"): rows}, {("a", "eager"): NO_WEIGHTS})
    assert entry["pictures"] == [] and entry["without"] == {"eager": "no weights (a)"}
