"""Segment everything: all masks of an image from a grid of points, or from boxes, for any variant.

The result is that of the official generators (segment_anything/automatic_mask_generator.py, sam2's of the same name,
tinysam/hierarchical_mask_generator.py): the same masks in the same order. What differs is the order of the work:
masks are filtered by their predicted IoU before they are enlarged and not after, thresholds are counted without
copies, boxes and areas come from run-lengths, and never more than a slice of masks exists in pixels.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from rlemasklib import RLEMask
from torchvision.ops import batched_nms

from sambench.errors import InputError
from sambench.evaluate.masks import run_lengths
from sambench.evaluate.samplers import (
    COARSER,
    GRID,
    HIERARCHICAL,
    NATIVE,
    Sampler,
    crop_boxes,
    point_grid,
    second_round,
)
from sambench.variants.base import BOX, POINT, MaskCandidates, Prompts, Upsampling, Variant

EDGE = 20  # pixels: a mask that comes nearer to the edge of its crop is probably cut off there
# float32 logits at the size of the frame or image that exist at once: on a CPU what its caches hold, or one mask.
SLICE_BYTES = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Settings:
    """Thresholds under their official names; the defaults are segment-anything's.

    points_per_batch: prompts a decode; None takes the variant's own, which changes logits by rounding only.
    pred_iou_thresh, stability_score_thresh: a mask is kept above the first and from the second on; 0 keeps all.
    stability_score_offset: how far the threshold moves for the stability score.
    box_nms_thresh: box IoU above which the mask with the lower predicted IoU goes.
    crop_n_layers, crop_overlap_ratio, crop_n_points_downscale_factor: crops, see samplers.crop_boxes; layer i has
        1/factor^i of the points on a side.
    crop_nms_thresh: box IoU above which, of two crops, the mask of the larger one goes.
    min_mask_region_area: holes and islands smaller than this many pixels are removed; 0 leaves them.
    multimask_output: the three multimask tokens of a point, or the single-mask token.
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
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of a block, with the work that it left running on a GPU."""
        synchronise()
        start = self.clock()
        yield
        synchronise()
        self.seconds[stage] += self.clock() - start


def synchronise() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def generate(
    variant: Variant,
    image: np.ndarray,
    sampler: Sampler,
    settings: Settings | None = None,
    trace: Trace | None = None,
    *,
    boxes: np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> Masks:
    """All masks of an image.

    image: (H, W, 3) uint8 RGB. boxes: (N, 4) x0, y0, x1, y1 in its pixels, for samplers of boxes. targets: the
    (N, H, W) bool ground truth of these boxes, for a variant that uses it.

    Raises InputError when the variant does not take the prompts of the sampler.
    """
    settings, trace = settings or Settings(), trace or Trace()
    kind = _prompt_kind(sampler)
    if kind is None and not hasattr(variant, "instances"):
        raise InputError(variant.name, "sampler", expected="a detector-style variant for `native`")
    if kind is not None and kind not in variant.prompt_kinds:
        raise InputError(variant.name, "sampler", expected=f"a variant that takes {kind} prompts")
    if variant.uses_ground_truth and targets is None:
        raise InputError(variant.name, "sampler", expected="boxes of the ground truth for a variant that is shown it")
    if sampler.kind == NATIVE:
        return _native(variant, image, trace)
    if sampler.needs_boxes:
        if boxes is None:
            raise ValueError(f"{sampler.kind}: expected boxes")
        return _from_boxes(variant, image, boxes, targets, settings, trace)
    if sampler.kind == HIERARCHICAL:
        return _hierarchical(variant, image, sampler.points_per_side, settings, trace)
    return _grid(variant, image, sampler.points_per_side, settings, trace)


def _prompt_kind(sampler: Sampler) -> str | None:
    if sampler.kind in (GRID, HIERARCHICAL):
        return POINT
    return BOX if sampler.needs_boxes else None


def _grid(variant: Variant, image: np.ndarray, side: int, settings: Settings, trace: Trace) -> Masks:
    """A grid on the image and on each of its crops, as segment-anything and SAM 2 have it."""
    height, width = image.shape[:2]
    crops = crop_boxes(height, width, settings.crop_n_layers, settings.crop_overlap_ratio)
    grids = [
        point_grid(int(side / settings.crop_n_points_downscale_factor**layer))
        for layer in range(settings.crop_n_layers + 1)
    ]
    parts = []
    for layer, (x0, y0, x1, y1) in crops:
        features = _encode(variant, image[y0:y1, x0:x1], trace)
        prompts = _points(grids[layer], (y1 - y0, x1 - x0))
        found = _decode_all(variant, features, prompts, settings, trace, (x0, y0, x1, y1), (height, width))
        del features
        with trace.measure("postprocess"):
            parts.append(found[suppress(found.boxes, found.predicted_iou, settings.box_nms_thresh)])
    with trace.measure("postprocess"):
        masks = Masks.concatenate(parts)
        trace.left["nms"] += len(masks)
        if len(crops) > 1:
            (x0, y0, x1, y1) = masks.crops.T
            small_first = (1 / torch.from_numpy((x1 - x0) * (y1 - y0))).numpy()
            masks = masks[suppress(masks.boxes, small_first, settings.crop_nms_thresh)]
        return _finish(masks, (height, width), settings, trace)


def _hierarchical(variant: Variant, image: np.ndarray, side: int, settings: Settings, trace: Trace) -> Masks:
    """TinySAM's two rounds: a coarse grid, then the points of the fine one that no confident mask covers."""
    size = image.shape[:2]
    whole = (0, 0, size[1], size[0])
    features = _encode(variant, image, trace)
    covered = np.zeros(size, dtype=bool)
    coarse = point_grid(side // COARSER)
    first = _decode_all(variant, features, _points(coarse, size), settings, trace, whole, size, covered)
    with trace.measure("postprocess"):
        fine = second_round(coarse, side, covered)
    second = _decode_all(variant, features, _points(fine, size), settings, trace, whole, size)
    with trace.measure("postprocess"):
        masks = Masks.concatenate([second, first])
        masks = masks[suppress(masks.boxes, masks.predicted_iou, settings.box_nms_thresh)]
        trace.left["nms"] += len(masks)
        return _finish(masks, size, settings, trace)


def _from_boxes(
    variant: Variant,
    image: np.ndarray,
    boxes: np.ndarray,
    targets: np.ndarray | None,
    settings: Settings,
    trace: Trace,
) -> Masks:
    """One mask a box, the single-mask token, nothing dropped (MobileSAMv2/Inference.py)."""
    size = image.shape[:2]
    features = _encode(variant, image, trace)
    prompts = Prompts(boxes=boxes.astype(np.float32), targets=targets if variant.uses_ground_truth else None)
    unfiltered = replace(settings, pred_iou_thresh=0.0, stability_score_thresh=0.0, multimask_output=False)
    masks = _decode_all(variant, features, prompts, unfiltered, trace, (0, 0, size[1], size[0]), size)
    trace.left["nms"] += len(masks)
    return _finish(masks, size, unfiltered, trace)


def _native(variant: Variant, image: np.ndarray, trace: Trace) -> Masks:
    """The instances of a detector-style variant, ranked by its confidence. Empty masks are dropped, as there."""
    height, width = image.shape[:2]
    instances = _encode(variant, image, trace)
    with trace.measure("postprocess"):
        runs = [run_lengths(mask.cpu().numpy()) for mask in instances.masks]
        n = len(runs)
        masks = Masks(
            prompts=np.zeros((n, 0)),
            predicted_iou=instances.scores.float().cpu().numpy(),
            stability=np.full(n, np.nan, dtype=np.float32),
            crops=np.tile(np.array([0, 0, width, height], dtype=np.int64), (n, 1)),
            **_shapes(runs),
        )
        trace.left.update(candidates=n, predicted_iou=n, stability=n, crop_edge=n, nms=n)
        masks = masks[masks.area > 0]
        trace.left["masks"] += len(masks)
    return masks


def _encode(variant: Variant, image: np.ndarray, trace: Trace) -> Any:
    with trace.measure("encode"):
        return variant.encode([np.ascontiguousarray(image)])[0]


def _points(fractions: np.ndarray, size: tuple[int, int]) -> Prompts:
    """(N, 2) fractions -> one prompt a point, in pixels; float64, so that the variant rounds only once."""
    points = fractions * np.array(size)[None, ::-1]
    return Prompts(points=points[:, None], labels=np.ones((len(points), 1), dtype=np.int64))


def _decode_all(
    variant: Variant,
    features: Any,
    prompts: Prompts,
    settings: Settings,
    trace: Trace,
    crop: Box,
    size: tuple[int, int],
    covered: np.ndarray | None = None,
) -> Masks:
    """Decode all prompts of one crop, chunk by chunk, and keep the masks that pass the filters.

    crop: in pixels of the image of `size` (height, width). covered: (H, W) bool; hierarchical only: pixels of kept
    masks with logits above `high_score_thresh` are set in it.
    """
    chunk = settings.points_per_batch or variant.decode_chunk
    parts = [_no_masks(2 if prompts.boxes is None else 4)]
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        with trace.measure("decode"):
            candidates = variant.decode(features, part)
        with trace.measure("postprocess"):
            parts.append(_select(candidates, part, settings, trace, crop, size, covered))
    return Masks.concatenate(parts)


@torch.inference_mode()
def _select(
    candidates: MaskCandidates,
    prompts: Prompts,
    settings: Settings,
    trace: Trace,
    crop: Box,
    size: tuple[int, int],
    covered: np.ndarray | None,
) -> Masks:
    """The candidates of one chunk that pass, as run-lengths."""
    tokens = _tokens(candidates, settings.multimask_output).cpu()
    scores = candidates.scores.float().cpu().gather(1, tokens)
    # NaN means that the variant predicts no IoU: nothing to judge by, so nothing is dropped.
    passed = ~(scores <= settings.pred_iou_thresh) if settings.pred_iou_thresh > 0 else torch.ones_like(scores).bool()
    prompt, column = passed.nonzero(as_tuple=True)
    trace.left.update(prompts=len(prompts), candidates=scores.numel(), predicted_iou=len(prompt))

    upsampling = candidates.upsampling
    height, width = upsampling.size
    frame = upsampling.frame or (0, 0)
    budget = SLICE_BYTES["cuda" if candidates.logits.is_cuda else "cpu"]
    step = max(1, budget // (4 * max(height * width, frame[0] * frame[1])))
    kept: list[int] = []
    runs: list[RLEMask] = []
    stability: list[float] = []
    for start in range(0, len(prompt), step):
        p, c = prompt[start : start + step], column[start : start + step]
        low = candidates.logits[p, tokens[p, c]]
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
        **_shapes(runs),
    )


def _tokens(candidates: MaskCandidates, multimask: bool) -> torch.Tensor:
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


def _shapes(runs: Sequence[RLEMask]) -> dict[str, np.ndarray]:
    """Run-lengths as bytes, areas and boxes of masks at the size of the image."""
    counts = np.empty(len(runs), dtype=object)
    counts[:] = [run.to_dict()["counts"] for run in runs]
    return {
        "counts": counts,
        "area": np.array([run.area() for run in runs], dtype=np.int64),
        "boxes": np.array([_edges(run) for run in runs], dtype=np.int64).reshape(-1, 4),
    }


def _no_masks(coordinates: int) -> Masks:
    return Masks(
        predicted_iou=np.zeros(0, np.float32),
        stability=np.zeros(0, np.float32),
        prompts=np.zeros((0, coordinates)),
        crops=np.zeros((0, 4), np.int64),
        **_shapes([]),
    )


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Rows that non-maximum suppression keeps, best score first, by the function that the official generators call.

    A score that is NaN counts as 1: such masks are all equally good.
    """
    kept = batched_nms(
        torch.from_numpy(boxes).float(),
        torch.from_numpy(np.nan_to_num(scores, nan=1.0)),
        torch.zeros(len(boxes)),
        threshold,
    )
    return kept.numpy()


def _finish(masks: Masks, size: tuple[int, int], settings: Settings, trace: Trace) -> Masks:
    """Remove small regions if asked to, and count what is left."""
    if settings.min_mask_region_area > 0 and len(masks):
        threshold = max(settings.box_nms_thresh, settings.crop_nms_thresh)
        masks = _without_small_regions(masks, size, settings.min_mask_region_area, threshold)
    trace.left["masks"] += len(masks)
    return masks


def _without_small_regions(masks: Masks, size: tuple[int, int], min_area: int, threshold: float) -> Masks:
    """Fill small holes, drop small islands, then suppress doubles again: masks that needed no change go first."""
    runs, unchanged = [], []
    for counts in masks.counts:
        run = RLEMask.from_dict({"size": list(size), "counts": counts})
        mask, changed = remove_small_regions(run.to_array(order="C").view(bool), min_area)
        runs.append(run_lengths(mask) if changed else run)
        unchanged.append(np.float32(not changed))
    shapes = {f.name: getattr(masks, f.name) for f in fields(Masks)} | _shapes(runs)
    return Masks(**shapes)[suppress(shapes["boxes"], np.array(unchanged), threshold)]


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
