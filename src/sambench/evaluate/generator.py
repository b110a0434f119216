"""Segment everything: all masks of an image from a grid of points, or from boxes, for any variant.

The result is that of the official generators (segment_anything/automatic_mask_generator.py, sam2's of the same name,
tinysam/hierarchical_mask_generator.py): the same masks in the same order; see filters.py for what differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sambench.errors import InputError
from sambench.evaluate.filters import (
    Box,
    Masks,
    Settings,
    Trace,
    answers,
    no_masks,
    select,
    shapes,
    suppress,
    without_small_regions,
)
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
from sambench.masks import run_lengths
from sambench.variants.base import BOX, POINT, MaskCandidates, Prompts, Variant

LOGIT_LIMIT = 32.0  # of a mask prompt, either way (SAM2ImagePredictor._predict)


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

    Raises InputError when the variant does not take the prompts of the sampler, or masks for `use_m2m`.
    """
    settings, trace = settings or Settings(), trace or Trace()
    kind = _prompt_kind(sampler)
    if kind is None and not hasattr(variant, "instances"):
        raise InputError(variant.name, "sampler", expected="a detector-style variant for `native`")
    if kind is not None and kind not in variant.prompt_kinds:
        raise InputError(variant.name, "sampler", expected=f"a variant that takes {kind} prompts")
    if variant.uses_ground_truth and targets is None:
        raise InputError(variant.name, "sampler", expected="boxes of the ground truth for a variant that is shown it")
    if settings.use_m2m and not variant.takes_masks:
        raise InputError(
            variant.name, "use_m2m", expected="a variant that takes masks as prompts (SAM 1's and SAM 2's families)"
        )
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
    """A grid on the image and on each of its crops, as in segment-anything and SAM 2."""
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
    """One mask per box, the single-mask token, nothing dropped (MobileSAMv2/Inference.py)."""
    size = image.shape[:2]
    features = _encode(variant, image, trace)
    prompts = Prompts(boxes=boxes.astype(np.float32), targets=targets if variant.uses_ground_truth else None)
    unfiltered = replace(
        settings, pred_iou_thresh=0.0, stability_score_thresh=0.0, multimask_output=False, use_m2m=False
    )
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
            **shapes(runs),
        )
        trace.left.update(candidates=n, predicted_iou=n, stability=n, crop_edge=n, nms=n)
        masks = masks[masks.area > 0]
        trace.left["masks"] += len(masks)
    return masks


def _encode(variant: Variant, image: np.ndarray, trace: Trace) -> Any:
    with trace.measure("encode"):
        return variant.encode([np.ascontiguousarray(image)])[0]


def _points(fractions: np.ndarray, size: tuple[int, int]) -> Prompts:
    """(N, 2) fractions -> one prompt per point, in pixels; float64, so that the variant rounds only once."""
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
    parts = [no_masks(2 if prompts.boxes is None else 4)]
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        with trace.measure("decode"):
            candidates = variant.decode(features, part)
            trace.left["prompts"] += len(part)
            if settings.use_m2m:
                part, candidates = _refined(variant, features, part, candidates, settings.multimask_output)
        with trace.measure("postprocess"):
            parts.append(select(candidates, part, settings, trace, crop, size, covered))
    return Masks.concatenate(parts)


def _refined(
    variant: Variant, features: Any, prompts: Prompts, candidates: MaskCandidates, multimask: bool
) -> tuple[Prompts, MaskCandidates]:
    """SAM 2's `use_m2m`: each candidate decoded once more, with its own logits as a mask prompt.

    Of N prompts with T answers each: N x T prompts, one answer each (refine_with_m2m and _predict there).
    """
    tokens = answers(candidates, multimask)
    rows = torch.arange(len(prompts)).repeat_interleave(tokens.shape[1])
    logits = candidates.at(rows, tokens.flatten())
    again = replace(prompts[rows.numpy()], masks=logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
    parts = []
    for start in range(0, len(again), len(prompts)):
        part = variant.decode(features, again[start : start + len(prompts)])
        parts.append(part.take(part.single))
    refined, scores = (torch.cat(values)[:, None] for values in zip(*parts, strict=True))
    first = torch.zeros(len(again), dtype=torch.int64, device=scores.device)
    return again, MaskCandidates(refined, scores, (0,), first, candidates.upsampling)


def _finish(masks: Masks, size: tuple[int, int], settings: Settings, trace: Trace) -> Masks:
    """Remove small regions if asked to, and count what is left."""
    if settings.min_mask_region_area > 0 and len(masks):
        threshold = max(settings.box_nms_thresh, settings.crop_nms_thresh)
        masks = without_small_regions(masks, size, settings.min_mask_region_area, threshold)
    trace.left["masks"] += len(masks)
    return masks
