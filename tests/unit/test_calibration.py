"""What the predicted IoU is worth: hand-computed cases, scipy's rank correlation, and the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sambench.results.figures import save
from sambench.results.reliability import reliability_chart
from sambench.results.table import typed
from sambench.results.tables import calibration, calibration_bins
from sambench.status import NO_WEIGHTS, OK

BOOTSTRAP = {"resamples": 200, "seed": 0}
KEY = {"dataset": "d", "variant": "v", "runtime": "eager", "prompt": "box"}


def rows(predicted: list[float], iou: list[float], status: str = OK) -> pd.DataFrame:
    columns = {"image_id": range(len(iou)), "iou": iou, "predicted_iou": np.float32(predicted), "status": status}
    return pd.DataFrame(columns)


def test_hand_computed() -> None:
    # Bins 0.5 to 0.6: predicted 0.55, true 0.65 and 0.25; 0.9 to 1: predicted 0.9, 1.1 (cut to 1), true 0.8, 0.9.
    line = calibration.line(rows([0.55, 0.55, 0.9, 1.1], [0.65, 0.25, 0.8, 0.9]), **BOOTSTRAP)
    # Means 0.55 and 0.45 in the first, 0.95 and 0.85 in the second bin.
    assert line["ece"] == pytest.approx(10.0)
    assert line["bias"] == pytest.approx(10.0)
    assert line["miou"] == pytest.approx(65.0)
    assert line["miou_top_50"] == pytest.approx(85.0) and line["miou_top_25"] == pytest.approx(90.0)
    assert line["auc_75"] == 1.0, "both good masks lie before both bad ones"
    assert line["ece_low"] <= line["ece"] <= line["ece_high"]
    assert (line["instances"], line["images"], line["status"]) == (4, 4, OK)


def test_predictions_above_one_still_rank() -> None:
    line = calibration.line(rows([1.05, 1.02, 1.01, 0.5], [0.9, 0.7, 0.8, 0.1]), **BOOTSTRAP)
    assert line["rank_correlation"] == pytest.approx(0.8) and line["miou_top_25"] == pytest.approx(90.0)


def test_errors_of_opposite_sign_in_different_bins_do_not_cancel() -> None:
    line = calibration.line(rows([0.2, 0.8], [0.3, 0.7]), **BOOTSTRAP)
    assert line["ece"] == pytest.approx(10.0) and line["bias"] == pytest.approx(0.0, abs=1e-6)


def test_ranks_with_ties_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    predicted = random.integers(0, 20, 300) / 20
    iou = np.clip(predicted + random.normal(0, 0.3, 300), 0, 1)
    assert calibration.rank_correlation(predicted, iou) == pytest.approx(stats.spearmanr(predicted, iou).statistic)
    good = iou >= 0.75
    wins = stats.mannwhitneyu(predicted[good], predicted[~good]).statistic
    assert calibration.auc(predicted, good) == pytest.approx(wins / good.sum() / (~good).sum())


def test_why_there_is_no_number() -> None:
    assert calibration.line(rows([np.nan], [0.5]), **BOOTSTRAP)["status"] == calibration.NO_PREDICTION
    assert calibration.line(rows([np.nan], [np.nan], NO_WEIGHTS), **BOOTSTRAP)["status"] == NO_WEIGHTS
    easy = calibration.line(rows([0.8, 0.9], [0.8, 0.9]), **BOOTSTRAP)
    assert easy["status"] == calibration.ONE_KIND and np.isnan(easy["auc_75"])
    assert list(calibration_bins.bin_lines(rows([np.nan], [0.5]), **BOOTSTRAP)) == []


def test_bins_and_their_figure(tmp_path: Path) -> None:
    predicted = np.linspace(0.6, 1.0, 20)
    found = list(calibration_bins.bin_lines(rows(predicted.tolist(), (predicted**2).tolist()), **BOOTSTRAP))
    assert [(line["bin"], line["instances"], line["images"]) for line in found] == [(n, 2, 2) for n in range(1, 11)]
    assert found[9]["predicted"] == pytest.approx(100 * predicted[-2:].mean())
    assert found[9]["miou"] == pytest.approx(100 * (predicted[-2:] ** 2).mean())
    assert [found[0]["predicted_from"], found[0]["predicted_to"]] == pytest.approx(100 * predicted[:2], rel=1e-6)
    variants = [{**KEY, "variant": f"v{n}"} | line for n in range(8) for line in found]
    for lines, word in ((variants, ">v7<"), ([], "no predicted IoU")):
        path = tmp_path / f"{len(lines)}.svg"
        save(reliability_chart(typed(lines, calibration_bins.SCHEMA)), path)
        assert word in path.read_text()
