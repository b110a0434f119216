"""What of the candidate masks of an image remains, and as what: filters, run-lengths, suppression, small regions.

The filters are those of the official generators in an order that costs less: by predicted IoU before masks are
enlarged and not after, thresholds counted without copies, boxes and areas from run-lengths, and never more than a
slice of masks in pixels.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import cv2
import numpy as np
import torch
from rlemasklib import RLEMask

from sambench.device import synchronize
from sambench.masks import run_lengths
from sambench.variants.base import MaskCandidates, Prompts, Upsampling

EDGE = 20  # pixels: a mask that comes nearer to the edge of its crop is probably cut off there
# float32 logits at the size of the frame or image that exist at once: on a CPU what its caches hold, or one mask.
SLICE_BYTES = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Settings:
    """Thresholds under their official names; the defaults are segment-anything's.

    points_per_batch: prompts per decode; None takes the variant's own, which changes logits by rounding only.
    pred_iou_thresh, stability_score_thresh: a mask is kept above the first and from the second on; 0 keeps all.
    stability_score_offset: how far the threshold moves for the stability score.
    box_nms_thresh: box IoU above which the mask with the lower predicted IoU goes.
    crop_n_layers, crop_overlap_ratio, crop_n_points_downscale_factor: crops, see samplers.crop_boxes; layer i has
        1/factor^i of the points on a side.
    crop_nms_thresh: box IoU above which, of two crops, the mask of the larger one goes.
    min_mask_region_area: holes and islands smaller than this many pixels are removed; 0 leaves them.
    multimask_output: the three multimask tokens of a point, or the single-mask token.
    use_m2m: SAM 2's family only: every candidate goes back as a mask prompt beside its point, and the single-mask
        answer to that takes its place, before any filter. Boxes are left alone.
    high_score_thresh: hierarchical only: logits above this count as covered.
    """

    points_per_batch: int | None = None
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    multimask_output: bool = True
    use_m2m: bool = False
    high_score_thresh: float = 8.5


@dataclass(frozen=True)
class Masks:
    """K masks of one image, as parallel arrays.

    counts: (K,) bytes, compressed COCO run-lengths at the size of the image. area: (K,) int64 pixels.
    boxes: (K, 4) int64 x0, y0, x1, y1 of the first and last pixels; zeros for an empty mask.
    predicted_iou: (K,) float32, NaN where the variant predicts none. stability: (K,) float32, NaN for an empty mask.
    prompts: (K, 2) float64 x, y of the point, or (K, 4) of the box, in pixels of the image; (K, 0) for native masks.
    crops: (K, 4) int64 x0, y0, x1, y1 (exclusive) of the crop that the mask comes from.
    """

    counts: np.ndarray
    area: np.ndarray
    boxes: np.ndarray
    predicted_iou: np.ndarray
    stability: np.ndarray
    prompts: np.ndarray
    crops: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: np.ndarray) -> Masks:
        return Masks(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def concatenate(parts: Sequence[Masks]) -> Masks:
        return Masks(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Masks)})

    @property
    def scores(self) -> np.ndarray:
        """(K,) float64: the mean of predicted IoU and stability, of those that there are; what masks are ranked by."""
        both = np.stack([self.predicted_iou, self.stability]).astype(np.float64)
        known = ~np.isnan(both)
        return np.where(known, both, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


@dataclass
class Trace:
    """What a generation took: seconds by stage (encode, decode, postprocess), and masks left after each filter.

    left: prompts, candidates, predicted_iou, stability, crop_edge, nms, masks. A filter that did not run leaves as
    many as the one before. clock: returns seconds; `time.process_time` counts those of the CPU only.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    left: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.perf_counter

    @contextmanager
    def measure(self, stage: str, within: str | None = None) -> Iterator[None]:
        """Add the time of a block, with the work that it left running on a GPU.

        within: the stage whose own block this one lies in, which does not get the time.
        """
        synchronize()
        start = self.clock()
        yield
        synchronize()
        seconds = self.clock() - start
        self.seconds[stage] += seconds
        if within is not None:
            self.seconds[within] -= seconds


@torch.inference_mode()
def select(
    candidates: MaskCandidates,
    prompts: Prompts,
    settings: Settings,
    trace: Trace,
    crop: Box,
    size: tuple[int, int],
    covered: np.ndarray | None,
) -> Masks:
    """The candidates of one chunk that pass, as run-lengths."""
    tokens = answers(candidates, settings.multimask_output).cpu()
    scores = candidates.scores.float().cpu().gather(1, tokens)
    # NaN means that the variant predicts no IoU: nothing to judge by, so nothing is dropped.
    passed = ~(scores <= settings.pred_iou_thresh) if settings.pred_iou_thresh > 0 else torch.ones_like(scores).bool()
    prompt, column = passed.nonzero(as_tuple=True)
    trace.left.update(candidates=scores.numel(), predicted_iou=len(prompt))

    upsampling = candidates.upsampling
    height, width = upsampling.size
    frame = upsampling.frame or (0, 0)
    budget = SLICE_BYTES["cuda" if candidates.scores.is_cuda else "cpu"]
    step = max(1, budget // (4 * max(height * width, frame[0] * frame[1])))
    kept: list[int] = []
    runs: list[RLEMask] = []
    stability: list[float] = []
    with trace.measure("decode", within="postprocess"):  # a fast decoder draws what is asked for, prompt by prompt
        drawn = candidates.at(prompt, tokens[prompt, column])
    for start in range(0, len(prompt), step):
        low = drawn[start : start + step]
        for row, value, mask, confident in _stable(low, upsampling, settings, covered is not None):
            trace.left["stability"] += 1
            run = run_lengths(mask)
            if _cut_off(_edges(run), crop, size):
                continue
            if covered is not None:
                covered |= confident
            kept.append(start + row)
            stability.append(value)
            runs.append(_uncrop(run, crop, size))
    trace.left["crop_edge"] += len(kept)

    prompt, column = prompt[kept], column[kept]
    given = prompts.boxes if prompts.points is None else prompts.points[:, 0]
    assert given is not None
    return Masks(
        predicted_iou=scores[prompt, column].numpy(),
        stability=np.array(stability, dtype=np.float32),
        prompts=given[prompt.numpy()].astype(np.float64) + np.resize(crop[:2], given.shape[1]),
        crops=np.tile(np.array(crop, dtype=np.int64), (len(kept), 1)),
        **shapes(runs),
    )


def answers(candidates: MaskCandidates, multimask: bool) -> torch.Tensor:
    """(N, T) int64: the mask tokens of each prompt that count."""
    if not multimask:
        return candidates.single[:, None]
    tokens = torch.tensor(candidates.multimask)
    return tokens.expand(len(candidates.scores), -1)


def _stable(
    low: torch.Tensor, upsampling: Upsampling, settings: Settings, confident: bool
) -> Iterator[tuple[int, float, np.ndarray, np.ndarray | None]]:
    """Low-resolution logits (n, h, w) -> of each stable one: row, stability score, mask, and its confident pixels.

    Mask and confident pixels are (H, W) bool on the CPU; the latter None where they are not wanted.
    """
    bar = settings.stability_score_thresh
    if not low.dtype.is_floating_point:  # masks as they are: no threshold moves them, and empty ones have no score
        for row, mask in enumerate(upsampling.masks(low).cpu().numpy()):
            if mask.any() or bar <= 0:
                yield row, 1.0 if mask.any() else math.nan, mask, mask if confident else None
        return
    full = upsampling.logits(low)
    middle, offset = upsampling.threshold, settings.stability_score_offset
    bounds = (middle + offset, middle - offset)
    if full.is_cuda:
        counts = torch.stack([(full > bound).sum((1, 2)) for bound in bounds]).cpu()
    else:
        # numpy, mask by mask: what is compared stays in the cache for the count.
        counts = torch.tensor([[np.count_nonzero(x > bound) for x in full.numpy()] for bound in bounds])
    stability = counts[0] / counts[1]
    rows = (stability >= bar).nonzero()[:, 0].tolist() if bar > 0 else range(len(stability))
    for row in rows:
        logits = full[row] if full.is_cuda else full[row].numpy()
        mask = logits >= middle if upsampling.inclusive else logits > middle
        high = logits > settings.high_score_thresh if confident else None
        yield row, float(stability[row]), _array(mask), None if high is None else _array(high)


def _array(mask: torch.Tensor | np.ndarray) -> np.ndarray:
    """On the CPU, as numpy."""
    return mask if isinstance(mask, np.ndarray) else mask.cpu().numpy()


def _edges(run: RLEMask) -> np.ndarray:
    """(4,) int64 x0, y0, x1, y1 of the first and last pixels; zeros for an empty mask."""
    if not run.area():
        return np.zeros(4, dtype=np.int64)
    x, y, width, height = run.bbox().astype(np.int64)
    return np.array([x, y, x + width - 1, y + height - 1])


def _cut_off(edges: np.ndarray, crop: Box, size: tuple[int, int]) -> bool:
    """Whether a mask with these edges, in the crop's pixels, ends near an edge of the crop but not of the image."""
    edges = edges + np.array([crop[0], crop[1], crop[0], crop[1]])
    near_crop = np.abs(edges - np.array(crop)) <= EDGE
    near_image = np.abs(edges - np.array([0, 0, size[1], size[0]])) <= EDGE
    return bool((near_crop & ~near_image).any())


def _uncrop(run: RLEMask, crop: Box, size: tuple[int, int]) -> RLEMask:
    x0, y0, x1, y1 = crop
    if crop == (0, 0, size[1], size[0]):
        return run
    return run.pad(y0, size[0] - y1, x0, size[1] - x1)


def shapes(runs: Sequence[RLEMask]) -> dict[str, np.ndarray]:
    """Run-lengths as bytes, areas and boxes of masks at the size of the image."""
    counts = np.empty(len(runs), dtype=object)
    counts[:] = [run.to_dict()["counts"] for run in runs]
    return {
        "counts": counts,
        "area": np.array([run.area() for run in runs], dtype=np.int64),
        "boxes": np.array([_edges(run) for run in runs], dtype=np.int64).reshape(-1, 4),
    }


def no_masks(coordinates: int) -> Masks:
    return Masks(
        predicted_iou=np.zeros(0, np.float32),
        stability=np.zeros(0, np.float32),
        prompts=np.zeros((0, coordinates)),
        crops=np.zeros((0, 4), np.int64),
        **shapes([]),
    )


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Rows that non-maximum suppression keeps, best score first and of equals the first, as torchvision's does in the
    official generators: areas and overlaps are float32, and a box of no area overlaps nothing.

    boxes: (K, 4) x0, y0, x1, y1. A score that is NaN counts as 1: such masks are all equally good.
    """
    # Our own, since torchvision imports torch._dynamo, which takes seconds and nothing here needs.
    corners = boxes.astype(np.float32).reshape(-1, 2, 2)
    sides = corners[:, 1] - corners[:, 0]
    areas = sides[:, 0] * sides[:, 1]
    left = np.argsort(-np.nan_to_num(scores, nan=1.0), kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        high = np.minimum(corners[best, 1], corners[left, 1])
        shared = np.maximum(high - np.maximum(corners[best, 0], corners[left, 0]), 0).prod(axis=1)
        with np.errstate(invalid="ignore"):
            overlaps = shared / (areas[best] + areas[left] - shared)
        left = left[~(overlaps > np.float64(threshold))]
    return np.array(kept, dtype=np.int64)


def without_small_regions(masks: Masks, size: tuple[int, int], min_area: int, threshold: float) -> Masks:
    """Fill small holes, drop small islands, then suppress doubles again: masks that needed no change go first."""
    runs, unchanged = [], []
    for counts in masks.counts:
        run = RLEMask.from_dict({"size": list(size), "counts": counts})
        mask, changed = remove_small_regions(run.to_array(order="C").view(bool), min_area)
        runs.append(run_lengths(mask) if changed else run)
        unchanged.append(np.float32(not changed))
    cleaned = Masks(**{f.name: getattr(masks, f.name) for f in fields(Masks)} | shapes(runs))
    return cleaned[suppress(cleaned.boxes, np.array(unchanged), threshold)]


def remove_small_regions(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """(H, W) bool mask -> the mask without holes, then without islands of fewer pixels; and whether it changed.

    Pixels that touch at a corner are connected. If every island is too small the largest is left.
    """
    changed = False
    _, regions, statistics, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=8)
    small = statistics[:, cv2.CC_STAT_AREA] < min_area
    small[0] = False  # the mask itself, here in the role of the background
    if small.any():
        mask, changed = mask | small[regions], True
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= min_area
    large[0] = False
    if large.sum() < len(large) - 1:
        if not large.any():
            large[1 + np.argmax(statistics[1:, cv2.CC_STAT_AREA])] = True
        mask, changed = large[regions], True
    return mask, changed
