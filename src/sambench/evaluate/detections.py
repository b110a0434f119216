"""The boxes of detectors as prompts, and the masks that they give, kept as run-lengths for average precision.

Category and score of a mask are the detector's; the predicted IoU is not multiplied in (protocol, Instance
segmentation).
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pandas as pd

from sambench import masks
from sambench.evaluate.segany import NOTHING, Batch, LoadedImage, enlarge, tokens_to_enlarge
from sambench.jobs import mask_selections
from sambench.status import OK
from sambench.variants.base import MaskCandidates

ENCODE_AHEAD = 4  # chunks of masks that wait for their run-lengths while the device goes on


def box_prompts(boxes: Mapping[str, pd.DataFrame], instances: pd.DataFrame | None = None) -> pd.DataFrame:
    """Boxes by detector, columns of records.BOXES -> rows of prompts, columns of records.PROMPTS and three more.

    `detected` is True, `category_id` and `score` are the detector's. `prompt` is the name of the detector and `box`
    x0, y0, x1, y1. `annotation_id` is NOTHING, or where `instances` are given, the instance that a box is on.
    """
    parts = []
    for detector, found in boxes.items():
        corners = np.column_stack([found["x"], found["y"], found["x"] + found["w"], found["y"] + found["h"]])
        part = found[["image_id", "category_id", "score"]].assign(
            annotation_id=NOTHING if instances is None else instance_of(found, instances),
            prompt=detector,
            points=None,
            labels=None,
            detected=True,
        )
        part["box"] = pd.Series(list(corners.astype(np.float32)), index=part.index, dtype=object)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def instance_of(boxes: pd.DataFrame, instances: pd.DataFrame) -> np.ndarray:
    """For each box the annotation of its image and category whose box it overlaps most by IoU, else NOTHING.

    The masks of these instances are what `ground_truth` answers to boxes of a detector: the ceiling that their AP has
    with perfect masks. Both tables have image_id, category_id and x, y, w, h in pixels; returns (N,) int64.
    """
    answer = np.full(len(boxes), NOTHING, dtype=np.int64)
    of_image = instances.groupby(["image_id", "category_id"]).indices
    xywh, truth = (table[["x", "y", "w", "h"]].to_numpy(float) for table in (boxes, instances))
    ids = instances["annotation_id"].to_numpy()
    for key, rows in boxes.groupby(["image_id", "category_id"]).indices.items():
        if key in of_image:
            overlaps = box_ious(xywh[rows], truth[of_image[key]])
            best = overlaps.argmax(axis=1)
            hit = overlaps.max(axis=1) > 0
            answer[rows[hit]] = ids[of_image[key][best[hit]]]
    return answer


def box_ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 4) and (K, 4) boxes x, y, w, h -> (N, K) intersection over union; 0 where the union is."""
    low, high = (
        np.maximum(a[:, None, :2], b[:, :2]),
        np.minimum(*((c[..., :2] + c[..., 2:]) for c in (a[:, None], b))),
    )
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = a[:, None, 2:].prod(axis=-1) + b[:, 2:].prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


class DetectedMasks:
    """The masks of detector boxes, one row per box and selection rule, as run-lengths made beside the decoding.

    first: the row of the planned prompts that the boxes start at.
    """

    def __init__(self, rows: int, first: int, selections: Sequence[str], status: str = "") -> None:
        self.selections, self.first = mask_selections(selections), first
        self.counts = {rule: np.full(rows, None, dtype=object) for rule in self.selections}
        self.predicted_iou = {rule: np.full(rows, np.nan, dtype=np.float32) for rule in self.selections}
        self.status = np.full(rows, status, dtype=object)
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._waiting: collections.deque[tuple[dict[str, np.ndarray], dict[str, np.ndarray], Future[np.ndarray]]]
        self._waiting = collections.deque()

    def take(self, candidates: MaskCandidates, batch: Batch, loaded: LoadedImage) -> None:
        rows, scores = batch.rows - self.first, candidates.scores.cpu().numpy()
        tokens = {"argmax": candidates.argmax().cpu().numpy(), "single": candidates.single.cpu().numpy()}
        for rule in self.selections:
            self.predicted_iou[rule][rows] = scores[np.arange(len(rows)), tokens[rule]]
        for prompt, token, found in enlarge(
            candidates, tokens_to_enlarge(candidates, self.selections), loaded.task.size
        ):
            chosen = {rule: np.flatnonzero(tokens[rule][prompt] == token) for rule in self.selections}
            of_rule = {rule: rows[prompt[at]] for rule, at in chosen.items()}
            self._waiting.append((of_rule, chosen, self._pool.submit(_encode, found.cpu().numpy())))
        while len(self._waiting) > ENCODE_AHEAD:
            self._collect()
        self.status[rows] = OK

    def give_up(self, rows: np.ndarray, status: str) -> None:
        self.status[rows - self.first] = status

    def _collect(self) -> None:
        of_rule, chosen, future = self._waiting.popleft()
        encoded = future.result()
        for rule, rows in of_rule.items():
            self.counts[rule][rows] = encoded[chosen[rule]]

    def table(self, boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
        """The columns of records.MASKS, rule by rule in the order of the boxes (as of `box_prompts`).

        Raises RuntimeError when a box was never decoded: a bug that must not become a lower AP.
        """
        while self._waiting:
            self._collect()
        self._pool.shutdown()
        undone = int((self.status == "").sum())
        if undone:
            raise RuntimeError(f"{undone} of {len(boxes)} boxes were not decoded")
        sizes = dict(zip(images["image_id"], zip(images["height"], images["width"], strict=True), strict=True))
        done = self.status == OK
        for counts in self.counts.values():
            counts[~done] = None  # a chunk that ran out of memory half way leaves no half of its masks
        facts = boxes[["image_id", "category_id", "score"]].assign(detector=boxes["prompt"], status=self.status)
        facts["rle_size"] = [
            list(sizes[image]) if ok else None for image, ok in zip(boxes["image_id"], done, strict=True)
        ]
        return pd.concat(
            [
                facts.assign(
                    selection=rule,
                    predicted_iou=self.predicted_iou[rule],
                    rle_counts=self.counts[rule],
                )
                for rule in self.selections
            ],
            ignore_index=True,
        )


def _encode(found: np.ndarray) -> np.ndarray:
    """(n, H, W) bool -> (n,) compressed counts."""
    encoded = np.empty(len(found), dtype=object)
    encoded[:] = [masks.encode_rle(mask) for mask in found]
    return encoded
