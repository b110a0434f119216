"""RLE and IoU kernels against hand-computed values and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sambench import masks

# pycocotools.mask.decode predates NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@st.composite
def mask_stacks(draw: st.DrawFn, least: int = 1, most: int = 4) -> np.ndarray:
    """(N, H, W) bool masks: empty, full, sparse, dense, in blocks."""
    n, height, width = draw(st.integers(least, most)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density, block = draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])), draw(st.integers(1, 9))
    coarse = generator.random((n, -(-height // block), -(-width // block))) < density
    return coarse.repeat(block, axis=1).repeat(block, axis=2)[:, :height, :width]


def reference(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def test_rle_by_hand() -> None:
    # Down the columns: 0 0 | 1 0 | 1 1, so runs of 2, 1, 1, 2. A number below 16 is the character 48 + n;
    # from the fourth run on it is the difference to the run two before, here 2 - 1.
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    assert masks.encode_rle(mask) == b"2111"
    decoded = masks.decode_rle([2, 3], b"2111")
    assert decoded.dtype == bool and decoded.flags.c_contiguous and (decoded == mask).all()


def test_runs_of_another_sum_are_refused() -> None:
    with pytest.raises(ValueError, match="sum of run lengths"):
        masks.decode_rle([3, 3], b"2111")


@given(mask_stacks(most=1))
def test_rle_is_that_of_pycocotools(stack: np.ndarray) -> None:
    mask = stack[0]
    rle = reference(mask)
    assert masks.encode_rle(mask) == rle["counts"]
    assert masks.encode_rle(np.asfortranarray(mask)) == rle["counts"]
    decoded = masks.decode_rle(tuple(mask.shape), rle["counts"])
    assert decoded.dtype == bool and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, coco_mask.decode(rle).astype(bool))


def test_counts_and_iou_by_hand() -> None:
    a = np.zeros((5, 13), dtype=bool)  # 65 pixels: one more than a word
    b = a.copy()
    a[0:2, 0:4] = True  # 8 pixels
    b[1:5, 1:13] = True  # 48 pixels, 3 of them shared
    b[4, 12] = a[4, 12] = True  # the last bit of all: now 9 and 48, 4 shared
    packed = masks.pack(np.stack([a, b]))
    assert packed.dtype == np.uint8 and packed.shape == (2, 16)
    assert masks.area(packed).tolist() == [9, 48]
    assert masks.intersection(packed[0], packed[1]) == 4
    assert masks.iou(4, 9, 48) == 4 / 53


def test_iou_of_empty_masks_is_zero() -> None:
    assert masks.iou(0, 0, 0) == 0.0
    assert masks.iou(0, 0, 7) == 0.0
    ious = masks.iou(np.array([0, 0, 6]), np.array([0, 3, 6]), np.array([0, 0, 6]))
    assert ious.dtype == np.float64 and ious.tolist() == [0.0, 0.0, 1.0]


def test_counts_do_not_overflow() -> None:
    packed = masks.pack(np.ones((3, 1024, 1024), dtype=bool))
    assert masks.area(packed).tolist() == [2**20] * 3
    # Sums of large counts leave 32 bits, and a count may come as any integer type.
    big = np.array([2**31 - 1], dtype=np.int32)
    assert masks.iou(big, big, big) == 1.0


@given(mask_stacks(least=2))
def test_iou_is_that_of_pycocotools(stack: np.ndarray) -> None:
    first, rest = stack[:1], stack[1:]
    packed_first, packed_rest = masks.pack(first), masks.pack(rest)
    shared = masks.intersection(packed_first, packed_rest)
    assert shared.dtype == np.int64
    np.testing.assert_array_equal(shared, (first & rest).sum(axis=(1, 2)))
    np.testing.assert_array_equal(masks.area(packed_rest), rest.sum(axis=(1, 2)))
    found = masks.iou(shared, masks.area(packed_first), masks.area(packed_rest))
    expected = coco_mask.iou([reference(m) for m in rest], [reference(first[0])], [0])[:, 0]
    # pycocotools divides 0 by 0 or by 1 when both are empty, as its version has it.
    union = (first | rest).any(axis=(1, 2))
    np.testing.assert_array_equal(found[union], expected[union])
    assert (found[~union] == 0).all()


def test_packing_keeps_leading_dimensions_and_broadcasts() -> None:
    stack = np.random.default_rng(0).random((2, 3, 7, 9)) < 0.5
    packed = masks.pack(stack)
    assert packed.shape == (2, 3, 8)
    shared = masks.intersection(packed[:, :, None], packed[:, None])
    expected = np.einsum("nahw,nbhw->nab", stack.astype(int), stack.astype(int))
    np.testing.assert_array_equal(shared, expected)
