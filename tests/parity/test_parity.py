"""Every parity fixture that lies in ../shared/parity, and what happens to wrong ones."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sambench.errors import InputError
from sambench.parity import CHECKS, Report, Row, check, kind, main, render
from sambench.parity.fastsam import side_rows
from sambench.parity.fixtures import block_row, formula_image, read_fixture, weight

FOLDER = Path(__file__).resolve().parents[2] / ".." / "shared" / "parity"
# Under eight seconds each.
QUICK = {"clicker", "efficientvit_sam_l0", "efficientvit_sam_l1", "fastsam_prompt"}
# The largest of a family whose smaller ones run the same code: `make test-long`.
LONG = {
    *("sam_vit_l", "sam2.1_hiera_large", "sam2.1_hq_hiera_large", "fastsam_x", "hdetr_swin_large_n900_480"),
    *("vitdet_cascade_mask_rcnn_vitdet_b", "vitdet_cascade_mask_rcnn_vitdet_h_512"),
    *("vitdet_cascade_mask_rcnn_vitdet_b_512", "sam_hq_vit_b", "efficientvit_sam_xl1", "slimsam_50_uniform"),
    *("vitdet_lvis_cascade_mask_rcnn_vitdet_b_512", "efficientsam3_rv_m"),
}


def cost(name: str) -> list[pytest.MarkDecorator]:
    """How long a fixture takes."""
    return [] if name in QUICK else [pytest.mark.long if name in LONG else pytest.mark.slow]


def implemented(path: Path) -> bool:
    """Whether the module that checks this kind of fixture exists."""
    found = kind(read_fixture(path))
    if found is None:
        return False
    module = CHECKS[found].partition(":")[0].replace(".", "/")
    return (Path(__file__).resolve().parents[2] / "src" / f"{module}.py").is_file()


FIXTURES = [
    pytest.param(path, id=path.stem, marks=cost(path.stem))
    for path in sorted(FOLDER.glob("*.json"))
    if implemented(path)
]


@pytest.mark.parametrize("path", FIXTURES)
def test_equal_to_the_official_code(path: Path) -> None:
    report = check(path)
    assert report.rows
    assert [row for row in report.rows if not row.ok] == []


OWN = [
    "efficientsam3_ev_m",
    "efficientsam3_rv_m",
    "efficientsam3_tv_m",
    "picosam2",
    "picosam3",
    "rwkv_sam",
    "sam2.1_hq_hiera_large",
]


@pytest.mark.parametrize("name", [pytest.param(name, marks=cost(name)) for name in OWN])
def test_equal_to_the_official_code_by_fixtures_of_our_own(name: str) -> None:
    """Numbers of the official code too, made for this repository; `official` in the file says how."""
    report = check(Path(__file__).with_name(f"{name}.json"))
    assert report.rows
    assert [row for row in report.rows if not row.ok] == []


@pytest.mark.slow
def test_refinement_by_masks_is_the_official_one(shared: Path, tmp_path: Path) -> None:
    """SAM 2's `use_m2m`: numbers of its own generator, in the form of the fixtures, with the weights of one of them."""
    name = "amg_m2m_sam2.1_hiera_tiny.json"
    shutil.copy(Path(__file__).with_name(name), tmp_path / name)
    (tmp_path / "sam2.1_hiera_tiny.json").symlink_to(shared / "parity" / "sam2.1_hiera_tiny.json")
    report = check(tmp_path / name)
    assert [row for row in report.rows if not row.ok] == []
    assert len([row for row in report.rows if row.stage == "cells"]) > 20


def test_fastsam_pads_crops_and_enlarges_like_the_code_it_ships() -> None:
    rows = side_rows(read_fixture(Path(__file__).with_name("fastsam_odd_sizes.json")))
    assert [row for row in rows if not row.ok] == []
    assert len(rows) == 13 * 4


@pytest.mark.slow
@pytest.mark.ultralytics
def test_fastsam_at_odd_sizes(shared: Path, tmp_path: Path) -> None:
    name = "fastsam_odd_sizes.json"
    shutil.copy(Path(__file__).with_name(name), tmp_path / name)
    (tmp_path / "fastsam_s.json").symlink_to(shared / "parity" / "fastsam_s.json")
    report = check(tmp_path / name)
    assert [row for row in report.rows if not row.ok] == []
    assert len([row for row in report.rows if row.what == "mask area, relative"]) == 8


def test_formula_image_by_hand() -> None:
    image = formula_image(60, 80)
    assert image[0, 0].tolist() == [0, 0, 128]
    # x 70, y 55: 3*70 + 5*55 + 41*((1 + 1) mod 3) = 567 = 2*256 + 55; (4900 + 3025) // 211 = 37;
    # 128 + 100*((1 + 1) mod 2) - (3850 // 173) mod 28 = 128 - 22
    assert image[55, 70].tolist() == [55, 37, 106]
    assert (formula_image(20, 30, ox=40, oy=35) == image[35:55, 40:70]).all()


def test_weights_follow_from_their_names() -> None:
    def std(key: str, shape: list[int], gain: float = 1.0) -> float:
        return float(weight(key, shape, "float32", 7, gain).std())

    assert std("block.conv.weight", [64, 32, 5, 5]) == pytest.approx(1 / math.sqrt(800), rel=0.02)
    assert std("block.conv.weight", [64, 32, 5, 5], 2.0) == pytest.approx(2 / math.sqrt(800), rel=0.02)
    assert std("encoder.pos_embed", [1, 64, 200]) == pytest.approx(0.3, rel=0.02)
    assert std("attn.rel_pos_h", [27, 640]) == pytest.approx(0.1, rel=0.02)
    assert std("norm.bias", [20000]) == pytest.approx(0.05, rel=0.02)
    assert float(weight("norm.weight", [20000], "float32", 7).mean()) == pytest.approx(1, abs=0.01)
    variance = weight("bn.running_var", [1000], "float32", 7, 4.0)
    assert float(variance.min()) >= 4
    assert float(variance.max()) <= 4.4
    assert weight("bn.num_batches_tracked", [], "int64", 7).item() == 0
    assert not torch.equal(weight("a.weight", [3, 3], "float32", 7), weight("a.weight", [3, 3], "float32", 8))


def test_block_row_sees_shape_value_and_nan() -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    block = {
        "shape": [3, 4],
        "mean": 5.5,
        "std": float(tensor.std(correction=0)),
        "min": 0.0,
        "max": 11.0,
        "flat_index": [5, 11],
        "values": [5.0, 11.0],
    }
    assert block_row("s", "w", block, tensor, 1e-6).ok
    changed = tensor.clone()
    changed[1, 1] += 0.11
    assert block_row("s", "w", block, changed, 1e-3).error == pytest.approx(0.01, rel=1e-4)
    assert not block_row("s", "w", block, tensor.T, 1.0).ok
    assert not block_row("s", "w", block, torch.full((3, 4), math.nan), 1.0).ok


def test_render_shows_the_worst_of_each_stage_and_gives_the_status() -> None:
    good = Report(Path("good.json"), (Row("low_res", "a", 1e-7, 1e-5), Row("low_res", "b", 2e-7, 1e-5)))
    bad = Report(Path("bad.json"), (Row("low_res", "point|multi", 1e-3, 1e-5), Row("masks", "c", math.nan, 2)))
    text = io.StringIO()
    console = Console(file=text, width=200)
    assert render([good], console) == 0
    assert "2e-07" in text.getvalue()
    assert render([good, bad], console) == 1
    assert "FAIL point|multi" in text.getvalue()
    assert not Row("masks", "c", math.nan, 2).ok
    assert render([Report(Path("empty.json"), ())], console) == 1


def test_files_that_are_no_fixtures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{", "[]", "{}"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(InputError, match=r"x\.json"):
            check(tmp_path / "x.json")
    assert main([tmp_path / "missing.json"]) == 1
    assert "missing.json" in capsys.readouterr().out


def test_a_changed_number_is_noticed(shared: Path, tmp_path: Path) -> None:
    fixture = json.loads((shared / "parity" / "clicker.json").read_text())
    fixture["tiny_cases"][1]["click"][0] += 1
    fixture["records"] = []
    (tmp_path / "clicker.json").write_text(json.dumps(fixture))
    assert [row.stage for row in check(tmp_path / "clicker.json").rows if not row.ok] == ["tiny cases"]
