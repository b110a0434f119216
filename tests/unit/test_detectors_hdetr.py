"""H-Deformable-DETR without trained weights: sizes, names of weights, mixed selection, refusals."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from alike import alike

from sambench.detectors import swin
from sambench.detectors.classes import Category, category_ids
from sambench.detectors.hdetr import HybridDetector, HybridNetwork, build_hybrid, rename
from sambench.detectors.images import detectron_size, detr_size, normalize, resize
from sambench.errors import InputError
from sambench.parity.fixtures import read_fixture
from sambench.variants.base import Runtime
from sambench.variants.loading import read_checkpoint
from sambench.variants.strict import load_strictly

CPU = Runtime(device="cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> HybridDetector:
    patch = pytest.MonkeyPatch()
    patch.setitem(swin.SIZES, "mini", (8, (1, 1, 2, 1), (1, 1, 2, 2)))
    torch.manual_seed(0)
    built = build_hybrid(CPU, backbone="mini", queries=12, one_to_many=3, short=128, longest=240, limit=20)
    patch.undo()
    built.name = "mini"
    built.start_random()
    return built


@pytest.mark.parametrize(
    ("size", "expected"),
    # The longer side follows from the rounded shorter one and may exceed the limit, as officially.
    [((480, 640), (800, 1066)), ((640, 427), (1199, 800)), ((200, 1000), (267, 1335)), ((800, 800), (800, 800))],
)
def test_sizes_of_detr(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert detr_size(*size, 800, 1333) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (768, 1024)), ((640, 427), (1024, 683)), ((333, 500), (682, 1024)), ((7, 7), (1024, 1024))],
)
def test_sizes_of_detectron2(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert detectron_size(*size, 1024, 1024) == expected


def test_pixels_by_hand() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 1] = 255
    pixels = normalize(image, (0.5, 0.0, 0.0), (0.5, 0.25, 1.0), scale=255)
    assert pixels.shape == (1, 3, 2, 3)
    assert pixels[0, :, 1, 2].tolist() == [-1, 4, 0]
    assert resize(image, (4, 6)).shape == (4, 6, 3)


def official_keys(shared: Path, name: str) -> dict[str, torch.Tensor]:
    rows = read_fixture(shared / "parity" / f"{name}.json")["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape, *_ in rows}


@pytest.mark.parametrize(
    ("name", "backbone", "queries"),
    [("hdetr_swin_tiny_320", "tiny", 300), ("hdetr_swin_large_n900_480", "large", 900)],
)
def test_every_official_key_has_its_place(shared: Path, name: str, backbone: str, queries: int) -> None:
    official = official_keys(shared, name)
    with torch.device("meta"):
        network = HybridNetwork(backbone, queries, 1500)
    ours, expected = rename(official), network.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}
    for key in ("query_embed.weight", "class_embed.6.bias", "backbone.0.body.norm2.weight"):
        part = {other: value for other, value in official.items() if other != key}
        with pytest.raises(InputError, match=r"found [1-3] missing"):
            load_strictly(network, rename, part, "x.pth", "h_deformable_detr")


def test_content_of_queries_is_learned(detector: HybridDetector) -> None:
    """Mixed selection: only the first half of pos_trans reaches the decoder."""
    pixels = detector.prepare(IMAGE).pixels
    norm, queries = detector.module.detr.model.pos_trans_norm, detector.module.query_embed

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return torch.as_tensor(detector.module(pixels).logits).clone()

    before = logits()
    kept = norm.weight[256:].clone()
    norm.weight[256:] *= 3
    assert torch.equal(logits(), before), "what the encoder offers as content is not used"
    norm.weight[256:] = kept
    norm.weight[:256] *= 3
    assert not torch.allclose(logits(), before), "its position is"
    norm.weight[:256] /= 3
    queries.weight[12:] += 1
    assert torch.allclose(logits(), before, atol=1e-5), "queries of the one-to-many branch are left out"
    queries.weight[:12] += 1
    assert not torch.allclose(logits(), before, atol=1e-3)
    queries.weight -= 1


def test_random_boxes_are_the_same_each_time_and_alone_or_together(detector: HybridDetector) -> None:
    prepared = detector.prepare(IMAGE)
    (alone,) = detector.detect([prepared])
    detector.start_random()
    _, together = detector.detect([detector.prepare(IMAGE[::-1].copy()), prepared])
    assert len(alone.scores) == 20 and (np.diff(alone.scores) <= 0).all() and np.ptp(alone.scores) > 0.01
    assert alike(alone, together)


def test_classes_are_ids_of_coco(detector: HybridDetector) -> None:
    names = detector.choose_classes([])
    assert len(names) == 91 and names[1] == "person" and names[90] == "toothbrush" and names[12] == "N/A"
    known = [Category(i, name) for i, name in enumerate(names) if name != "N/A"]
    assert len(known) == 80
    assert [i for i in category_ids(names, known).tolist() if i != -1] == [category.category_id for category in known]


def test_options_beside_the_weights_are_read_over(tmp_path: Path) -> None:
    content = {"model": {"a.weight": torch.ones(2)}, "args": argparse.Namespace(lr=1e-4), "epoch": 36}
    torch.save(content, tmp_path / "checkpoint.pth")
    assert read_checkpoint(tmp_path / "checkpoint.pth")["a.weight"].tolist() == [1, 1]
