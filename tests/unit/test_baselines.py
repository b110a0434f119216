"""Box fill, GrabCut and oracle against masks counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sambench.variants.base import Prompts, Runtime, Variant
from sambench.variants.baselines import BoxFill, GrabCut, GroundTruth, box_masks, grabcut_mask

RUNTIME = Runtime(device="cpu")
SIZE = (60, 80)
# Beside the image, turned round, without area, and not a number.
NOWHERE = [[90, 10, 120, 20], [-30, -30, -1, -1], [40, 40, 20, 20], [10, 10, 10, 10], [float("nan"), 0, 9, 9]]


def decode(variant: Variant, image: np.ndarray, prompts: Prompts) -> np.ndarray:
    """The masks of the prompts, (N, H, W) bool, through the whole contract."""
    (features,) = variant.encode([image])
    candidates = variant.decode(features, prompts)
    assert candidates.logits.dtype == torch.bool
    assert candidates.scores.isnan().all()
    assert candidates.argmax().tolist() == [0] * len(prompts)
    return candidates.upsampling.masks(candidates.logits[:, 0]).numpy()


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A red ellipse on blue, both noisy, and its mask."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = ((x - 38) / 22) ** 2 + ((y - 30) / 16) ** 2 <= 1
    colours = np.where(mask[:, :, None], (200, 50, 40), (40, 70, 160))
    noise = np.random.default_rng(0).normal(0, 10, (*SIZE, 3))
    return (colours + noise).clip(0, 255).astype(np.uint8), mask


def tight(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_an_integer_box_fills_its_area_and_neighbours_share_nothing() -> None:
    left, right, whole = box_masks(boxes([3, 5, 20, 15], [20, 5, 31, 15], [0, 0, 80, 60]), SIZE)
    assert left.sum() == 17 * 10
    assert right.sum() == 11 * 10
    assert not (left & right).any()
    assert left[5, 3]
    assert left[14, 19]
    assert whole.all()


@given(st.lists(st.floats(-20, 100, width=32), min_size=4, max_size=4))
def test_a_pixel_is_filled_when_its_centre_is_in_the_box(box: list[float]) -> None:
    x0, y0, x1, y1 = box
    columns = [x for x in range(SIZE[1]) if x0 <= x + 0.5 < x1]
    rows = [y for y in range(SIZE[0]) if y0 <= y + 0.5 < y1]
    (mask,) = box_masks(boxes(box), SIZE)
    assert mask.sum() == len(rows) * len(columns)
    assert mask[np.ix_(rows, columns)].all()


def test_the_iou_of_a_filled_tight_box_is_mask_area_over_box_area() -> None:
    image, ellipse = scene()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    truth = [ellipse, x + y < 20, (x - 60) ** 2 + (y - 10) ** 2 <= 81, (x == 7) & (y == 9)]
    prompts = Prompts(boxes=boxes(*(tight(mask) for mask in truth)))
    for mask, filled, (x0, y0, x1, y1) in zip(
        truth, decode(BoxFill(RUNTIME), image, prompts), prompts.boxes, strict=True
    ):
        iou = (mask & filled).sum() / (mask | filled).sum()
        assert iou == pytest.approx(mask.sum() / ((x1 - x0) * (y1 - y0)))


@pytest.mark.parametrize("variant", [BoxFill, GrabCut])
def test_a_box_nowhere_gives_an_empty_mask(variant: type[Variant]) -> None:
    image, _ = scene()
    assert not decode(variant(RUNTIME), image, Prompts(boxes=boxes(*NOWHERE))).any()
    assert decode(variant(RUNTIME), image, Prompts(boxes=boxes())).shape == (0, *SIZE)


def test_grabcut_finds_a_coloured_object() -> None:
    image, truth = scene()
    x0, y0, x1, y1 = tight(truth)
    (mask,) = decode(GrabCut(RUNTIME), image, Prompts(boxes=boxes([x0 - 2, y0 - 2, x1 + 2, y1 + 2])))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


def test_grabcut_gives_the_box_where_it_has_nothing_to_learn_from() -> None:
    image, _ = scene()
    hopeless = boxes([0, 0, 80, 60], [-5, -5, 200, 200], [10, 10, 12, 12])
    assert (decode(GrabCut(RUNTIME), image, Prompts(boxes=hopeless)) == box_masks(hopeless, SIZE)).all()


def test_grabcut_depends_on_nothing_that_ran_before() -> None:
    image, truth = scene()
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    box = boxes(tight(truth))
    first = grabcut_mask(noise, box_masks(box, SIZE)[0])
    grabcut_mask(image, box_masks(box, SIZE)[0])
    assert (grabcut_mask(noise, box_masks(box, SIZE)[0]) == first).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-20, 100, width=32), min_size=4, max_size=4), st.sampled_from([0, 255]))
def test_grabcut_takes_any_box_and_stays_in_it(box: list[float], grey: int) -> None:
    image = scene()[0] if grey else np.zeros((*SIZE, 3), np.uint8)
    (fill,) = box_masks(boxes(box), SIZE)
    mask = grabcut_mask(image, fill)
    assert not (mask & ~fill).any()
    assert mask.any() == fill.any()


def test_a_window_larger_than_the_limit_is_shrunk_and_enlarged_again() -> None:
    image, truth = scene()
    image, truth = (np.kron(a, np.ones((5, 5, 1) if a.ndim == 3 else (5, 5), a.dtype)) for a in (image, truth))
    (fill,) = box_masks(boxes(tight(truth)), truth.shape)
    mask = grabcut_mask(image, fill)
    assert mask.shape == truth.shape
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_the_oracle_returns_the_ground_truth() -> None:
    image, truth = scene()
    points = np.zeros((1, 1, 2), np.float32)
    prompts = Prompts(points=points, labels=np.ones((1, 1), np.int64), targets=truth[None])
    assert GroundTruth.uses_ground_truth
    assert (decode(GroundTruth(RUNTIME), image, prompts) == truth[None]).all()
    with pytest.raises(ValueError, match="targets"):
        decode(GroundTruth(RUNTIME), image, Prompts(points=points, labels=np.ones((1, 1), np.int64)))
