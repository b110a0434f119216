"""Clicks in volumes: Dice and IoU of each label after every click, and how long the answers take.

As validation_student.py of FastSAM3D has it: a cube around each label, its embedding once, one click at a time with
the logits of the answer before, and scores within the cube. Unlike there, clicks draw no lots: each is the deepest
voxel of the larger error of the mask that is scored (`volumes/clicks.py`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import records
from sambench.device import synchronize
from sambench.errors import InputError
from sambench.measure.session import Measured, MeasuringJob, as_table, observe
from sambench.memory import OutOfMemory, memory_guard, peak_mib, release_memory
from sambench.progress import track
from sambench.status import OK, OUT_OF_MEMORY, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import Variant
from sambench.volumes.base import SINGLE, VolumeVariant
from sambench.volumes.clicks import next_click, overlap
from sambench.volumes.crops import cube_start, cut
from sambench.volumes.nifti import Pair, Volume, pairs, read

RECORD = records.VOLUMES


def measure(variant: VolumeVariant, found: list[Pair], *, clicks: int, **reading: Any) -> pd.DataFrame:
    """Rows with the columns of records.VOLUMES, one per volume and label. reading: keywords of `nifti.read`."""
    rows: list[dict[str, Any]] = []
    for pair in track(found, len(found), f"volumes {variant.name}"):
        volume = read(pair, **reading)
        for label in [int(value) for value in np.unique(volume.labels) if value > 0]:
            try:
                with memory_guard():
                    row = segment(variant, volume, label, clicks)
            except OutOfMemory:
                release_memory()
                row = {"status": OUT_OF_MEMORY}
            except InputError as error:  # a cube with nothing in it
                print(f"{pair.image}: label {label}: {error}", file=sys.stderr)
                row = {"status": UNREADABLE_IMAGE}
            voxels = int((volume.labels == label).sum())
            rows.append({"volume": pair.name, "label": label, "voxels": voxels, **row})
    return as_table(rows, RECORD)


def segment(variant: VolumeVariant, volume: Volume, label: int, clicks: int) -> dict[str, Any]:
    """Click on one label of a volume: dice, iou and seconds after each click, and what else a row has."""
    mask = volume.labels == label
    start = cube_start(mask, variant.side)
    truth, cube = cut(mask, start, variant.side), cut(volume.voxels, start, variant.side)
    prepared = variant.prepare(cube)
    before = time.perf_counter()
    embedding = variant.encode_volume(prepared)
    synchronize()
    encode_seconds = time.perf_counter() - before
    answer, previous = np.zeros_like(truth), None
    dice: list[float] = []
    iou: list[float] = []
    seconds: list[float] = []
    for _ in range(clicks):
        click = next_click(truth, answer)
        if click is None:  # right to the voxel: further clicks change nothing and cost nothing
            dice.append(1.0)
            iou.append(1.0)
            continue
        before = time.perf_counter()
        logits, _ = variant.answer(embedding, np.array([click[0]]), np.array([click[1]]), previous)
        previous = logits[SINGLE]
        answer = (variant.enlarge(previous[None])[0] > 0).cpu().numpy()
        seconds.append(time.perf_counter() - before)
        for values, value in zip((dice, iou), overlap(truth, answer), strict=True):
            values.append(value)
    covered = int(truth.sum()) / int(mask.sum())
    peak = {"peak_memory_mib": peak_mib(variant.device)}
    scores = {"dice": dice, "iou": iou, "seconds": seconds, "encode_seconds": encode_seconds}
    return {"covered": covered, **scores, **peak, "status": OK}


def run(job: MeasuringJob) -> Measured:
    """Click on every label of a set of volumes. Settings: `name` and `entry` of the set, and `clicks`."""
    entry: Mapping[str, Any] = job.settings["entry"]
    clamp = entry.get("clamp")
    reading = {"spacing": entry.get("spacing"), "clamp": tuple(clamp) if clamp else None}

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        if not isinstance(model, VolumeVariant):
            return as_table([{"status": UNSUPPORTED_PROMPT}], RECORD), {}
        found = pairs(job.settings["name"], entry)
        return measure(model, found, clicks=job.settings["clicks"], **reading), {}

    return observe("volumes", job, RECORD, measurement, accuracy=True)
