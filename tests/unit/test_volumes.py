"""Volumes: pairs of files, grids, cubes and clicks by hand; scores of a known answer; loading of the two files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from sambench.config import read_study, read_study_file
from sambench.errors import BadWeights, InputError
from sambench.measure.efficiency import MASK_DECODER, count
from sambench.measure.session import MeasuringJob
from sambench.measure.volumes import measure, run
from sambench.parity.models import load_cards
from sambench.parity.volumes import formula_volume
from sambench.results.tables.volumes import SCHEMA, lines
from sambench.status import NO_WEIGHTS, UNREADABLE_IMAGE
from sambench.study import Study
from sambench.variants.base import Runtime
from sambench.volumes import fast_sam3d
from sambench.volumes.base import VolumeVariant
from sambench.volumes.clicks import next_click, overlap
from sambench.volumes.crops import cube_start, cut
from sambench.volumes.fast_sam3d import FastSam3D, build_fast_sam3d
from sambench.volumes.nifti import Pair, pairs, read

CPU = Runtime(device="cpu", threads=1)
SHAPE, SPACING = (40, 36, 30), 2.0


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape) - np.array(centre).reshape(-1, 1, 1, 1)
    return (grid**2).sum(axis=0) < radius**2


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([SPACING] * 3 + [1]) if affine is None else affine), path)
    return path


def folders(tmp_path: Path) -> dict[str, str]:
    """Two volumes as nnU-Net has them: a ball of 2 in each, a smaller one of 1 in the first."""
    for name, centre in (("b", (20, 18, 15)), ("a", (10, 12, 14))):
        labels = 2 * ball(SHAPE, centre, 7).astype(np.uint8)
        if name == "a":
            labels[ball(SHAPE, (30, 28, 20), 4)] = 1
        save(tmp_path / f"imagesTr/{name}_0000.nii.gz", (100 + 50 * labels).astype(np.int16))
        save(tmp_path / f"labelsTr/{name}.nii.gz", labels)
    return {"images": str(tmp_path / "imagesTr"), "labels": str(tmp_path / "labelsTr")}


class Known(VolumeVariant):
    """Answers a click inside with a box of 9 voxels around it, and one outside with nothing but its last answer."""

    side, low_side = 32, 32

    def __init__(self) -> None:
        super().__init__(nn.Identity(), CPU)

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        if not image.any():
            raise InputError("volume", expected="voxels", found="none")
        return torch.tensor(image)[None, None]

    def encode_volume(self, prepared: torch.Tensor) -> torch.Tensor:
        return prepared

    def answer(
        self, embedding: torch.Tensor, points: np.ndarray, labels: np.ndarray, previous: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert points.shape == (1, 3) and labels.shape == (1,)
        logits = torch.full((4, 32, 32, 32), -1.0)
        if previous is not None:
            logits[0] = previous
        x, y, z = (slice(max(0, p - 4), p + 5) for p in points[0])
        if labels[0]:
            logits[0, x, y, z] = 1.0
        return logits, torch.zeros(4)


def test_pairs_of_folders_and_of_lists(tmp_path: Path) -> None:
    entry: dict[str, Any] = folders(tmp_path)
    assert [(p.name, p.image.name, p.labels.name) for p in pairs("s", entry)] == [
        ("a", "a_0000.nii.gz", "a.nii.gz"),
        ("b", "b_0000.nii.gz", "b.nii.gz"),
    ]
    images = sorted(str(p) for p in Path(entry["images"]).iterdir())
    labels = sorted(str(p) for p in Path(entry["labels"]).iterdir())
    assert pairs("s", {"images": images, "labels": labels})[1].labels.name == "b.nii.gz"
    with pytest.raises(InputError, match="as many images as labels, found 2 and 1"):
        pairs("s", {"images": images, "labels": labels[:1]})
    with pytest.raises(InputError, match=r"a NIfTI file or a folder of them, found .*none\.nii"):
        pairs("s", {"images": [str(tmp_path / "none.nii")], "labels": labels[:1]})
    (Path(entry["labels"]) / "a.nii.gz").unlink()
    with pytest.raises(InputError, match="image and labels of each name, found 1 without, such as a"):
        pairs("s", entry)


def test_a_flipped_volume_is_turned_back(tmp_path: Path) -> None:
    """What nibabel's canonical axes are: to the right, forward and up, the same world under each voxel."""
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = save(tmp_path / "i.nii", voxels)
    turned = np.diag([-SPACING, SPACING, SPACING, 1.0])
    turned[0, 3] = SPACING * (voxels.shape[0] - 1)
    flipped = save(tmp_path / "f.nii", voxels[::-1], turned)
    pair = Pair("p", flipped, flipped)
    assert (read(pair).voxels == voxels).all()
    assert (read(Pair("p", image, image), clamp=(5, 7)).voxels == voxels.clip(5, 7)).all()
    with pytest.raises(InputError, match=r"i.nii: grid: expected that of .*f.nii"):
        read(Pair("p", flipped, image))


def test_what_is_no_volume_is_refused_in_one_line(tmp_path: Path) -> None:
    good = save(tmp_path / "good.nii", np.ones((3, 3, 3), np.int16))
    (tmp_path / "text.nii").write_text("no volume")
    (tmp_path / "cut.nii.gz").write_bytes(save(tmp_path / "w.nii.gz", np.ones((9, 9, 9))).read_bytes()[:-30])
    halves = save(tmp_path / "halves.nii", np.full((3, 3, 3), 0.5, np.float32))
    flat = save(tmp_path / "flat.nii", np.ones((3, 3), np.int16))
    for image, labels, message in (
        (tmp_path / "text.nii", good, "text.nii: expected a NIfTI image"),
        (tmp_path / "cut.nii.gz", good, "cut.nii.gz: expected a NIfTI image"),
        (flat, good, "flat.nii: shape: expected three axes"),
        (good, halves, "halves.nii: labels: expected whole numbers, found 0.5"),
    ):
        with pytest.raises(InputError, match=message) as error:
            read(Pair("p", image, labels))
        assert "\n" not in str(error.value)


def test_spacing_resamples_both(tmp_path: Path) -> None:
    entry = folders(tmp_path)
    before, after = (read(pairs("s", entry)[0], spacing) for spacing in (None, 1.0))
    assert after.voxels.shape == tuple(2 * n - 1 for n in SHAPE)
    assert set(np.unique(after.labels)) == {0, 1, 2}
    assert (after.labels[::2, ::2, ::2] == before.labels).all()


def test_the_cube_is_that_of_torchio() -> None:
    """CropOrPad(mask_name=...): the middle of the bounding box, half a voxel lower where it is not on an edge."""
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[2:6, 3:10, 19] = True  # middles 4, 6.5 and 19.5
    start = cube_start(mask, 8)
    assert start == (0, 2, 15)
    cube = cut(np.arange(8000).reshape(20, 20, 20) + 1, start, 8)
    assert cube[0, 0, 0] == 2 * 20 + 15 + 1
    assert (cube[:, :, 5:] == 0).all() and (cube[:, :, :5] > 0).all()
    assert (cut(mask, (30, 0, 0), 8) == 0).all()


def test_clicks_are_the_deepest_of_the_larger_error() -> None:
    truth = ball((17, 17, 17), (8, 8, 8), 6)
    nothing = np.zeros_like(truth)
    assert next_click(truth, nothing) == ((8, 8, 8), 1)
    assert next_click(nothing, truth) == ((8, 8, 8), 0)
    assert next_click(truth, truth) is None
    # A tie is a click outside; the edge of the volume is an edge.
    missed, extra = np.zeros_like(truth), np.zeros_like(truth)
    missed[0:3, 0:3, 0:3] = extra[10:13, 10:13, 10:13] = True
    assert next_click(missed, extra) == ((11, 11, 11), 0)
    assert next_click(missed, nothing) == ((1, 1, 1), 1)


def test_overlap_by_hand() -> None:
    a, b = np.zeros((2, 5, 5, 5), dtype=bool)
    assert overlap(a, b) == (1.0, 1.0)
    a[0, 0, :4] = b[0, 0, 2:5] = True
    assert overlap(a, b) == (pytest.approx(4 / 7), pytest.approx(2 / 5))
    assert overlap(a, ~a) == (0.0, 0.0)


def test_scores_of_a_known_answer(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[10:22, 10:19, 10:19] = 3  # 12 x 9 x 9: a box of 9 voxels answers the first click, a second one the rest
    labels[0, 0, 0] = 5
    voxels = np.zeros(SHAPE, dtype=np.int16)
    voxels[20:] = 1  # nothing near label 5
    pair = Pair("v", save(tmp_path / "i.nii", voxels), save(tmp_path / "l.nii", labels))
    rows = measure(Known(), [pair], clicks=3).set_index("label")
    # Deepest: the first voxel 5 away from every side, x from 14 to 17. It misses 3 layers of x, 19 to 21.
    first = 2 * 729 / (729 + 972)
    assert rows.loc[3, "dice"][0] == pytest.approx(first)
    assert rows.loc[3, "iou"][0] == pytest.approx(729 / 972)
    assert len(rows.loc[3, "dice"]) == 3 and len(rows.loc[3, "seconds"]) <= 3
    assert rows.loc[3, "voxels"] == 972 and rows.loc[3, "covered"] == 1
    assert rows.loc[5, "status"] == UNREADABLE_IMAGE
    table = lines({"dataset": "s", "variant": "known"}, rows.reset_index(), resamples=100, seed=0)
    assert list(table.columns) == SCHEMA.names
    line = table[(table["label"] == "all") & (table["clicks"] == 1)].iloc[0]
    assert line["dice"] == pytest.approx(100 * first) and line["objects"] == 1
    assert line["status"] == f"{UNREADABLE_IMAGE}: 1 of 2"
    assert set(table["label"]) == {"all", "3", "5"}


def test_a_label_larger_than_the_cube_is_scored_inside_of_it(tmp_path: Path) -> None:
    labels = np.ones((64, 32, 32), dtype=np.uint8)
    pair = Pair("v", save(tmp_path / "i.nii", labels), save(tmp_path / "l.nii", labels))
    row = measure(Known(), [pair], clicks=1).iloc[0]
    assert row["covered"] == 0.5 and row["dice"][0] == pytest.approx(2 * 729 / (729 + 32**3))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> FastSam3D:
    """FastSAM3D with narrow layers, on cubes of 32 voxels."""
    for name, value in {"SIDE": 32, "CELLS": 2, "WIDTH": 48, "EMBEDDING": 48}.items():
        monkeypatch.setattr(fast_sam3d, name, value)
    monkeypatch.setattr(FastSam3D, "side", 32)
    monkeypatch.setattr(FastSam3D, "low_side", 8)
    torch.manual_seed(0)
    return build_fast_sam3d(CPU)


def files(folder: Path, network: nn.Module) -> tuple[Path, Path]:
    """The two official files: the encoder without a prefix, and the teacher with an encoder of its own."""
    state, prefix = network.state_dict(), "image_encoder."
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
    encoder, teacher = folder / "student.pth", folder / "teacher.pth"
    torch.save({"model_state_dict": own}, encoder)
    torch.save({"epoch": 1, "model_state_dict": {**rest, f"{prefix}other": torch.zeros(2)}}, teacher)
    return encoder, teacher


def test_both_files_are_loaded_strictly(small: FastSam3D, tmp_path: Path) -> None:
    paths = files(tmp_path, small.module)
    expected = {key: value.clone() for key, value in small.module.state_dict().items()}
    torch.manual_seed(1)
    again = build_fast_sam3d(CPU)
    again.load_files(paths)
    assert all(torch.equal(value, expected[key]) for key, value in again.module.state_dict().items())
    with pytest.raises((BadWeights, InputError)):
        again.load_files(paths[::-1])
    whole = torch.load(paths[1])
    del whole["model_state_dict"]["prompt_encoder.point_embeddings.1.weight"]
    torch.save(whole, paths[1])
    with pytest.raises(BadWeights, match=r"1 missing: prompt_encoder\.point_embeddings\.1\.weight"):
        again.load_files(paths)


def test_an_answer_depends_on_click_and_on_the_answer_before(small: FastSam3D) -> None:
    cube = formula_volume((32, 32, 32))
    embedding = small.encode_volume(small.prepare(cube))
    assert embedding.shape == (1, 48, 2, 2, 2)

    def ask(point: tuple[int, int, int], label: int, previous: torch.Tensor | None = None) -> torch.Tensor:
        return small.answer(embedding, np.array([point]), np.array([label]), previous)[0]

    first = ask((3, 20, 9), 1)
    assert first.shape == (4, 8, 8, 8) and small.enlarge(first).shape == (4, 32, 32, 32)
    for other in (ask((3, 20, 9), 0), ask((20, 3, 9), 1), ask((3, 20, 9), 1, first[0])):
        assert not torch.allclose(first, other, atol=1e-4)
    with pytest.raises(InputError, match="voxels above zero that differ"):
        small.prepare(np.zeros((32, 32, 32)))
    with pytest.raises(InputError, match="a cube of 32 voxels per side"):
        small.encode([np.zeros((20, 30, 3), np.uint8)])


def test_the_voxels_above_zero_set_the_scale(small: FastSam3D) -> None:
    cube = np.full((32, 32, 32), -5.0)
    cube[0, 0, :3] = (1, 2, 6)  # mean 3, variance (4 + 1 + 9) / 2 = 7
    prepared = small.prepare(cube)[0, 0]
    assert prepared[0, 0, :3].tolist() == pytest.approx(((np.array([1, 2, 6]) - 3) / np.sqrt(7)).tolist())
    assert float(prepared[9, 9, 9]) == pytest.approx(-8 / np.sqrt(7))


def test_random_weights_are_never_scored(tmp_path: Path) -> None:
    settings = {"name": "balls", "entry": folders(tmp_path), "clicks": 1}
    table, _, _ = run(MeasuringJob(load_cards()["fastsam3d"], CPU, [tmp_path], settings))
    assert table["status"].tolist() == [NO_WEIGHTS]
    (line,) = lines({"variant": "fastsam3d"}, table, resamples=100, seed=0).to_dict("records")
    assert line["status"] == NO_WEIGHTS and np.isnan(line["dice"]) and line["objects"] == 0


def test_cost_is_that_of_a_cube_and_a_click() -> None:
    cost = count(load_cards()["fastsam3d"])
    assert sum(cost.parameters.values()) == 53_224_240 and cost.on_meta
    # The decoder's enlargement alone: 512 cells x 384 x 96 x 8, and 4,096 x 96 x 48 x 8, two FLOPs each.
    assert cost.operations[MASK_DECODER].products > 2 * (512 * 384 * 96 * 8 + 4096 * 96 * 48 * 8)


def test_a_study_keeps_volumes_and_images_apart(tmp_path: Path) -> None:
    entry = folders(tmp_path)
    text = f"study: {{variants: [box_fill, fastsam3d], volumes: [balls]}}\nvolumes: {{datasets: {{balls: {entry}}}}}"
    (tmp_path / "mine.yaml").write_text(text)
    study = read_study(read_study_file(tmp_path / "mine.yaml"))
    assert isinstance(study, Study)
    assert study.volume_jobs() == [("balls", "fastsam3d", "eager")]
    assert {variant for _, variant, _ in study.places()} == {"box_fill"}
    (tmp_path / "mine.yaml").write_text(text.replace("volumes: [balls]", "volumes: [bals]"))
    with pytest.raises(InputError, match="balls"):
        read_study(read_study_file(tmp_path / "mine.yaml"))
