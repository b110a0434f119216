"""Spoilt images: pixels against the package that everybody uses, the measure by hand, the table by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from sambench import masks
from sambench.config import read_registries, read_study
from sambench.corruptions import (
    CLEAN,
    COMMON,
    JPEG_QUALITY,
    SCALE,
    Change,
    _shuffled,
    corrupt,
    scaled_mask,
    stream,
)
from sambench.downloads.catalogue import retrievals
from sambench.downloads.textures import CHECKPOINTS, textures
from sambench.evaluate.segany import plan
from sambench.measure.corruptions import Source, measure, resized
from sambench.prompts import make_prompts
from sambench.record_checks import impossible
from sambench.records import CORRUPTIONS
from sambench.results.tables.corruptions import ALL, SCHEMA, curves, draw, lines
from sambench.settings import COMMON_CORRUPTIONS
from sambench.status import NO_TEXTURES, NO_WEIGHTS, OK, TOO_SMALL, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import MaskCandidates, Prompts, Runtime, Upsampling, Variant
from sambench.variants.baselines import GroundTruth

REFERENCE = json.loads(Path(__file__).with_name("imagecorruptions.json").read_text(encoding="utf-8"))
FACTS = {"dataset": "d", "variant": "v", "runtime": "eager", "device": "x"}


def picture(height: int = 70, width: int = 90) -> np.ndarray:
    """Ramps, a flat patch and a black one; the reference pixels were made of it."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([(x * 3 + y) % 256, (y * 5) % 256, (x * y // 7) % 256], -1).astype(np.uint8)
    pixels[20:50, 30:60] = (200, 40, 90)
    pixels[5:15, 5:25] = 0
    return pixels


@pytest.mark.parametrize("case", [case for case in REFERENCE["values"] if not case.startswith("frost/")])
def test_pixels_are_those_of_the_package(case: str) -> None:
    """imagecorruptions-imaug 1.1.5 with the same stream: 16 pixels per corruption and severity."""
    name, _, severity = case.partition("/")
    found = corrupt(picture(), Change(name, float(severity)), np.random.RandomState(7))
    chosen = found.reshape(-1, 3)[REFERENCE["pixels"]].astype(int)
    # Ours does not go to HSV and back for `brightness`: what is cut to a whole number may be one off.
    assert np.abs(chosen - REFERENCE["values"][case]).max() <= 1
    assert np.mean(chosen != REFERENCE["values"][case]) <= (0.25 if name == "brightness" else 0.02)


def test_every_common_corruption_is_there() -> None:
    assert COMMON == COMMON_CORRUPTIONS and len(COMMON) == 15
    assert {case.partition("/")[0] for case in REFERENCE["values"]} == set(COMMON)


def test_glass_is_a_sequence_of_copies() -> None:
    """The published loop, pixel by pixel: the one that is moved is overwritten, the other stays."""
    pixels = np.random.RandomState(1).randint(0, 256, (13, 17, 3)).astype(np.uint8)
    for reach in (1, 2, 4):
        random, expected = np.random.RandomState(3), pixels.copy()
        for h in range(13 - reach, reach, -1):
            for w in range(17 - reach, reach, -1):
                dx, dy = random.randint(-reach, reach, size=2)
                expected[h, w] = expected[h + dy, w + dx]
        assert np.array_equal(_shuffled(pixels, reach, np.random.RandomState(3)), expected)


def test_frost_lays_a_photograph_over_the_image(tmp_path: Path) -> None:
    grey = [tmp_path / f"{k}.png" for k in range(5)]
    for path in grey:
        Image.fromarray(np.full((40, 50, 3), 100, np.uint8)).save(path)
    image = np.full((70, 90, 3), 50, np.uint8)
    # 0.7 * 50 + 0.7 * 100 at severity 3; at most white.
    assert (corrupt(image, Change("frost", 3), np.random.RandomState(0), grey) == 105).all()
    assert (corrupt(image + 150, Change("frost", 1), np.random.RandomState(0), grey) == 240).all()


def test_noise_and_contrast_by_hand() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    image[:32] = 0
    struck = corrupt(image, Change("impulse_noise", 5), stream("1", Change("impulse_noise", 5)))
    changed = struck != image
    assert set(np.unique(struck)) == {0, 128, 255}
    assert changed[32:].mean() == pytest.approx(0.27, abs=0.02), "black or white instead of grey"
    # The mean is 64: (128 - 64) * 0.2 + 64 = 76.8 and (0 - 64) * 0.2 + 64 = 51.2, cut to whole numbers.
    flat = corrupt(image, Change("contrast", 3), stream("1", Change("contrast", 3)))
    assert np.unique(flat).tolist() == [51, 76]
    # A value of 128/255 and 0.3 more; black becomes grey of 0.3.
    bright = corrupt(image, Change("brightness", 3), stream("1", Change("brightness", 3)))
    assert np.unique(bright).tolist() == [76, 204]


def test_the_same_bytes_in_any_order_and_thread() -> None:
    image = picture(40, 50)
    changes = [Change(name, 3.0) for name in COMMON if name != "frost"]

    def one(change: Change) -> bytes:
        return corrupt(image, change, stream("17", change)).tobytes()

    first = [one(change) for change in changes]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, reversed(changes))) == first[::-1]
    noise = changes[0]
    assert corrupt(image, noise, stream("18", noise)).tobytes() != first[0], "another image, another stream"
    assert corrupt(image, noise, stream("17", Change(noise.name, 1.0))).tobytes() != first[0]


@pytest.mark.parametrize("name", [name for name in COMMON if name != "frost"])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3)])
def test_images_of_any_size(name: str, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 9, np.uint8)
    for severity in (1.0, 5.0):
        assert corrupt(image, Change(name, severity), np.random.RandomState(0)).shape == image.shape


def test_jpeg_quality_and_scale() -> None:
    image = picture()
    errors = [
        np.abs(corrupt(image, Change(JPEG_QUALITY, q), stream("", Change(""))).astype(int) - image).mean()
        for q in (5, 30, 90)
    ]
    assert errors[0] > errors[1] > errors[2] > 0
    assert corrupt(image, Change(SCALE, 0.5), stream("", Change(""))).shape == (35, 45, 3)
    assert corrupt(image, Change(SCALE, 2.0), stream("", Change(""))).shape == (140, 180, 3)
    assert corrupt(image, Change(CLEAN), stream("", Change(""))) is image
    mask = np.zeros((4, 6), dtype=bool)
    mask[:2, :3] = True  # of the 2 x 2 blocks one is full, one is half full
    assert scaled_mask(mask, (2, 3)).tolist() == [[True, True, False], [False, False, False]]
    mask[0, 2] = False  # a quarter
    assert scaled_mask(mask, (2, 3)).tolist() == [[True, False, False], [False, False, False]]


class Bright(Variant):
    """It answers with the pixels that are above 100, whatever the prompt; and remembers what it has seen."""

    name = "bright"

    def __init__(self) -> None:
        self.seen = list[tuple[tuple[int, int], Prompts]]()

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        return list(prepared)

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        self.seen.append((features.shape[:2], prompts))
        n = len(prompts)
        logits = torch.from_numpy(np.where(features[..., 0] > 100, 1.0, -1.0)).expand(n, 1, *features.shape[:2])
        return MaskCandidates(logits, torch.ones(n, 1), (0,), torch.zeros(n).long(), Upsampling(features.shape[:2]))


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One black image of 8 x 10 with a white block of 4 x 4 as its instance, and one pixel as a second one."""
    pixels, truth = np.zeros((8, 10, 3), np.uint8), np.zeros((2, 8, 10), dtype=bool)
    truth[0, 2:6, 2:6], truth[1, 0, 9] = True, True
    pixels[truth[0]] = 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    images = pd.DataFrame({"image_id": [1], "path": [str(tmp_path / "1.png")], "width": 10, "height": 8})
    instances = pd.DataFrame(
        {"annotation_id": [11, 12], "image_id": 1, "category_id": 1, "x": [2.0, 9.0], "y": [2.0, 0.0]}
        | {"w": [4.0, 1.0], "h": [4.0, 1.0], "area": [16.0, 1.0], "iscrowd": False, "rle_size": [[8, 10]] * 2}
        | {"rle_counts": [masks.encode_rle(mask) for mask in truth]}
    )
    return images, instances


def test_every_change_is_scored(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    variant = Bright()
    changes = [Change(CLEAN), Change("brightness", 5.0), Change("frost", 1.0), Change(SCALE, 0.5), Change(SCALE, 2.0)]
    rows = measure(variant, *dataset, source=Source(changes), prompts=["box", "mask_center"])
    assert list(rows.columns) == CORRUPTIONS.names and len(rows) == 2 * 2 * 5
    by = rows.set_index(["corruption", "level", "annotation_id", "prompt"])
    assert by.loc[(CLEAN, 0.0, 11, "box")].tolist()[3:] == [1.0, OK]
    # Black plus half of white is above 100: everything is taken for the object, 16 of 80 pixels are right.
    assert by.loc[("brightness", 5.0, 11, "box"), "iou"] == pytest.approx(0.2)
    assert set(by.loc["frost"]["status"]) == {NO_TEXTURES} and by.loc["frost"]["iou"].isna().all()
    assert by.loc[(SCALE, 0.5, 11, "box"), "iou"] == 1.0
    assert by.loc[(SCALE, 0.5, 12, "box"), "status"] == TOO_SMALL
    assert by.loc[(SCALE, 2.0, 12, "box"), "status"] == OK
    half = [prompts for size, prompts in variant.seen if size == (4, 5)]
    assert half[0].boxes is not None and half[0].boxes.tolist() == [[1, 1, 3, 3]]
    # The pixel (3, 3) has its middle at 3.5, which is 1.75 in an image half as large: 1.25 as the name of a pixel.
    assert half[1].points is not None and half[1].points.tolist() == [[[1.25, 1.25]]]
    assert impossible(pa.Table.from_pandas(rows, schema=CORRUPTIONS), CORRUPTIONS) is None


def test_the_ground_truth_stays_perfect_and_others_say_why(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    images, truth = dataset
    changes = [Change(CLEAN), Change("fog", 5.0), Change(SCALE, 0.75)]
    rows = measure(GroundTruth(Runtime(device="cpu")), images, truth, source=Source(changes), prompts=["box"])
    assert set(rows[rows["status"] == OK]["iou"]) == {1.0}
    variant = Bright()
    variant.prompt_kinds = frozenset({"point"})
    rows = measure(variant, images, truth, source=Source(changes), prompts=["box"])
    assert set(rows["status"]) == {UNSUPPORTED_PROMPT}
    lost = images.assign(path="nowhere.png")
    assert set(measure(Bright(), lost, truth, source=Source(changes), prompts=["box"])["status"]) == {UNREADABLE_IMAGE}


def test_prompts_of_an_image_of_the_same_size_are_the_same(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    images, truth = dataset
    (task,) = plan(images, truth, make_prompts("", truth, ["box"]))
    assert resized(task, (8, 10)) is task


def test_what_is_changed_follows_from_the_settings(tmp_path: Path) -> None:
    settings = {"names": ["fog", "snow"], "severities": [1, 5], "jpeg_quality": [10], "scale": [0.5]}
    changes = Source.of(settings, [tmp_path]).changes
    expected = [
        (CLEAN, 0.0),
        ("fog", 1.0),
        ("fog", 5.0),
        ("snow", 1.0),
        ("snow", 5.0),
        (JPEG_QUALITY, 10.0),
        (SCALE, 0.5),
    ]
    assert [tuple(change) for change in changes] == expected
    assert textures([tmp_path]) == []
    for checkpoint in CHECKPOINTS:
        (tmp_path / "b" / checkpoint["file"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / checkpoint["file"]).write_bytes(b"x")
    assert [path.name for path in textures([tmp_path, tmp_path / "b"])] == [
        f"frost{k}.{'png' if k < 4 else 'jpg'}" for k in range(1, 6)
    ]


def test_a_study_of_corruptions_fetches_weights_and_photographs() -> None:
    config = read_registries()
    config["study"] = {**config["study"], "prompt_groups": [], "measures": ["corruptions"]}
    found = retrievals(read_study(config))
    assert found["variants/mobilesam"].wanted, "without weights there is no accuracy"
    photographs = found["textures/frost"]
    assert photographs.wanted and photographs.checkpoints == CHECKPOINTS
    config["corruptions"] = {**config["corruptions"], "names": ["fog"]}
    assert "textures/frost" not in retrievals(read_study(config))


def rows_of(**ious: list[float]) -> pd.DataFrame:
    """Rows of two instances on two images: `fog_1=[0.5, 0.7]`."""
    parts = []
    for name, values in ious.items():
        corruption, _, level = name.rpartition("_")
        parts.append(
            pd.DataFrame(
                {"annotation_id": [1, 2], "image_id": [1, 2], "area": 9.0, "iscrowd": False, "prompt": "box"}
            ).assign(
                corruption=corruption,
                level=float(level),
                iou=values,
                status=[OK if v == v else TOO_SMALL for v in values],
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_table_by_hand() -> None:
    nan = float("nan")
    rows = rows_of(
        clean_0=[1.0, 0.6], fog_1=[0.8, 0.6], fog_5=[0.4, 0.2], snow_1=[0.6, 0.2], snow_5=[0.2, 0.0], scale_2=[0.5, nan]
    )
    table = lines(FACTS, rows, ["box"], resamples=100, seed=0)
    assert list(table.columns) == SCHEMA.names
    by = table.set_index(["corruption", "level"])
    by = by.sort_index()
    assert by.loc["weather"].equals(by.loc[ALL]), "fog and snow are all that there is, and all weather"
    by = by.drop(index="weather")
    assert by["miou"].round(6).to_dict() == {
        (ALL, 0.0): 37.5,  # instances: (80 + 40 + 60 + 20) / 4 = 50 and (60 + 20 + 20 + 0) / 4 = 25
        (ALL, 1.0): 55.0,
        (ALL, 5.0): 20.0,
        (CLEAN, 0.0): 80.0,
        ("fog", 1.0): 70.0,
        ("fog", 5.0): 30.0,
        ("snow", 1.0): 40.0,
        ("snow", 5.0): 10.0,
        (SCALE, 2.0): 50.0,
    }
    assert by["drop"].round(6).to_dict() == {
        (ALL, 0.0): 53.125,
        (ALL, 1.0): 31.25,
        (ALL, 5.0): 75.0,
        (CLEAN, 0.0): 0.0,
        ("fog", 1.0): 12.5,
        ("fog", 5.0): 62.5,
        ("snow", 1.0): 50.0,
        ("snow", 5.0): 87.5,
        (SCALE, 2.0): 50.0,  # of the one instance that is left: 100 before
    }
    assert by.loc[(SCALE, 2.0), "status"] == "too small: 1 of 2" and by.loc[(SCALE, 2.0), "instances"] == 1
    drawn = curves(table)
    assert set(drawn["change"]) == {ALL, "weather", SCALE}, "18 panels are too many"
    one = curves(table[table["corruption"].isin([CLEAN, "fog"])])
    assert one["change"].tolist() == ["fog"] * 3 and one["level"].tolist() == [0.0, 1.0, 5.0]
    assert drawn[drawn["change"] == SCALE][["level", "miou"]].to_numpy().tolist() == [[1.0, 80.0], [2.0, 50.0]]
    assert drawn[drawn["change"] == ALL]["level"].tolist() == [0.0, 1.0, 5.0]
    assert draw(table) is not None


def test_without_weights_there_is_one_line_per_prompt_type() -> None:
    rows = pd.DataFrame([dict.fromkeys(CORRUPTIONS.names) | {"status": NO_WEIGHTS}])
    table = lines(FACTS, rows, ["box", "mask_center"], resamples=100, seed=0)
    assert table["status"].tolist() == [NO_WEIGHTS] * 2 and table["miou"].isna().all()
    assert curves(table).empty and draw(table) is not None
