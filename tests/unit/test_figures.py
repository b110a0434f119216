"""Figures of costs: where lines and labels go, and that both are drawn from what tables hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sambench.results.figures import cost_chart, place_labels, save, spread
from sambench.results.table import find_table, typed
from sambench.results.tables import efficiency as efficiency_table
from sambench.results.tables import latency as latency_table

NAMES = ("quick", "slow", "as_slow")


@pytest.fixture
def times() -> pd.DataFrame:
    """Three variants of which two lie nearly on one another, and one without a time."""
    lines = [
        {
            "dataset": "d", "variant": name, "runtime": "eager", "device": "A CPU", "weights": "random", "threads": 2,
            "boxes": boxes, "cumulative_ms": base + 10 * boxes, "cumulative_low": base + 9 * boxes,
            "cumulative_high": base + 11 * boxes, "segany_ms": base + 10, "busy": True, "status": "ok",
        }
        for name, base in zip(NAMES, (100, 3000, 3001), strict=True)
        for boxes in (1, 10, 20)
    ]  # fmt: skip
    failed = {"dataset": "d", "variant": "huge", "runtime": "eager", "device": "A CPU", "status": "out of memory"}
    return typed([*lines, failed], latency_table.SCHEMA)


def draw(name: str, *tables: pd.DataFrame) -> Any:
    """The figure of a table, as the workflow draws it."""
    table = find_table(name)
    assert table.draw is not None
    return table.draw(*tables)


def test_labels_are_spread_no_more_than_needed() -> None:
    assert spread([10, 50, 90], 13, 200) == [10, 50, 90]
    assert spread([10, 10, 10], 10, 200) == [0, 10, 20], "around their mean, in their order"
    assert spread([0, 100, 101], 13, 110) == pytest.approx([0, 94, 107])
    assert spread([195, 199], 13, 200) == pytest.approx([187, 200]), "not beyond the end"
    placed = spread(sorted(np.random.default_rng(0).uniform(0, 300, 20)), 13, 300)
    assert min(np.diff(placed)) >= 13 - 1e-9 and placed[-1] <= 300


def test_labels_of_bubbles_keep_off_each_other() -> None:
    x, y, radii = np.array([100.0, 105.0, 590.0]), np.array([100.0, 104.0, 5.0]), np.array([8.0, 8.0, 8.0])
    labels = ["one_variant", "another_one", "at_the_edge"]
    offsets = place_labels(x, y, radii, labels, (600, 400))
    left, middle = x + offsets[:, 0], y + offsets[:, 1]
    right = left + [6.2 * len(label) for label in labels]
    assert right[2] <= 600 and left.min() >= 0 and middle[2] >= 6.5
    apart = right[0] <= left[1] or right[1] <= left[0] or abs(middle[0] - middle[1]) >= 13
    assert apart


def test_cumulative_times_are_drawn(times: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "latency.svg"
    save(draw("latency", times), path)
    svg = path.read_text()
    assert all(f">{name}<" in svg for name in NAMES) and ">huge<" not in svg
    assert "A CPU" in svg and "random weights" in svg and "busy" in svg and "cumulative time, ms" in svg
    png = tmp_path / "latency.png"
    save(draw("latency", times), png)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_costs_are_drawn(times: pd.DataFrame, tmp_path: Path) -> None:
    counts = [
        {"variant": name, "flops_g": flops, "params_m": params, "status": "ok"}
        for name, flops, params in zip(NAMES, (40.0, 700.0, 710.0), (9.6, 90.0, 94.0), strict=True)
    ]
    path = tmp_path / "efficiency.svg"
    save(cost_chart(typed(counts, efficiency_table.SCHEMA), times), path)
    svg = path.read_text()
    assert all(f">{name}<" in svg for name in NAMES) and "parameters, M" in svg and "FLOPs" in svg


def test_a_study_without_times_has_a_figure_that_says_so(times: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "latency.svg"
    save(draw("latency", times[times["status"] != "ok"]), path)
    assert "no times" in path.read_text()
