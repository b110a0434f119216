"""Clicks on masks small enough to measure by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sambench.clicks import first_click, next_click


def mask(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


CROSS = mask(
    "..#..",
    ".###.",
    "..#..",
)


def test_first_click_is_deepest_pixel() -> None:
    assert first_click(CROSS) == (2, 1)


def test_image_border_counts_as_outside() -> None:
    assert first_click(np.ones((3, 5), bool)) == (1, 1)  # (1, 1), (2, 1) and (3, 1) are all two pixels deep


def test_distance_is_euclidean() -> None:
    # (2, 1) is sqrt(2) away from the notch and (3, 1) is 2 away; by city blocks both would be 2.
    notched = mask("..###", "#####", "#####", "#####")
    assert first_click(notched) == (3, 1)


def test_missed_object_gives_positive_click() -> None:
    assert next_click(CROSS, np.zeros_like(CROSS)) == (2, 1, 1)


def test_excess_gives_negative_click() -> None:
    target = mask("##.....", "##.....", ".......")
    found = mask("##..###", "##..###", "....###")
    assert next_click(target, found) == (5, 1, 0)


def test_tie_of_miss_and_excess_is_negative() -> None:
    assert next_click(mask("#..", "..."), mask("...", "..#")) == (2, 1, 0)


@pytest.mark.parametrize("value", [False, True])
def test_perfect_prediction_clicks_first_pixel_negatively(value: bool) -> None:
    same = np.full((3, 4), value)
    assert next_click(same, same) == (0, 0, 0)


def test_clicked_pixels_are_not_clicked_again() -> None:
    found = np.zeros_like(CROSS)
    assert next_click(CROSS, found, [(2, 1)]) == (2, 0, 1)
    assert next_click(CROSS, found, [(2, 1), (2, 0), (40, 40)]) == (1, 1, 1)


def test_everything_clicked_falls_back_to_first_pixel() -> None:
    assert next_click(mask("..#"), mask("..."), [(2, 0)]) == (0, 0, 0)


def test_equals_whole_image_transform_on_random_masks() -> None:
    random = np.random.default_rng(5)
    for _ in range(30):
        target = random.random((24, 31)) < 0.8
        target[:, random.integers(1, 31) :] = False
        if not target.any():
            continue
        depth = distance_transform_edt(np.pad(target, 1))[1:-1, 1:-1].astype(np.float32)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        assert first_click(target) == (column, row)
