"""Segment everything against segment-anything's own generator: the same masks, and how much faster.

    python benchmarks/generator.py --image IMAGE [IMAGE ...] --side 16 --rounds 3

Both run SAM with the same random weights on the same images, in turns, in one process. Random weights predict random
IoUs and ragged masks, so the thresholds are set such that about half of the candidates pass each filter. Prints JSON:
seconds by stage and their ratios (official / ours, medians of the rounds), and how many masks are the same.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from sambench.evaluate.generator import Masks, Settings, Trace, generate, synchronise
from sambench.evaluate.samplers import GRID, Sampler
from sambench.provenance import cpu_name
from sambench.script import run
from sambench.variants.base import Runtime
from sambench.variants.sam import PIXEL_MEAN, PIXEL_STD, SamVariant, build_sam

STAGES = ("encode", "decode", "postprocess", "whole")


def main(
    *,
    image: list[Path],
    side: int = 16,
    rounds: int = 3,
    encoder: str = "vit_b",
    device: str = "cpu",
    threads: int | None = None,
    pred_iou: float | None = None,
    stability: float | None = None,
    seed: int = 0,
) -> None:
    """Compare with the official generator and print the ratios.

    Parameters
    ----------
    image: image files
    side: points on a side of the grid
    rounds: timed runs of each, after one that warms up
    encoder: vit_b, vit_l or vit_h
    device: cpu or cuda
    threads: CPU threads of torch
    pred_iou: threshold of the predicted IoU; the median of the candidates when not given
    stability: threshold of the stability; the median of what passes when not given
    seed: of the random weights
    """
    torch.manual_seed(seed)
    runtime = Runtime(device=device, threads=threads)
    variant = build_sam(runtime, encoder)
    variant.to_runtime()
    # Freshly initialised heads give scores that hardly differ; wider weights spread them.
    for name, weight in variant.module.mask_decoder.named_parameters():
        if "iou_prediction_head" in name and weight.ndim > 1:
            weight.mul_(4)
    model = official_model(variant)
    results = []
    for path in image:
        pixels = np.array(Image.open(path).convert("RGB"))
        settings = thresholds(variant, pixels, side, pred_iou, stability)
        print(f"{path.name}: {settings}", file=sys.stderr)
        official = SamAutomaticMaskGenerator(
            model,
            points_per_side=side,
            pred_iou_thresh=settings.pred_iou_thresh,
            stability_score_thresh=settings.stability_score_thresh,
            stability_score_offset=settings.stability_score_offset,
            box_nms_thresh=settings.box_nms_thresh,
            output_mode="coco_rle",
        )
        results.append({"image": path.name, "size": pixels.shape[:2]} | compare(variant, official, pixels, side, settings, rounds))
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name()
    print(
        json.dumps(
            {"device": machine, "threads": torch.get_num_threads(), "encoder": encoder, "side": side, "images": results},
            indent=1,
        )
    )


def official_model(variant: SamVariant) -> Sam:
    """The official model around the very modules of the variant."""
    network = variant.module
    model = Sam(network.image_encoder, network.prompt_encoder, network.mask_decoder, list(PIXEL_MEAN), list(PIXEL_STD))
    return model.eval().to(variant.device)


def thresholds(
    variant: SamVariant, pixels: np.ndarray, side: int, pred_iou: float | None, stability: float | None
) -> Settings:
    """Settings under which about half of the candidates pass, by a coarser grid, and half of these again."""
    everything = Settings(pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
    masks = generate(variant, pixels, Sampler(GRID, max(2, side // 4)), everything)
    first = float(np.median(masks.predicted_iou)) if pred_iou is None else pred_iou
    passed = masks.stability[masks.predicted_iou > first]
    second = float(np.nanmedian(passed)) if stability is None else stability
    # Ragged masks fill the image and so do their boxes: at 0.7 the suppression would leave one.
    return Settings(pred_iou_thresh=first, stability_score_thresh=second, box_nms_thresh=0.99)


def compare(
    variant: SamVariant,
    official: SamAutomaticMaskGenerator,
    pixels: np.ndarray,
    side: int,
    settings: Settings,
    rounds: int,
) -> dict[str, Any]:
    """Time both in turns and compare their masks."""
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    records: list[dict[str, Any]] = []
    masks: Masks | None = None
    for number in range(rounds + 1):
        records, theirs = time_official(official, pixels)
        masks, ours = time_ours(variant, pixels, side, settings)
        if number:
            times["official"].append(theirs)
            times["ours"].append(ours)
    assert masks is not None
    seconds = {who: {s: statistics.median(t[s] for t in runs) for s in STAGES} for who, runs in times.items()}
    return {
        "seconds": {who: {s: round(v, 3) for s, v in stages.items()} for who, stages in seconds.items()},
        "ratios": {s: round(seconds["official"][s] / seconds["ours"][s], 2) for s in STAGES},
        "masks": agreement(masks, records),
    }


def time_ours(variant: SamVariant, pixels: np.ndarray, side: int, settings: Settings) -> tuple[Masks, dict[str, float]]:
    """Our masks and seconds by stage."""
    trace = Trace()
    synchronise()
    start = time.perf_counter()
    masks = generate(variant, pixels, Sampler(GRID, side), settings, trace)
    synchronise()
    whole = time.perf_counter() - start
    return masks, split(whole, trace.seconds["encode"], trace.seconds["decode"])


def time_official(
    generator: SamAutomaticMaskGenerator, pixels: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The official records and seconds by stage: everything that is neither `set_image` nor the two decoder modules."""
    spent: dict[str, float] = defaultdict(float)
    predictor, model = generator.predictor, generator.predictor.model
    undo = [
        timed(predictor, "set_image", "encode", spent),
        timed(model.prompt_encoder, "forward", "decode", spent),
        timed(model.mask_decoder, "forward", "decode", spent),
    ]
    try:
        synchronise()
        start = time.perf_counter()
        records = generator.generate(pixels)
        synchronise()
        whole = time.perf_counter() - start
    finally:
        for restore in undo:
            restore()
    return records, split(whole, spent["encode"], spent["decode"])


def timed(owner: Any, name: str, stage: str, spent: dict[str, float]) -> Callable[[], None]:
    """Replace a method by one that adds its time to a stage; returns what takes it back."""
    method = getattr(owner, name)

    def wrapper(*arguments: Any, **named: Any) -> Any:
        synchronise()
        start = time.perf_counter()
        result = method(*arguments, **named)
        synchronise()
        spent[stage] += time.perf_counter() - start
        return result

    setattr(owner, name, wrapper)
    return lambda: delattr(owner, name)


def split(whole: float, encode: float, decode: float) -> dict[str, float]:
    """Seconds by stage; postprocessing is what is left."""
    return {"encode": encode, "decode": decode, "postprocess": whole - encode - decode, "whole": whole}


def agreement(masks: Masks, records: list[dict[str, Any]]) -> dict[str, Any]:
    """How many masks there are, how many have the same run-lengths, and by how many pixels the others differ.

    Masks are paired by their prompt and the nearest predicted IoU: rounding may exchange neighbours in the order.
    """
    from sambench.evaluate.masks import decode_rle

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
            pixels.append(int((decode_rle(rle["size"], counts) ^ decode_rle(rle["size"], rle["counts"].encode())).sum()))
    return {
        "official": len(records),
        "ours": len(masks),
        "identical": identical,
        "unpaired": unpaired,
        "pixels_that_differ": pixels,
    }


if __name__ == "__main__":
    run(main)
