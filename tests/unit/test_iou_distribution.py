"""The distribution of the IoU: against values counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from sambench.results.tables.iou_distribution import line
from sambench.status import NO_WEIGHTS, OK


def test_tenths_are_half_open_and_percentiles_are_those_of_the_masks() -> None:
    iou = [0.0, 0.1, 0.29, 0.3, 0.7, 0.7, 0.9, 1.0]
    found = line(pd.DataFrame({"image_id": range(8), "iou": iou, "status": OK}))
    shares = [found[f"from_{start}"] for start in range(0, 100, 10)]
    assert shares == pytest.approx([12.5, 12.5, 12.5, 12.5, 0, 0, 0, 25, 0, 25])
    assert found["p50"] == pytest.approx(50.0) and found["instances"] == 8
    # Linear between neighbours: place 0.75 * 7 = 5.25 is a quarter of the way from 0.7 to 0.9.
    assert found["p75"] == pytest.approx(75.0)


def test_without_numbers_the_status_says_why() -> None:
    found = line(pd.DataFrame({"image_id": [1], "iou": [float("nan")], "status": NO_WEIGHTS}))
    assert found == {"instances": 0, "images": 0, "status": NO_WEIGHTS}
