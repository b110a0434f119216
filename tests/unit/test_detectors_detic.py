"""Detic without trained weights: names of weights, centres by hand, classes that are exchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from alike import alike
from torch import nn

from sambench.detectors import detic, swin
from sambench.detectors.detic import DeticDetector, build_detic, make_classifier, read_vectors, rename
from sambench.errors import InputError
from sambench.parity.fixtures import read_fixture
from sambench.variants.base import Runtime

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> DeticDetector:
    patch = pytest.MonkeyPatch()
    patch.setitem(swin.SIZES, "mini", (8, (1, 1, 2, 1), (1, 1, 2, 2)))
    patch.setattr(detic, "WIDTH", 32)
    built = build_detic(Runtime(device="cpu"), "mini", "coco", short=100, longest=130)
    patch.undo()
    built.name = "mini"
    built.start_random()
    return built


def test_every_official_key_has_its_place(shared: Path) -> None:
    rows = read_fixture(shared / "parity" / "detic_swin_b_320.json")["state_dict"]
    official = {key: torch.empty(shape, device="meta") for key, shape, *_ in rows}
    with torch.device("meta"):
        built = build_detic(Runtime(device="cpu"))
    ours, expected = rename(official), built.module.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}
    del official["roi_heads.box_predictor.1.cls_score.linear.bias"]
    with pytest.raises(InputError, match=r"1 missing: roi_heads\.box_predictor\.1\.cls_score\.linear\.bias"):
        built.load_official(official, "x.pth")


def test_random_boxes_are_the_same_each_time_and_alone_or_together(detector: DeticDetector) -> None:
    prepared = detector.prepare(IMAGE)
    assert prepared.size == (87, 130) and prepared.pixels.shape == (1, 3, 96, 160)
    (alone,) = detector.detect([prepared])
    detector.start_random()
    _, together = detector.detect([detector.prepare(IMAGE[::-1].copy()), prepared])
    assert len(alone.scores) > 20 and (alone.boxes >= 0).all() and (alone.boxes <= [90, 60, 90, 60]).all()
    assert alike(alone, together)


class Given(nn.Module):
    """A head that says the same about each map: one centre at (1, 2), its sides, nothing elsewhere."""

    def forward(self, x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        heat = torch.full((1, 1, *x.shape[2:]), -20.0)
        if level == 0:
            heat[0, 0, 2, 1] = 0.0
        sides = torch.tensor([0.5, 1.0, 2.0, -2.0]).view(1, 4, 1, 1).expand(1, 4, *x.shape[2:])
        return heat, sides


def test_a_centre_becomes_a_box(detector: DeticDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(detector.module.proposal_generator._modules, "centernet_head", Given())
    boxes, scores = detector.module.proposals([torch.zeros(1, 32, 4, 4)] * 5)
    # The centre is at (1 * 8 + 4, 2 * 8 + 4), the sides count in strides; a box is never turned around.
    assert boxes[0].tolist() == pytest.approx([12 - 4, 20 - 8, 12 + 16, 12.01]) and len(boxes) == 1
    assert scores.tolist() == pytest.approx([0.5**0.5])


def test_classes_are_exchanged(detector: DeticDetector, tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(80, 512)).astype(np.float16)
    np.save(tmp_path / "names.npy", vectors)
    prepared = detector.prepare(IMAGE)
    detector.exchange_classes(read_vectors(tmp_path / "names.npy", 80))
    (first,) = detector.detect([prepared])
    order = np.roll(np.arange(80), 7)
    detector.exchange_classes(torch.from_numpy(vectors[order]))
    (second,) = detector.detect([prepared])
    assert np.allclose(first.scores, second.scores, atol=1e-5)
    assert np.mean(order[second.classes] == first.classes) > 0.98, "each vector takes its name along"
    columns = make_classifier(torch.from_numpy(vectors))
    assert columns.shape == (512, 81) and not columns[:, 80].any()
    assert torch.allclose(columns[:, :80].norm(dim=0), torch.ones(80), atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"text", "short", "objects"])
def test_other_vectors_are_refused_in_one_line(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "names.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, np.ones((79, 512)) if content == "short" else np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"names\.npy") as refusal:
        read_vectors(path, 80)
    assert "\n" not in str(refusal.value)
