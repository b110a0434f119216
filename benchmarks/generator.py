"""Segment everything against segment-anything's own generator: the same masks, and how much faster.

    python benchmarks/generator.py --image IMAGE --side 16 --rounds 3

Both run SAM with the same random weights (the recipe of the parity fixtures) on the same images, in turns, in one
process. Random weights predict random IoUs and ragged masks whose boxes fill the image, so the thresholds are those of
the fixture amg_sam_vit_b: a good part of the candidates passes, and nothing is suppressed. Prints JSON: seconds by
stage and their ratios (official / ours, medians of the rounds), and how many masks are the same. On a machine that is
shared, read CPU seconds (`--clock cpu`) with one thread: waiting threads burn CPU time too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam

from sambench.evaluate.filters import Masks, Settings, Trace
from sambench.evaluate.generator import generate
from sambench.evaluate.samplers import GRID, Sampler
from sambench.masks import decode_rle
from sambench.parity.fixtures import weight
from sambench.provenance import cpu_name
from sambench.script import command
from sambench.variants.base import Runtime
from sambench.variants.sam import SamVariant, build_sam

STAGES = ("encode", "decode", "postprocess", "whole")


def main(
    *,
    image: list[Path],
    side: int = 16,
    rounds: int = 3,
    encoder: str = "vit_b",
    device: str = "cpu",
    threads: int | None = None,
    clock: Literal["wall", "cpu"] = "wall",
    pred_iou: float = 0.01,
    stability: float = 0.65,
    stability_offset: float = 0.05,
    box_nms: float = 1.0,
    seed: int = 20251,
) -> None:
    """Compare with the official generator and print the ratios.

    Parameters
    ----------
    image
        image files
    side
        points on a side of the grid
    rounds
        timed runs of each
    encoder
        vit_b, vit_l or vit_h
    device
        cpu or cuda
    threads
        CPU threads of torch
    clock
        wall time, or CPU seconds of the process
    pred_iou
        threshold of the predicted IoU
    stability
        threshold of the stability score
    stability_offset
        its offset
    box_nms
        threshold of the suppression
    seed
        of the random weights
    """
    variant = random_sam(Runtime(device=device, threads=threads), encoder, seed)
    model = official_model(variant.module.state_dict(), encoder, device)
    settings = Settings(
        pred_iou_thresh=pred_iou,
        stability_score_thresh=stability,
        stability_score_offset=stability_offset,
        box_nms_thresh=box_nms,
    )
    ticks = time.perf_counter if clock == "wall" else time.process_time
    results = []
    for path in image:
        pixels = np.array(Image.open(path).convert("RGB"))
        official = SamAutomaticMaskGenerator(
            model,
            points_per_side=side,
            pred_iou_thresh=settings.pred_iou_thresh,
            stability_score_thresh=settings.stability_score_thresh,
            stability_score_offset=settings.stability_score_offset,
            box_nms_thresh=settings.box_nms_thresh,
            output_mode="coco_rle",
        )
        result = compare(variant, official, pixels, Sampler(GRID, side), settings, rounds, ticks)
        results.append({"image": path.name, "size": pixels.shape[:2], **result})
        print(f"{path.name}: {result['ratios']}", file=sys.stderr)
    facts = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name(),
        "threads": torch.get_num_threads(),
        "clock": clock,
        "encoder": encoder,
        "side": side,
        "rounds": rounds,
    }
    print(json.dumps(facts | {"images": results}, indent=1))


def random_sam(runtime: Runtime, encoder: str, seed: int) -> SamVariant:
    """SAM with the recipe of the parity fixtures for weights."""
    variant = build_sam(runtime, encoder)
    state = {k: weight(k, list(v.shape), "float32", seed) for k, v in variant.module.state_dict().items()}
    variant.module.load_state_dict(state)
    variant.to_runtime()
    return variant


def official_model(state: Mapping[str, torch.Tensor], encoder: str, device: str) -> Sam:
    """The official model with the same weights, which go by the same names."""
    model = sam_model_registry[encoder]()
    model.load_state_dict(state)
    return model.eval().requires_grad_(False).to(device)


def compare(
    variant: SamVariant,
    official: SamAutomaticMaskGenerator,
    pixels: np.ndarray,
    sampler: Sampler,
    settings: Settings,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """Time both in turns, after a short warm-up, and compare their masks."""
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    records: list[dict[str, Any]] = []
    masks: Masks | None = None
    left: Mapping[str, int] = {}
    generate(variant, pixels, Sampler(GRID, 2), settings)
    for _ in range(rounds):
        records, theirs = time_official(official, pixels, clock)
        masks, left, ours = time_ours(variant, pixels, sampler, settings, clock)
        times["official"].append(theirs)
        times["ours"].append(ours)
    assert masks is not None
    seconds = {who: {s: statistics.median(t[s] for t in runs) for s in STAGES} for who, runs in times.items()}
    return {
        "seconds": {who: {s: round(v, 3) for s, v in stages.items()} for who, stages in seconds.items()},
        "ratios": {s: round(seconds["official"][s] / seconds["ours"][s], 2) for s in STAGES},
        "left": dict(left),
        "masks": agreement(masks, records),
    }


def time_ours(
    variant: SamVariant, pixels: np.ndarray, sampler: Sampler, settings: Settings, clock: Callable[[], float]
) -> tuple[Masks, Mapping[str, int], dict[str, float]]:
    """Our masks, how many each filter left, and seconds by stage."""
    trace, total = Trace(clock=clock), Trace(clock=clock)
    with total.measure("whole"):
        masks = generate(variant, pixels, sampler, settings, trace)
    return masks, trace.left, split(total.seconds["whole"], trace.seconds["encode"], trace.seconds["decode"])


def time_official(
    generator: SamAutomaticMaskGenerator, pixels: np.ndarray, clock: Callable[[], float]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The official records and seconds by stage: everything that is neither `set_image` nor the two decoder modules."""
    trace, total = Trace(clock=clock), Trace(clock=clock)
    model = generator.predictor.model
    undo = [
        timed(generator.predictor, "set_image", "encode", trace),
        timed(model.prompt_encoder, "forward", "decode", trace),
        timed(model.mask_decoder, "forward", "decode", trace),
    ]
    try:
        with total.measure("whole"):
            records = generator.generate(pixels)
    finally:
        for restore in undo:
            restore()
    return records, split(total.seconds["whole"], trace.seconds["encode"], trace.seconds["decode"])


def timed(owner: Any, name: str, stage: str, trace: Trace) -> Callable[[], None]:
    """Replace a method by one that adds its time to a stage; returns what takes it back."""
    method = getattr(owner, name)

    def wrapper(*arguments: Any, **named: Any) -> Any:
        with trace.measure(stage):
            return method(*arguments, **named)

    setattr(owner, name, wrapper)
    return lambda: delattr(owner, name)


def split(whole: float, encode: float, decode: float) -> dict[str, float]:
    """Seconds by stage; postprocessing is what is left."""
    return {"encode": encode, "decode": decode, "postprocess": whole - encode - decode, "whole": whole}


def agreement(masks: Masks, records: list[dict[str, Any]]) -> dict[str, Any]:
    """How many masks there are, how many have the same run-lengths, and by how many pixels the others differ.

    Masks are paired by their prompt and the nearest predicted IoU: rounding may exchange neighbours in the order.
    """
    identical, pixels, unpaired = 0, [], 0
    theirs = np.array([[*r["point_coords"][0], r["predicted_iou"]] for r in records]).reshape(-1, 3)
    for i, counts in enumerate(masks.counts):
        distance = np.abs(theirs - [*masks.prompts[i], masks.predicted_iou[i]]).max(axis=1, initial=0)
        if not len(distance) or distance.min() > 1e-4:
            unpaired += 1
            continue
        rle = records[int(distance.argmin())]["segmentation"]
        if rle["counts"] == counts.decode():
            identical += 1
        else:
            pixels.append(
                int((decode_rle(rle["size"], counts) ^ decode_rle(rle["size"], rle["counts"].encode())).sum())
            )
    return {
        "official": len(records),
        "ours": len(masks),
        "identical": identical,
        "unpaired": unpaired,
        "pixels_that_differ": pixels,
    }


if __name__ == "__main__":
    command(main)
