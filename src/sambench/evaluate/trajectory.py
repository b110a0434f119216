"""Interactive segmentation: one click after the other, each where the last answer is most wrong, each decoded once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sambench.clicks import next_click
from sambench.variants.base import MaskCandidates, Prompts, Variant

LOGIT_LIMIT = 32.0  # what a fed back logit is cut to, as the official predictors of SAM 2 do


@dataclass(frozen=True)
class Answer:
    """What a variant answers to N prompts with the same number of clicks.

    The answer that the user sees, corrects and feeds back is the mask that the rule `argmax` chooses.
    asked: the reading of `time.perf_counter` before it was decoded.
    """

    candidates: MaskCandidates
    asked: float

    @cached_property
    def logits(self) -> torch.Tensor:
        """(N, h, w): of the chosen masks."""
        return self.candidates.take(self.candidates.argmax())[0]

    @cached_property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool: the chosen masks at the size of the image."""
        return self.candidates.upsampling.masks(self.logits).cpu().numpy()


def trajectory(
    variant: Variant, features: Any, prompts: Prompts, truth: np.ndarray, clicks: int, *, feed_back: bool = False
) -> Iterator[Answer]:
    """The answers to the prompts of one image, and to the same with one, two, ... `clicks` further clicks.

    truth: (N, H, W) bool, the objects that the user wants; clicks follow `clicks.next_click`. feed_back: the logits of
    each answer go back to the decoder with the next click, for a variant that `takes_masks`.
    """
    for number in range(clicks + 1):
        asked = time.perf_counter()
        answer = Answer(variant.decode(features, prompts), asked)
        yield answer
        if number < clicks:
            prompts = clicked(prompts, truth, answer, feed_back=feed_back)


def clicked(prompts: Prompts, truth: np.ndarray, answer: Answer, *, feed_back: bool = False) -> Prompts:
    """The prompts with one more click each, placed where the answer to them is most wrong."""
    n = len(prompts)
    points = np.zeros((n, 0, 2), np.float32) if prompts.points is None else prompts.points
    labels = np.zeros((n, 0), np.int64) if prompts.labels is None else prompts.labels
    before = points.astype(np.int64)
    clicks = np.array([next_click(t, f, map(tuple, b)) for t, f, b in zip(truth, answer.masks, before, strict=True)])
    return Prompts(
        boxes=prompts.boxes,
        points=np.concatenate([points, clicks[:, None, :2].astype(np.float32)], axis=1),
        labels=np.concatenate([labels, clicks[:, 2:].astype(np.int64)], axis=1),
        targets=prompts.targets,
        masks=answer.logits.float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT) if feed_back else None,
    )
