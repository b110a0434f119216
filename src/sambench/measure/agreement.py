"""How far the masks of a runtime are from those of eager float32 with the official decoder: what speed changes.

It needs no ground truth, so random weights serve too: it compares runtimes, not variants. Both runs
see the same images and boxes, and the mask compared is that of the token that eager float32 chooses, so that two tokens
of nearly the same score are not mistaken for two masks.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import masks, records
from sambench.measure.latency import relative_boxes
from sambench.measure.session import Measured, MeasuringJob, as_table, build_seeded, load_images, observe
from sambench.progress import track
from sambench.status import OK
from sambench.variants.base import OFFICIAL, Prompts, Runtime, Variant

RECORD = records.AGREEMENT


@dataclass(frozen=True)
class Answers:
    """Of an image of `pixels` pixels with N boxes: the chosen tokens (N,), and packed masks of the tokens asked for."""

    image_id: int
    pixels: int
    chosen: np.ndarray
    packed: np.ndarray


def answers(
    variant: Variant,
    images: Sequence[tuple[int, np.ndarray]],
    boxes: np.ndarray,
    tokens: Sequence[np.ndarray] | None = None,
) -> list[Answers]:
    """Masks of relative boxes (N, 4) on each image: of the given tokens (N,) per image, else of the chosen ones."""
    found = []
    for number, (image_id, image) in enumerate(track(images, len(images), f"agreement {variant.name}")):
        height, width = image.shape[:2]
        absolute = (boxes * [width, height, width, height]).astype(np.float32)
        (features,) = variant.encode([image])
        chosen, packed = [], []
        for start in range(0, len(absolute), variant.decode_chunk):
            part = slice(start, start + variant.decode_chunk)
            candidates = variant.decode(features, Prompts(boxes=absolute[part]))
            own = candidates.argmax().cpu()
            wanted = own if tokens is None else torch.from_numpy(tokens[number][part])
            logits, _ = candidates.take(wanted)
            full = candidates.upsampling.masks(logits)
            chosen.append(own.numpy())
            packed.append(masks.pack(full.cpu().numpy()))
        found.append(Answers(image_id, height * width, np.concatenate(chosen), np.concatenate(packed)))
    return found


def compare(reference: Sequence[Answers], other: Sequence[Answers]) -> pd.DataFrame:
    """Rows with the columns of records.AGREEMENT, one per box; two empty masks agree."""
    rows: list[dict[str, Any]] = []
    for one, two in zip(reference, other, strict=True):
        areas, found = masks.area(one.packed), masks.area(two.packed)
        ious = masks.iou(masks.intersection(one.packed, two.packed), found, areas)
        ious = np.where((areas == 0) & (found == 0), 1.0, ious)
        rows += [
            {
                "image_id": one.image_id,
                "box": box,
                "iou": iou,
                "area": area / one.pixels,
                "same_token": same,
                "status": OK,
            }
            for box, (iou, area, same) in enumerate(zip(ious, areas, one.chosen == two.chosen, strict=True))
        ]
    return as_table(rows, RECORD)


def run(job: MeasuringJob) -> Measured:
    """Compare the masks of a variant under a runtime with those of eager float32 on the same images and boxes."""

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        images, _ = job.annotated()
        loaded, boxes = load_images(images), relative_boxes(job.settings["boxes"])
        published = Runtime(device=job.runtime.device, threads=job.runtime.threads, decoder=OFFICIAL)
        plain = build_seeded(job.card, published, job.folders)
        reference = answers(plain, loaded, boxes)
        del plain
        gc.collect()
        tokens = [answer.chosen for answer in reference]
        return compare(reference, answers(model, loaded, boxes, tokens)), {}

    return observe("agreement", job, RECORD, measurement)
