"""Prompt types against hand-computed values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt

from sambench.errors import InputError
from sambench.masks import decode_rle, encode_rle
from sambench.prompts import NOISE_LIMIT, Instance, clicks_of, make_prompts, noisy_box, prompt_function


def instance(mask: np.ndarray, box: list[float], annotation_id: int = 7) -> Instance:
    return Instance("unit", annotation_id, np.array(box, dtype=float), mask)


PINNED_POINTS = [4.0, 8.0, 8.0, 6.0, 4.0, 6.0]
PINNED_BOX = [4.920148, 2.532499, 11.625567, 8.108137]


@pytest.fixture
def lshape() -> np.ndarray:
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:9, 3:6] = True
    mask[6:9, 3:11] = True
    return mask


def test_boxes_and_centres(lshape: np.ndarray) -> None:
    what = instance(lshape, [2.5, 2.0, 11.5, 9.0])
    assert prompt_function("box")(what).box.tolist() == [2.5, 2, 11.5, 9]
    assert prompt_function("tight_box")(what).box.tolist() == [3, 2, 11, 9]
    center = prompt_function("box_center")(what)
    assert center.points.tolist() == [[7.0, 5.5]] and center.labels.tolist() == [1]
    # Deepest: distance 2 to the nearest outside pixel centre is reached first at row 3, column 4; the corner of the
    # L, at row 7, column 4 has sqrt(8) to the notch and 2 to the edges, no more.
    assert prompt_function("mask_center")(what).points.tolist() == [[4, 3]]


def test_first_clicks_equal_the_official_clicker(shared: Path) -> None:
    from pycocotools.coco import COCO

    fixture = json.loads((shared / "parity" / "clicker.json").read_text())
    coco = COCO(shared / "data" / fixture["annotations"])
    for record in fixture["records"]:
        mask = coco.annToMask(coco.anns[record["ann_id"]]).astype(bool)
        point = prompt_function("mask_center")(instance(mask, [0, 0, 1, 1])).points[0]
        assert point.tolist() == record["clicks"][0][:2]


def test_random_points_lie_inside_and_differ(lshape: np.ndarray) -> None:
    for number in range(50):
        prompt = prompt_function("random_5")(instance(lshape, [3, 2, 11, 9], number))
        columns, rows = prompt.points.astype(int).T
        assert lshape[rows, columns].all()
        assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == 5
        assert prompt.labels.tolist() == [1] * 5


def test_random_points_are_uniform(lshape: np.ndarray) -> None:
    hits = np.zeros(lshape.shape)
    for number in range(3600):
        x, y = prompt_function("random_1")(instance(lshape, [3, 2, 11, 9], number)).points[0].astype(int)
        hits[y, x] += 1
    expected = 3600 / lshape.sum()
    chi2 = ((hits[lshape] - expected) ** 2 / expected).sum()
    assert chi2 < 70, "35 degrees of freedom: 66.6 is exceeded once in 1,000 fair draws, and the draws are fixed"


def test_a_mask_smaller_than_the_count_is_padded() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 2] = mask[3, 0] = True
    prompt = prompt_function("random_3")(instance(mask, [0, 0, 4, 4]))
    assert sorted(map(tuple, prompt.points[:2].tolist())) == [(0, 3), (2, 1)]
    assert prompt.labels.tolist() == [1, 1, -1]


def test_prompts_are_the_same_in_a_subset_and_on_every_machine(lshape: np.ndarray) -> None:
    rows = pd.DataFrame(
        {
            "annotation_id": [3, 4],
            "image_id": [1, 1],
            "x": 3.0,
            "y": 2.0,
            "w": 8.0,
            "h": 7.0,
            "rle_size": [[10, 12]] * 2,
            "rle_counts": [encode_rle(lshape)] * 2,
        }
    )
    types = ["random_3", "noisy_box"]
    whole, part = make_prompts("unit", rows, types), make_prompts("unit", rows.iloc[1:], types)
    assert whole.iloc[2]["points"].tolist() == part.iloc[0]["points"].tolist()
    assert whole.iloc[0]["points"].tolist() != part.iloc[0]["points"].tolist()
    # Pinned: these values must never change, or published prompts cannot be made again.
    assert part.iloc[0]["points"].tolist() == PINNED_POINTS
    np.testing.assert_allclose(part.iloc[1]["box"], PINNED_BOX, rtol=1e-6)


def test_noise_is_bounded_and_has_the_documented_spread() -> None:
    mask = np.ones((1000, 1000), dtype=bool)
    edges = np.array([400.0, 300, 440, 700])
    moved = np.array([noisy_box(instance(mask, edges.tolist(), n)).box for n in range(2000)]) - edges
    assert np.abs(moved).max() <= NOISE_LIMIT
    assert moved[:, [0, 2]].std() == pytest.approx(4.0, rel=0.05)  # a tenth of a width of 40
    assert (np.abs(moved[:, [1, 3]]) == NOISE_LIMIT).mean() == pytest.approx(0.617, abs=0.03)  # |N(0, 40)| > 20


def test_noisy_boxes_stay_in_the_image_and_in_order() -> None:
    mask = np.ones((5, 6), dtype=bool)
    for number in range(200):
        x0, y0, x1, y1 = noisy_box(instance(mask, [0, 0, 6, 5], number)).box
        assert 0 <= x0 <= x1 <= 6 and 0 <= y0 <= y1 <= 5


@pytest.mark.parametrize("name", ["boxx", "random_0", "random_", "click", "random_3_3"])
def test_unknown_types_are_refused_with_near_names(name: str) -> None:
    with pytest.raises(InputError, match=f"prompts: {name}: expected a prompt type; (did you mean|known)"):
        prompt_function(name)


def test_clicks_are_counted() -> None:
    assert [clicks_of(name) for name in ("box", "random_3", "click_1", "click_5")] == [0, 0, 1, 5]


def plain_random(mask: np.ndarray, annotation_id: int, count: int) -> tuple[list[float], list[int]]:
    """The definition: all pixels in raster order, a stream of its own, draws that were there before are left out."""
    rows, columns = np.nonzero(mask)
    text = f"unit/{annotation_id}/random_{count}"
    random = np.random.RandomState(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        number = int(random.randint(len(rows)))
        if number not in chosen:
            chosen.append(number)
    missing = count - len(chosen)
    points = [float(value) for number in chosen for value in (columns[number], rows[number])]
    return points + [0.0] * (2 * missing), [1] * len(chosen) + [-1] * missing


def scattered(seed: int = 2) -> pd.DataFrame:
    """Instances of all kinds: single pixels, dust, blobs that touch the image's edges, whole images; several images."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(60):
        height, width = random.integers(1, 90, 2)
        mask = np.zeros((height, width), dtype=bool)
        y, x = random.integers(height), random.integers(width)
        mask[y : y + random.integers(1, 60), x : x + random.integers(1, 60)] = True
        if number % 3 == 0:
            mask &= random.random(mask.shape) < 0.6
        mask[y, x] = True
        rows.append((number + 1, number // 4, x, y, 10.5, 7.25, [height, width], encode_rle(mask)))
    columns = ["annotation_id", "image_id", "x", "y", "w", "h", "rle_size", "rle_counts"]
    return pd.DataFrame(rows, columns=columns)


ALL_TYPES = [
    "box",
    "tight_box",
    "noisy_box",
    "box_center",
    "mask_center",
    "random_1",
    "random_3",
    "random_5",
    "click_3",
]


def test_prompts_from_the_box_of_a_mask_equal_those_from_the_whole_mask() -> None:
    table = scattered()
    made = make_prompts("unit", table, ALL_TYPES).set_index(["annotation_id", "prompt"])
    for row in table.itertuples():
        mask = decode_rle(row.rle_size, row.rle_counts)
        edges = [row.x, row.y, row.x + row.w, row.y + row.h]
        for name in ALL_TYPES:
            found = made.loc[(row.annotation_id, name)]
            if name.startswith("random"):
                points, labels = plain_random(mask, row.annotation_id, int(name[-1]))
                assert (found["points"].tolist(), found["labels"].tolist()) == (points, labels)
                continue
            whole = prompt_function(name)(instance(mask, edges, row.annotation_id))
            for field in ("points", "box"):
                value = getattr(whole, field)
                assert (found[field] is None) == (value is None)
                assert value is None or np.array_equal(found[field], value.astype(np.float32).ravel())
        deepest = distance_transform_edt(np.pad(mask, 1), return_distances=False, return_indices=True)
        squares = ((deepest - np.indices(deepest.shape[1:])) ** 2).sum(axis=0)[1:-1, 1:-1]
        y, x = np.unravel_index(squares.argmax(), squares.shape)
        assert made.loc[(row.annotation_id, "mask_center"), "points"].tolist() == [x, y]


def test_prompts_are_the_same_bytes_on_any_threads_in_any_order_and_split() -> None:
    table = scattered(seed=3)

    def written(part: pd.DataFrame) -> list[tuple]:
        made = make_prompts("unit", part, ALL_TYPES)
        rows = [
            tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in row)
            for row in made.itertuples(index=False)
        ]
        return sorted(rows, key=lambda row: (row[0], row[2]))

    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        expected = written(table)
        cv2.setNumThreads(4)
        assert written(table) == expected
        shuffled = table.sample(frac=1, random_state=1)
        assert written(shuffled) == expected
        assert sorted(written(shuffled[:17]) + written(shuffled[17:]), key=lambda row: (row[0], row[2])) == expected
    finally:
        cv2.setNumThreads(threads)


def test_an_instance_of_run_lengths_is_placed_in_its_image(lshape: np.ndarray) -> None:
    made = Instance.of_rle("unit", 7, np.array([3.0, 2, 11, 9]), lshape.shape, encode_rle(lshape))
    assert made.mask.shape == (7, 8) and made.corner == (3, 2) and made.image_size == (10, 12)
    assert [made.pixel(number) for number in range(made.mask.sum())] == list(
        zip(*reversed(np.nonzero(lshape)), strict=True)
    )
