"""Clicks on masks small enough to measure by hand."""

from __future__ import annotations

import cv2
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


def first_deepest(target: np.ndarray) -> tuple[int, int]:
    """The oracle: scipy finds the nearest outside pixel of each, which gives squared distances as integers."""
    nearest = distance_transform_edt(np.pad(target, 1), return_distances=False, return_indices=True).astype(np.int64)
    squares = ((nearest - np.indices(nearest.shape[1:])) ** 2).sum(axis=0)[1:-1, 1:-1]
    row, column = np.unravel_index(squares.argmax(), squares.shape)
    return int(column), int(row)


def blobs(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A union of discs with holes: many depths that are nearly equal."""
    canvas = np.zeros((height, width), np.uint8)
    for value in (1, 1, 1, 0, 0):
        center = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(canvas, center, int(random.integers(1, max(2, min(height, width) // 2))), value, -1)
    return canvas.astype(bool)


def test_equals_exact_integer_distances_on_random_masks() -> None:
    random = np.random.default_rng(5)
    for number in range(150):
        height, width = random.integers(1, 130, 2)
        target = blobs(random, height, width) if number % 2 else random.random((height, width)) < 0.9
        if target.any():
            assert first_click(target) == first_deepest(target)


@pytest.mark.parametrize(("height", "width"), [(700, 900), (40, 6000), (2600, 1200)])
def test_is_exact_where_squares_are_large(height: int, width: int) -> None:
    random = np.random.default_rng(height)
    for _ in range(2):
        target = blobs(random, height, width)
        assert first_click(target) == first_deepest(target)
    # Two discs of one radius: float32 cannot tell which is deeper, raster order decides.
    twins = np.zeros((height, width), np.uint8)
    radius = min(height, width) // 5
    for x in (width - radius - 2, radius + 1):
        cv2.circle(twins, (x, height // 2), radius, 1, -1)
    assert first_click(twins.astype(bool)) == (radius + 1, height // 2)


def test_the_whole_of_a_large_image() -> None:
    # Squares of 4,500,000: float32 roots, squared again, may be off by more than a half there.
    assert first_click(np.ones((4243, 4300), bool)) == (2121, 2121)


def test_does_not_depend_on_the_crop_or_on_threads() -> None:
    random = np.random.default_rng(8)
    threads = cv2.getNumThreads()
    try:
        for _ in range(25):
            target = blobs(random, 120, 160)
            clicks = set()
            for count in (1, 4):
                cv2.setNumThreads(count)
                for left, right in ((0, 0), (3, 0), (0, 5), (31, 64)):
                    placed = np.pad(target, ((1, 2), (left, right)))
                    x, y, label = next_click(placed, np.zeros_like(placed)) if target.any() else (left, 1, 1)
                    clicks.add((x - left, y - 1, label))
            assert len(clicks) == 1
    finally:
        cv2.setNumThreads(threads)
