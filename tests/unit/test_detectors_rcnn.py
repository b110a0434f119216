"""Two-stage detectors: boxes, pooling and suppression by hand, ViTDet without trained weights, pickles of arrays."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alike import alike

from sambench.detectors import vitdet
from sambench.detectors.classes import coco_names, lvis_names
from sambench.detectors.rcnn import Keep, anchors, best_boxes, decode, pool, propose, to_original
from sambench.detectors.vitdet import Size, VitDetDetector, VitDetNetwork, build_vitdet, rename
from sambench.errors import InputError
from sambench.parity.fixtures import read_fixture
from sambench.variants.arrays import read_arrays
from sambench.variants.base import Runtime

CPU = Runtime(device="cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def test_anchors_by_hand() -> None:
    boxes = anchors((2, 3), 8, 16.0)
    assert boxes.shape == (18, 4)
    assert boxes[1].tolist() == [-8, -8, 8, 8], "around the corner of the first cell, not its middle"
    assert boxes[-2].tolist() == [16 - 8, 8 - 8, 16 + 8, 8 + 8]
    widths, heights = (boxes[:3, i + 2] - boxes[:3, i] for i in (0, 1))
    assert torch.allclose(heights / widths, torch.tensor([0.5, 1, 2]))
    assert torch.allclose(heights * widths, torch.tensor(256.0))


def test_deltas_by_hand() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    deltas = torch.tensor([[1.0, -0.5, 0.0, 5 * np.log(2)] + [0.0, 0.0, 999.0, 0.0]], dtype=torch.float32)
    found = decode(deltas, boxes, (10.0, 10.0, 5.0, 5.0))
    # The centre (20, 40) moves by a tenth of 20 and a twentieth of 40; the height doubles.
    assert torch.allclose(found[0, :4], torch.tensor([12.0, -2.0, 32.0, 78.0]))
    assert float(found[0, 6] - found[0, 4]) == pytest.approx(20 * 1000 / 16), "no box explodes"


def test_each_box_is_pooled_from_its_level() -> None:
    """Maps of constants: which one a box saw is its value."""
    maps = [torch.full((1, 2, 1024 // 2**level, 1024 // 2**level), float(level)) for level in (2, 3, 4, 5)]
    sides = torch.tensor([20.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 1000.0])
    corner = torch.full_like(sides, 8.0)
    boxes = torch.stack([corner, corner, corner + sides, corner + sides], dim=1)
    pooled = pool(maps, 2, boxes)
    assert pooled.shape == (8, 2, 7, 7)
    assert pooled[:, 0, 3, 3].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]


def test_pooling_is_aligned() -> None:
    """On a ramp each cell has the mean position of its part of the box, half a pixel before the index."""
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    pooled = pool([ramp], 2, torch.tensor([[40.0, 40.0, 40.0 + 7 * 8, 96.0]]))
    assert torch.allclose(pooled[0, 0, 0], 10 - 0.5 + 2 * (torch.arange(7.0) + 0.5))


def test_proposals_are_suppressed_within_a_level_only() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [5.0, 5.0, 5.0, 9.0], [0.0, 0.0, 50.0, 9.0]])
    logits, none = torch.tensor([0.5, 0.9, 3.0, 0.1]), torch.zeros(4, 4)
    boxes, kept = propose([(logits, none, box), (logits - 1, none, box)], (20, 30))
    assert kept.tolist() == pytest.approx([0.9, 0.1, -0.1, -0.9]), "overlapping and empty boxes go"
    assert boxes[1].tolist() == [0, 0, 30, 9], "the rest is cut at the edges"
    assert len(propose([(logits, none, box)], (20, 30), limit=1)[0]) == 0, "the best one of a level is empty"


def test_what_is_kept_of_an_image() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 70, 10], [0, 0, float("nan"), 4]])
    scores = torch.tensor([[0.6, 0.3, 0.9], [0.5, 0.4, 0.9], [0.04, 0.2, 0.9], [0.9, 0.9, 0.9]])
    found, values, labels = best_boxes(boxes, scores, (20, 60), Keep(0.05, 0.5, 100))
    assert values.tolist() == pytest.approx([0.6, 0.4, 0.2]) and labels.tolist() == [0, 1, 1]
    assert found[2].tolist() == [50, 0, 60, 10]
    assert to_original(found[2:], (20, 60), (40, 30)).tolist() == [[25, 0, 30, 20]]
    # A box for each class: the pair takes its own.
    own = torch.cat([boxes, boxes + 1], dim=1)[:1]
    found, _, labels = best_boxes(own, scores[:1], (20, 60), Keep(0.05, 0.5, 1))
    assert (found.tolist(), labels.tolist()) == ([[0, 0, 10, 10]], [0])
    found, _, labels = best_boxes(own, scores[1:2, [1, 0, 2]], (20, 60), Keep(0.45, 0.5, 9))
    assert (found.tolist(), labels.tolist()) == ([[1, 1, 11, 11]], [1])


@pytest.fixture(scope="module", params=[True, False], ids=["cascade", "mask_rcnn"])
def detector(request: pytest.FixtureRequest) -> VitDetDetector:
    patch = pytest.MonkeyPatch()
    patch.setitem(vitdet.SIZES, "mini", Size(16, 2, 2, (1,)))
    patch.setattr(vitdet, "WIDTH", 8)
    built = build_vitdet(CPU, "mini", cascade=request.param, side=128)
    patch.undo()
    built.name = "mini"
    built.start_random()
    return built


def test_random_boxes_are_the_same_each_time_and_alone_or_together(detector: VitDetDetector) -> None:
    prepared = detector.prepare(IMAGE)
    assert prepared.pixels.shape == (1, 3, 128, 128) and prepared.size == (85, 128)
    assert not prepared.pixels[..., 85:, :].any() and prepared.pixels[..., 84, :].any()
    (alone,) = detector.detect([prepared])
    detector.start_random()
    _, together = detector.detect([detector.prepare(IMAGE.transpose(1, 0, 2)), prepared])
    assert len(alone.scores) > 3 and (alone.boxes >= 0).all() and (alone.boxes <= [90, 60, 90, 60]).all()
    assert alike(alone, together)
    assert alone.classes.tolist() == together.classes.tolist()


@pytest.mark.parametrize(
    ("name", "size", "dataset", "cascade"),
    [
        ("vitdet_cascade_mask_rcnn_vitdet_b", "b", "coco", True),
        ("vitdet_lvis_cascade_mask_rcnn_vitdet_b_512", "b", "lvis", True),
        ("vitdet_mask_rcnn_vitdet_b_512", "b", "coco", False),
        ("vitdet_cascade_mask_rcnn_vitdet_h_512", "h", "coco", True),
    ],
)
def test_every_official_key_has_its_place(shared: Path, name: str, size: str, dataset: str, cascade: bool) -> None:
    fixture = read_fixture(shared / "parity" / f"{name}.json")
    official = {key: torch.empty(shape, device="meta") for key, shape, *_ in fixture["state_dict"]}
    official["pixel_mean"] = torch.empty(3, 1, 1)
    ours = rename(official)
    detector = build_vitdet(CPU, size, dataset, cascade, fixture["official"]["square"])
    expected = detector.module.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}
    del official["backbone.net.blocks.3.attn.rel_pos_h"]
    with pytest.raises(InputError, match=r"1 missing: backbone\.net\.blocks\.3\.attn\.rel_pos_h"):
        detector.load_official(official, "x.pkl")


def test_names_of_classes() -> None:
    assert (len(coco_names()), coco_names()[0], coco_names()[79]) == (80, "person", "toothbrush")
    assert (len(lvis_names()), lvis_names()[76], lvis_names()[1202]) == (1203, "bed", "zucchini")
    assert build_vitdet(CPU, "b", "lvis").choose_classes([])[2] == "airplane"
    with pytest.raises(InputError, match="dataset coco or lvis, found size b, dataset voc"):
        build_vitdet(CPU, "b", "voc")


# Pickles of arrays


def official_state(network: VitDetNetwork) -> dict[str, np.ndarray]:
    """Weights of the cascade under the names of the file, the mask head and the means included."""
    rows = {key.replace(".mlp.lin", ".mlp.fc"): value.numpy() for key, value in network.state_dict().items()}
    return rows | {"roi_heads.mask_head.deconv.bias": np.ones(2), "pixel_mean": np.ones((3, 1, 1))}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("detector", [True], indirect=True)
def test_a_pickle_of_detectron2_gives_the_same_boxes(detector: VitDetDetector, tmp_path: Path, protocol: int) -> None:
    (before,) = detector.detect([detector.prepare(IMAGE)])
    content = {"model": official_state(detector.module), "__author__": "somebody"}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    torch.nn.init.zeros_(detector.module.backbone.net.pos_embed)
    detector.load_files([tmp_path / "x.pkl"])
    (after,) = detector.detect([detector.prepare(IMAGE)])
    assert np.array_equal(before.boxes, after.boxes) and np.array_equal(before.scores, after.scores)


class Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, r"(posix|nt)\.system"), (eval, r"(__builtin__|builtins)\.eval"), (np.load, ".*load")],
)
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, function: Any, name: str, protocol: int) -> None:
    ran = tmp_path / "ran"
    content = {"model": {"a": np.ones(2), "b": Hostile(function, f"touch {ran}")}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(InputError, match=rf"x\.pkl: expected a pickle of arrays, found one that needs to run {name}"):
        read_arrays(tmp_path / "x.pkl")
    assert not ran.exists()


def test_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    raw = pickle.dumps({"model": {"a": np.arange(3, dtype=np.float32)}}, protocol=2)
    old = raw.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert old != raw
    (tmp_path / "x.pkl").write_bytes(old)
    assert read_arrays(tmp_path / "x.pkl")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "a web page"),
        (b"", "an empty file"),
        (pickle.dumps({"model": {"a": np.ones(9)}})[:-20], "a damaged or foreign file"),
        (pickle.dumps([1, 2]), "found a list"),
        (pickle.dumps({"model": {}}), "found a dict"),
        (pickle.dumps({"model": {"a": np.ones(2), "b": "text"}}), "something else under b"),
        (pickle.dumps({"model": {"a": np.array([None, {}], dtype=object)}}), "something else under a"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_arrays(tmp_path / "x.pkl")
    assert "\n" not in str(refusal.value)
