"""What a variant has to beat, and what none can beat: the filled box, GrabCut, and the ground truth itself.

No baseline has weights. All give masks of the original size, one token per prompt, without a predicted IoU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from sambench.variants.base import MaskCandidates, Prompts, Runtime, Upsampling, Variant

GRABCUT_ITERATIONS = 5
GRABCUT_MARGIN = 0.5  # of the box, added on every side: where GrabCut learns the colours of the background
GRABCUT_SIDE = 160  # longest side of the window that it works on
GRABCUT_SAMPLES = 5  # each of its two colour models has five components, and OpenCV refuses fewer pixels than that


def box_masks(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) xyxy -> (N, height, width) bool: the pixels whose centre lies in the box.

    The pixel of column x has its centre at x + 0.5; it is inside when x0 <= x + 0.5 < x1, rows likewise. So a
    box with integer corners fills exactly (x1 - x0) * (y1 - y0) pixels, boxes side by side share none, and
    what is outside of the image, degenerate or not a number fills nothing.
    """
    (x0, y0, x1, y1) = boxes.astype(np.float64).T[:, :, None]
    rows, columns = (np.arange(length) + 0.5 for length in size)
    inside_rows = (y0 <= rows) & (rows < y1)
    inside_columns = (x0 <= columns) & (columns < x1)
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def with_margin(span: np.ndarray) -> slice:
    """Consecutive rows or columns -> the slice of them with the margin on both ends (numpy cuts the far end)."""
    margin = round(GRABCUT_MARGIN * len(span))
    return slice(max(0, span[0] - margin), span[-1] + 1 + margin)


def grabcut_mask(image: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """GrabCut (Rother et al. 2004) in OpenCV's implementation, from a box, five iterations.

    image: (H, W, 3) uint8. fill: (H, W) bool, the filled box (`box_masks`). Returns (H, W) bool, a part of
    `fill`.

    GrabCut takes a second for a whole photograph, so it gets a window: the box with half its width and height
    added on every side, cut at the border of the image, and shrunk to at most 160 pixels where it is larger.
    The random start of its colour models has a fixed seed, so a mask depends on nothing but image and box.

    The answer is the filled box where GrabCut has none: a box that covers the whole image or has next to no
    pixels leaves OpenCV nothing to learn from (it would raise), and on half of COCO's boxes, most of them
    small, the cut shrinks until no object is left.
    """
    rows, columns = np.flatnonzero(fill.any(axis=1)), np.flatnonzero(fill.any(axis=0))
    if not len(rows):
        return fill
    window = tuple(with_margin(span) for span in (rows, columns))
    crop, inside = image[window], fill[window].astype(np.uint8)
    height, width = inside.shape
    scale = min(1.0, GRABCUT_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    x, y, w, h = cv2.boundingRect(cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST_EXACT))
    if w * h < GRABCUT_SAMPLES or size[0] * size[1] - w * h < GRABCUT_SAMPLES:
        return fill
    labels = np.zeros((size[1], size[0]), np.uint8)
    cv2.setRNGSeed(0)  # the generator is one per thread, and every call leaves it elsewhere
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(crop, labels, (x, y, w, h), *models, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_RECT)
    foreground = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    if not foreground.any():
        return fill
    mask = np.zeros_like(fill)
    mask[window] = cv2.resize(foreground, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return mask & fill


class Baseline(Variant):
    """A variant without weights: `masks` is all that differs."""

    def __init__(self, runtime: Runtime) -> None:
        self.device = runtime.torch_device()

    @abstractmethod
    def masks(self, image: np.ndarray, prompts: Prompts) -> np.ndarray:
        """(H, W, 3) uint8 image and N prompts -> (N, H, W) bool."""

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        return list(prepared)

    def decode(self, features: np.ndarray, prompts: Prompts) -> MaskCandidates:
        masks = torch.from_numpy(self.masks(features, prompts)).to(self.device)
        return one_mask_a_prompt(masks)


def one_mask_a_prompt(masks: torch.Tensor) -> MaskCandidates:
    """(N, H, W) bool masks of the original size -> candidates with a single token and no predicted IoU."""
    n, height, width = masks.shape
    return MaskCandidates(
        logits=masks[:, None],
        scores=torch.full((n, 1), torch.nan, device=masks.device),
        multimask=(0,),
        single=torch.zeros(n, dtype=torch.int64, device=masks.device),
        upsampling=Upsampling(size=(height, width)),
    )


class BoxFill(Baseline):
    """Every pixel of the prompt's box: its IoU on tight boxes is the share that the object covers."""

    prompt_kinds = frozenset({"box"})

    def masks(self, image: np.ndarray, prompts: Prompts) -> np.ndarray:
        assert prompts.boxes is not None
        return box_masks(prompts.boxes, image.shape[:2])


class GrabCut(Baseline):
    """GrabCut from the prompt's box, see `grabcut_mask`."""

    prompt_kinds = frozenset({"box"})

    def masks(self, image: np.ndarray, prompts: Prompts) -> np.ndarray:
        assert prompts.boxes is not None
        fills = box_masks(prompts.boxes, image.shape[:2])
        return np.stack([grabcut_mask(image, fill) for fill in fills]) if len(fills) else fills


class GroundTruth(Baseline):
    """The ground truth: the ceiling of every table, and a check of the evaluator (always 100.0)."""

    uses_ground_truth = True

    def masks(self, image: np.ndarray, prompts: Prompts) -> np.ndarray:
        if prompts.targets is None:
            raise ValueError("ground_truth: expected Prompts.targets, the masks of the ground truth, found none")
        return prompts.targets.astype(bool)
