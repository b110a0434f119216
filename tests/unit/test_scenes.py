"""The generated dataset: the same bytes everywhere, and everything in it that COCO has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sambench.datasets import coco, scenes
from sambench.masks import decode_rle, encode_rle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder)
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "annotations.json").read_bytes())


@pytest.fixture(scope="module")
def index(folder: Path) -> coco.Index:
    return coco.index(folder / "annotations.json", folder / "images")


def test_bytes_are_pinned(folder: Path) -> None:
    """Results over `scenes` are compared between machines; to change the scenes is to change these lines."""
    images = hashlib.sha256()
    for path in sorted((folder / "images").iterdir()):
        images.update(path.name.encode() + path.read_bytes())
    annotations = hashlib.sha256((folder / "annotations.json").read_bytes())
    assert annotations.hexdigest() == "6d070591ff852eba34f98e412efbff044d684508f4d164b2fb7a4c3d57dcfe71"
    assert images.hexdigest() == "14d9858465efb40ce6db041d7c616aa8e9c82b0edfff9d3fa395f84d7249d263"


def test_it_has_what_coco_has(index: coco.Index, document: dict[str, Any]) -> None:
    assert len(index.images) == 24
    assert len(index.instances) == len(document["annotations"]) == 159
    assert not any(index.counts.values())
    area = index.instances.area
    assert [(area < 32**2).sum(), ((area >= 32**2) & (area < 96**2)).sum(), (area >= 96**2).sum()] == [
        77,
        49,
        33,
    ]
    assert set(index.instances.category_id) == {1, 2, 3, 4, 5}
    assert index.instances.iscrowd.sum() == 1
    sizes = set(zip(index.images.width, index.images.height, strict=True))
    assert len(sizes) == 24 and (64, 48) in sizes and (640, 480) in sizes
    segmentations = [row["segmentation"] for row in document["annotations"]]
    assert any(isinstance(s, list) and len(s) > 1 for s in segmentations)  # an object in several parts
    assert {type(s["counts"]) for s in segmentations if isinstance(s, dict)} == {list, str}


def test_masks_are_disjoint_and_agree_with_area_and_box(index: coco.Index) -> None:
    for _, rows in index.instances.groupby("image_id"):
        masks = np.stack([decode_rle(row.rle_size, row.rle_counts) for row in rows.itertuples()])
        assert masks.sum(axis=0).max() == 1
        assert masks.sum(axis=(1, 2)).tolist() == rows.area.tolist()
        for mask, box in zip(masks, rows[["x", "y", "w", "h"]].to_numpy(), strict=True):
            y, x = np.nonzero(mask)
            assert box.tolist() == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


def test_images_are_readable_and_objects_stand_out(index: coco.Index) -> None:
    contrasts = []
    for picture in index.images.itertuples():
        pixels = coco.read_image(picture.path, picture.width, picture.height).astype(float)
        rows = index.instances[index.instances.image_id == picture.image_id].itertuples()
        masks = [decode_rle(row.rle_size, row.rle_counts) for row in rows]
        ground = pixels[~np.logical_or.reduce(masks)]
        assert ground.std(axis=0).min() > 5  # texture
        contrasts += [np.abs(pixels[mask].mean(axis=0) - ground.mean(axis=0)).max() for mask in masks]
    assert np.median(contrasts) > 60 and min(contrasts) > 10


def test_bmp_by_hand() -> None:
    pixels = np.array([[[1, 2, 3]], [[4, 5, 6]]], dtype=np.uint8)  # 2 rows of 1 pixel
    data = scenes._bmp(pixels)
    assert data[:6] == b"BM" + (54 + 8).to_bytes(4, "little")
    assert data[54:] == bytes([6, 5, 4, 0, 3, 2, 1, 0])


def test_polygons_by_hand() -> None:
    corner = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=bool)
    assert scenes._polygons(corner) == [[0, 0, 2, 0, 2, 1, 1, 1, 1, 2, 0, 2], [2, 2, 3, 2, 3, 3, 2, 3]]
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    assert scenes._polygons(ring) is None


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_polygons_give_the_mask_back(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    mask[0, 0] = True
    polygons = scenes._polygons(mask)
    if polygons is not None:
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        assert rle["counts"] == encode_rle(mask)
