"""Pictures are looked at before anything runs: what is broken, of another size or changed."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sambench.datasets import coco, identity, pictures
from sambench.datasets.inspection import Reading, look
from sambench.errors import InputError

WIDTH, HEIGHT = 40, 30
NOISE = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def dataset(folder: Path, names: list[str], **fields: Any) -> Path:
    """One square in every picture."""
    images = [
        {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} | fields for i, name in enumerate(names, 1)
    ]
    square = {"category_id": 1, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}
    rows = [{"id": image["id"], "image_id": image["id"]} | square for image in images]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    return path


def save(folder: Path, name: str, pixels: np.ndarray = NOISE, **options: Any) -> Path:
    Image.fromarray(pixels).save(folder / name, **options)
    return folder / name


SUFFIXES = ["jpg", "png", "bmp", "tif", "webp", "gif"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_file_is_found_without_decoding_the_whole_ones(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save(tmp_path, f"x.{suffix}")
    content = whole.read_bytes()
    for kept in (len(content) * 3 // 4, len(content) // 2, 3, 0):
        whole.write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"expected a readable image, found .*; fetch the file again"):
            look(str(whole), WIDTH, HEIGHT, Reading())
    whole.write_bytes(content)
    if suffix != "gif":  # its end says nothing
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    look(str(whole), WIDTH, HEIGHT, Reading())


def test_a_jpeg_with_something_behind_its_end_is_whole(tmp_path: Path) -> None:
    path = save(tmp_path, "x.jpg")
    path.write_bytes(path.read_bytes() + b"more" * 100)
    look(str(path), WIDTH, HEIGHT, Reading())


def test_damage_in_the_middle_is_found_by_decoding(tmp_path: Path) -> None:
    path = save(tmp_path, "x.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    look(str(path), WIDTH, HEIGHT, Reading())
    with pytest.raises(InputError, match="expected a readable image"):
        look(str(path), WIDTH, HEIGHT, Reading(whole=True))


def test_all_broken_files_are_named_at_once(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(1, 61)]
    for name in names:
        save(tmp_path, name)
    cut = tmp_path / "7.jpg"
    cut.write_bytes(cut.read_bytes()[:-50])
    save(tmp_path, "9.jpg", NOISE.swapaxes(0, 1))
    (tmp_path / "50.jpg").unlink()
    path = dataset(tmp_path, names)
    with pytest.raises(InputError) as refusal:
        coco.index(path, tmp_path, report=tmp_path / "faults.txt")
    line = str(refusal.value)
    assert line.startswith(f"{cut}: 3 of 60 images, first: expected a readable image, found ") and "\n" not in line
    assert line.endswith(f"; all in {tmp_path / 'faults.txt'}")
    faults = (tmp_path / "faults.txt").read_text().splitlines()
    assert [Path(fault.partition(":")[0]).name for fault in faults] == ["7.jpg", "9.jpg", "50.jpg"]
    assert "expected 40x30 as in the annotations, found 30x40" in faults[1]

    index = coco.index(path, tmp_path, on_bad_image="skip")
    assert index.counts[coco.SKIPPED_IMAGE] == 3 and len(index.images) == len(index.instances) == 57
    assert not {7, 9, 50} & {*index.images["image_id"], *index.instances["image_id"]}
    notes = index.notes().set_index("note")
    assert notes.loc["images that cannot be used", ["kind", "count"]].tolist() == ["left out", 3]
    assert notes.loc[["images", "instances"], "count"].tolist() == [57, 57]


def test_nothing_remains_of_pictures_of_another_size(tmp_path: Path) -> None:
    """A picture of 40x30 that is declared 10x10, with its annotations outside of these."""
    save(tmp_path, "1.png")
    path = dataset(tmp_path, ["1.png"], width=10, height=10)
    with pytest.raises(InputError, match="size: expected 10x10 as in the annotations, found 40x30; use the images"):
        coco.index(path, tmp_path)
    with pytest.raises(InputError, match=r"found none in 1: 1 in 1 images that cannot be used, first: .*found 40x30"):
        coco.index(path, tmp_path, on_bad_image="skip")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_every_exif_orientation_is_applied_as_pillow_does(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, f"x.{suffix}", exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    height, width = expected.shape[:2]
    seen = look(str(path), width, height, Reading("apply"))
    np.testing.assert_array_equal(pictures.read_image(path, width, height, seen.view), expected)
    np.testing.assert_array_equal(pictures.read_upright(path), expected)
    kept = look(str(path), WIDTH, HEIGHT, Reading("ignore"))
    assert kept.view.orientation == 1 and not kept.guessed
    auto = look(str(path), width, height, Reading())
    assert auto.view.orientation == (orientation if orientation >= 5 else 1)
    assert auto.guessed == (orientation in (2, 3, 4))


def test_identity_is_about_content_and_not_about_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMBENCH_CACHE", str(tmp_path / "cache"))
    save(tmp_path, "1.png")
    save(tmp_path, "2.png", 255 - NOISE)
    path = dataset(tmp_path, ["1.png", "2.png", "3.png"])
    before = identity.dataset_identity([path], tmp_path)
    os.utime(tmp_path / "1.png", ns=(1, 1))
    assert identity.dataset_identity([path], tmp_path) == before
    assert identity.dataset_identity([path], tmp_path, whole=True) != identity.ABSENT
    content = bytearray((tmp_path / "1.png").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "1.png").write_bytes(content)
    changed = identity.dataset_identity([path], tmp_path)
    assert changed != before
    save(tmp_path, "3.png")
    assert identity.dataset_identity([path], tmp_path) != changed
    assert identity.dataset_identity([tmp_path / "nothing.json"], tmp_path) == identity.ABSENT
    packed = tmp_path / "instances.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert identity.dataset_identity([packed], tmp_path) == identity.dataset_identity([path], tmp_path)


def test_a_large_file_is_known_by_samples_or_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.bmp"
    content = bytearray(os.urandom(300_000))
    path.write_bytes(content)
    sampled, whole = identity.identity(path), identity.identity(path, whole=True)
    content[20_000] ^= 1  # between two samples
    path.write_bytes(content)
    assert identity.identity(path) == sampled and identity.identity(path, whole=True) != whole
    content[299_999] ^= 1
    path.write_bytes(content)
    assert identity.identity(path) != sampled
    path.write_bytes(content + b"x")
    assert identity.identity(path).partition(":")[0] == "300001"
