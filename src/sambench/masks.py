"""Masks as COCO run-lengths and as packed bits, and the exact integer counts that an IoU is made of.

A mask is (H, W) bool in C order. An RLE is the compressed COCO string with its size [H, W]; it runs down the
columns. A packed mask is its H*W bits, row by row, eight to a byte, with zero bits up to whole words of 64,
so that 64 pixels are counted at once. Counts stay integers and are divided once, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import rlemasklib

_WORD = 8  # bytes


def decode_rle(size: Sequence[int], counts: bytes) -> np.ndarray:
    """Compressed COCO RLE of `size` [H, W] -> (H, W) bool mask, C order.

    Raises ValueError when the runs do not sum to H*W.
    """
    rle = rlemasklib.RLEMask.from_dict({"size": [int(side) for side in size], "counts": counts})
    return rle.to_array(order="C").view(bool)


def decode_inside(size: Sequence[int], counts: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    """Compressed COCO RLE of `size` [H, W] -> the pixels of the mask's box, (h, w) bool, and its first column and row.

    An empty mask gives (0, 0) pixels. Raises ValueError when the runs do not sum to H*W.
    """
    rle = rlemasklib.RLEMask.from_dict({"size": [int(side) for side in size], "counts": counts})
    part, (x, y, _, _) = rle.tight_crop()
    return part.to_array(order="C").view(bool), (int(x), int(y))


def encode_rle(mask: np.ndarray) -> bytes:
    """(H, W) bool mask of at least one pixel -> compressed COCO counts, the bytes of pycocotools."""
    return rlemasklib.encode(np.ascontiguousarray(mask, dtype=bool))["counts"]


def run_lengths(mask: np.ndarray) -> rlemasklib.RLEMask:
    """(H, W) bool mask -> its runs, from which box, area and the compressed string follow without the pixels."""
    # Most of the time goes into the transpose: OpenCV's works in blocks.
    return rlemasklib.RLEMask.from_array(cv2.transpose(np.ascontiguousarray(mask).view(np.uint8)).T)


def pack(masks: np.ndarray) -> np.ndarray:
    """(..., H, W) bool masks -> (..., B) uint8 packed masks; B is 8 * ceil(H*W / 64)."""
    masks = np.asarray(masks, dtype=bool)
    *lead, height, width = masks.shape
    packed = np.packbits(masks.reshape(*lead, height * width), axis=-1)
    if gap := -packed.shape[-1] % _WORD:
        packed = np.concatenate([packed, np.zeros((*lead, gap), dtype=np.uint8)], axis=-1)
    return packed


def area(packed: np.ndarray) -> np.ndarray:
    """(..., B) packed masks -> (...) int64 pixels in each."""
    return _count(_words(packed))


def intersection(packed_a: np.ndarray, packed_b: np.ndarray) -> np.ndarray:
    """Pixels that packed masks of one image size share, int64; leading dimensions broadcast."""
    return _count(_words(packed_a) & _words(packed_b))


def iou(intersection: np.ndarray | int, area_a: np.ndarray | int, area_b: np.ndarray | int) -> np.ndarray:
    """Intersection over union from pixel counts: one float64 division; 0.0 where both masks are empty."""
    shared = np.asarray(intersection, dtype=np.int64)
    union = np.asarray(area_a, dtype=np.int64) + np.asarray(area_b, dtype=np.int64) - shared
    return np.divide(shared, union, out=np.zeros(union.shape, dtype=np.float64), where=union > 0)[()]


def _words(packed: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(packed).view(np.uint64)


def _count(words: np.ndarray) -> np.ndarray:
    return np.bitwise_count(words).sum(axis=-1, dtype=np.int64)
