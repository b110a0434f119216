"""The command `sambench` as a newcomer meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sambench.cli import app
from sambench.config import read_registries
from sambench.errors import InputError


def call(*arguments: object) -> int | str | None:
    """Run the command; its exit status."""
    with pytest.raises(SystemExit) as end:
        app([str(argument) for argument in arguments])
    return end.value.code


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 60, 3), 90, dtype=np.uint8)).save(path)
    return path


def test_variants_lists_all_and_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call("variants", "--weights", tmp_path)
    text = capsys.readouterr().out
    for name in ("box_fill", "sam_vit_b", "sam2.1_hiera_tiny", "fastsam_s", "lite_sam"):
        assert f"\n{name} " in text
    assert "sam_vit_b: `sambench download sam_vit_b` brings the weights" in text
    assert f"or put sam_vit_b_01ec64.pth into {tmp_path} (from https://" in text
    assert "no weights" in text and "not available" in text


def test_detectors_lists_all_and_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        app(["detectors", "--weights", str(tmp_path)])
    text = capsys.readouterr().out
    for name in read_registries(["detectors"])["detectors"]:
        assert name in text
    assert "what is missing:" in text and "no weights" in text


def test_weights_that_are_there_are_seen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "sam_vit_b_01ec64.pth").touch()
    call("variants", "--weights", tmp_path)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("sam_vit_b "))
    assert line.endswith("ok, another file"), "an empty file is not the published one"


def test_segment_draws_the_mask(photo: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    call("segment", photo, "--variant", "box_fill", "--box", "10,5,30,25", "-o", output)
    assert "mask 1: 400 pixels\n" in capsys.readouterr().out
    before, after = np.asarray(Image.open(photo)), np.asarray(Image.open(output))
    assert after.shape == before.shape
    changed = (after != before).any(axis=2)
    assert changed[5:25, 10:30].all() and not changed[:3].any() and not changed[:, 40:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "boxfil", "--box", "1,1,9,9"], "variants: boxfil: expected a variant .*; did you mean box_fill"),
        (["--variant", "box_fill"], "segment: expected --box, --point or --everything, found none of them"),
        (["--variant", "box_fill", "--box", "1,1,9"], "segment: --box: expected x0,y0,x1,y1 in pixels, found 1,1,9"),
        (["--variant", "box_fill", "--box", "9,1,1,9"], "segment: --box: expected x0 < x1"),
        (["--variant", "box_fill", "--box", "1,1,nan,9"], "segment: --box: expected x0,y0,x1,y1 in pixels"),
        (["--variant", "box_fill", "--point", "5,5"], "box_fill: expected prompts of kind box, found point"),
        (["--variant", "sam_vit_b", "--point", "5,5"], "sam_vit_b: expected a variant that can run, found no weights"),
        (
            ["--variant", "ground_truth", "--box", "1,1,9,9"],
            "ground_truth: expected a variant that needs no ground truth",
        ),
        (["--variant", "lite_sam", "--box", "1,1,9,9"], "lite_sam: .* found not available"),
    ],
)
def test_mistakes_are_one_line(photo: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        app(["segment", str(photo), *arguments, "-o", str(tmp_path / "out.png"), "--weights", str(tmp_path)])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.png").exists()


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("<html>")
    with pytest.raises(InputError, match=r"photo\.jpg: expected an image file"):
        app(["segment", str(path), "--variant", "box_fill", "--box", "1,1,9,9", "-o", str(tmp_path / "o.png")])


def test_the_command_itself_prints_one_line_and_fails(photo: Path) -> None:
    arguments = ["segment", str(photo), "--variant", "nope", "--box", "1,1,2,2", "-o", "o.png"]
    done = subprocess.run([sys.executable, "-m", "sambench.cli", *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: variants: nope: expected a variant of the registry; ")
    assert done.stderr.count("\n") == 1
