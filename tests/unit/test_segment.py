"""`sambench segment`: prompts on the picture, masks in chunks, images read as a study reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sambench.cli import app
from sambench.errors import InputError
from sambench.segment import make_prompts, parse_range, prompted_masks
from sambench.variants.base import Runtime
from sambench.variants.baselines import BoxFill

SIZE = (40, 60)


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        app(["segment", *arguments])
    assert end.value.code in (None, 0)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", SIZE[::-1], (90, 120, 30)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_many_boxes_give_the_masks_of_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = BoxFill(Runtime(device="cpu"))
    monkeypatch.setattr(type(variant), "decode_chunk", 3)
    texts = [f"{i},{i},{i + 10},{2 * i + 5}" for i in range(10)]
    masks, scores = prompted_masks(variant, np.zeros((*SIZE, 3), np.uint8), make_prompts(texts, [], []), "argmax")
    assert masks.shape == (10, *SIZE) and scores.shape == (10,)
    assert [int(mask.sum()) for mask in masks] == [10 * (i + 5) for i in range(10)]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--box=-5,1,10,10", "--box: expected x from 0 to 60 and y from 0 to 40, the size of the picture, found -5,1"),
        ("--box=5,1,61,10", "--box: expected x from 0 to 60 and y from 0 to 40, the size of the picture, found 61,10"),
        ("--point=10,41", "--point: expected x from 0 to 60 and y from 0 to 40, the size of the picture, found 10,41"),
    ],
)
def test_prompts_off_the_picture_are_refused(picture: Path, option: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        app(["segment", str(picture), "--variant", "box_fill", option, "-o", str(picture.with_name("out.png"))])


def test_a_bad_output_is_told_before_the_work(picture: Path) -> None:
    with pytest.raises(InputError, match=r"--output: expected a picture such as OUT\.png, found out\.xyz"):
        app(["segment", "nothing.png", "--variant", "box_fill", "--box", "1,1,9,9", "-o", "out.xyz"])


def test_a_deep_picture_is_read_with_a_range(tmp_path: Path) -> None:
    Image.fromarray(np.full(SIZE, 0.5, dtype=np.float32)).save(tmp_path / "x.tif")
    options = [str(tmp_path / "x.tif"), "--variant", "box_fill", "--box", "1,1,9,9", "-o", str(tmp_path / "out.png")]
    with pytest.raises(InputError, match="say which values are black and white"):
        app(["segment", *options])
    run(*options, "--range", "0,1")
    assert np.asarray(Image.open(tmp_path / "out.png"))[30, 30].tolist() == [128, 128, 128]


def test_ranges() -> None:
    assert [parse_range(text) for text in ("", "percentile", "0,3e3")] == ["", "percentile", "0.0,3000.0"]
    for text in ("3,2", "1", "a,b", "0,inf"):
        with pytest.raises(InputError, match="--range: expected percentile, or LOW,HIGH with LOW below HIGH"):
            parse_range(text)
