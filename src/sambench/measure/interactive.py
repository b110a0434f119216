"""Interactive segmentation: what each further click of a user is worth, and how long its answer takes.

A trajectory starts with a click at the pixel deepest inside the object, or with its box, and goes on with clicks where
the last answer is most wrong (`evaluate/trajectory.py`). Every answer is decoded once and scored. Protocols:

    clicks          K clicks, the first one included
    box_clicks      the annotation's box, then K clicks
    *_fed           the same, with the logits of each answer going back to the decoder as a mask prompt

What follows from the scores (mean IoU after k clicks, number of clicks to an IoU) is left to the table.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import masks, records
from sambench.evaluate.segany import Batch, LoadedImage, load, plan
from sambench.evaluate.trajectory import trajectory
from sambench.measure.session import Measured, MeasuringJob, as_table, observe
from sambench.memory import OutOfMemory, memory_guard, release_memory
from sambench.prefetch import prefetch
from sambench.progress import track
from sambench.prompts import make_prompts
from sambench.status import OK, OUT_OF_MEMORY, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import Prompts, Variant

RECORD = records.INTERACTIVE


@dataclass(frozen=True)
class Protocol:
    """start: the prompt type that a trajectory starts with. feed_back: whether logits go back to the decoder."""

    start: str
    feed_back: bool = False

    @property
    def clicks_at_start(self) -> int:
        """Clicks that the first answer has."""
        return int(self.start != "box")

    def longest(self, variant: Variant, start: Prompts, clicks: int) -> int | None:
        """How many of `clicks` clicks a variant takes in all after these first prompts; None when it takes none."""
        if self.feed_back and not variant.takes_masks:
            return None
        point = Prompts(start.boxes, np.zeros((len(start), 1, 2), np.float32), np.ones((len(start), 1), np.int64))
        able = [k for k in range(1, clicks + 1) if variant.supports(point, k)]
        return max(able) if able and variant.supports(start) else None


PROTOCOLS = {
    "clicks": Protocol("mask_center"),
    "clicks_fed": Protocol("mask_center", feed_back=True),
    "box_clicks": Protocol("box"),
    "box_clicks_fed": Protocol("box", feed_back=True),
}


def measure(
    variant: Variant, images: pd.DataFrame, truth: pd.DataFrame, *, clicks: int, protocols: Sequence[str]
) -> pd.DataFrame:
    """Rows with the columns of records.INTERACTIVE, one per instance and protocol.

    images, truth: columns of records.IMAGES and INSTANCES. A variant that takes fewer clicks than `clicks` stops there;
    one that takes no click, or no mask where it should be fed back, leaves rows with a status.
    """
    chosen = {name: PROTOCOLS[name] for name in protocols}
    prompts = make_prompts("", truth, dict.fromkeys(protocol.start for protocol in chosen.values()))
    facts = truth.set_index("annotation_id")[["image_id", "area", "iscrowd"]]
    annotations, names = prompts["annotation_id"].to_numpy(), prompts["prompt"].to_numpy()
    found: list[dict[str, Any]] = []
    tasks = plan(images, truth, prompts)
    for loaded in track(prefetch(partial(load, variant), tasks), len(tasks), f"interactive {variant.name}"):
        if loaded.unreadable:
            print(loaded.unreadable, file=sys.stderr)
        starts = {names[batch.rows[0]]: batch for batch in loaded.task.batches}
        features: Any = None
        for name, protocol in chosen.items():
            batch = starts[protocol.start]
            longest = protocol.longest(variant, batch.prompts, clicks)
            reason = UNREADABLE_IMAGE if loaded.unreadable else UNSUPPORTED_PROMPT
            answers: Iterable[Mapping[str, Any]] = [{"status": reason}] * len(batch.rows)
            if longest is not None and not loaded.unreadable:
                try:
                    if features is None:
                        with memory_guard():
                            features = variant.encode_prepared([loaded.prepared])[0]
                    answers = _trajectories(variant, features, batch, loaded, protocol, longest)
                except OutOfMemory:
                    release_memory()
                    answers = [{"status": OUT_OF_MEMORY}] * len(batch.rows)
            for row, answer in zip(batch.rows, answers, strict=True):
                annotation = int(annotations[row])
                known = {"annotation_id": annotation, "protocol": name, "first": protocol.clicks_at_start}
                found.append({**known, **facts.loc[annotation].to_dict(), **answer})
    return as_table(found, RECORD)


def _trajectories(
    variant: Variant, features: Any, batch: Batch, loaded: LoadedImage, protocol: Protocol, longest: int
) -> list[dict[str, Any]]:
    """For each prompt of a batch the IoU of every answer, and its seconds: of decoding and enlarging, per prompt."""
    lines: list[dict[str, Any]] = []
    for start in range(0, len(batch.rows), variant.decode_chunk):
        part = batch[start : start + variant.decode_chunk]
        prompts = part.prompts
        if variant.uses_ground_truth:
            prompts = replace(prompts, targets=loaded.targets(part.instances))
        packed = loaded.packed_truth[part.instances]
        ious, seconds = [], []
        with memory_guard():
            further = longest - protocol.clicks_at_start
            truth = loaded.truth[part.instances]
            answers = trajectory(variant, features, prompts, truth, further, feed_back=protocol.feed_back)
            for _ in range(further + 1):
                answer = next(answers)
                answer_masks = answer.masks  # on the CPU: whatever the device had to do is done
                seconds.append((time.perf_counter() - answer.asked) / len(prompts))
                own = masks.pack(answer_masks)
                ious.append(masks.iou(masks.intersection(own, packed), masks.area(own), masks.area(packed)))
        lines += [{"iou": values, "seconds": seconds, "status": OK} for values in np.stack(ious, axis=1).tolist()]
    return lines


def run(job: MeasuringJob) -> Measured:
    """Let a user click on the instances of the first images of a data set."""

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        wanted = {name: job.settings[name] for name in ("clicks", "protocols")}
        return measure(model, *job.annotated(), **wanted), {}

    return observe("interactive", job, RECORD, measurement, accuracy=True)
