"""Prompts on spoilt images: how much accuracy is left where the camera, the weather or the file is bad.

Every change (corruptions.py) is made of the image as it is read and before a variant sees it, so that all variants get
the same pixels. Prompts and ground truth stay; with `scale` they are scaled as the image is.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sambench import masks, records
from sambench.corruptions import CLEAN, FROST, JPEG_QUALITY, SCALE, Change, corrupt, scaled_mask, stream
from sambench.datasets.pictures import read_image
from sambench.downloads.textures import textures
from sambench.errors import InputError
from sambench.evaluate.segany import Batch, ChosenIous, ImageTask, LoadedImage, plan
from sambench.measure.session import Measured, MeasuringJob, observe
from sambench.memory import OutOfMemory, memory_guard, release_memory
from sambench.prefetch import prefetch
from sambench.progress import track
from sambench.prompts import make_prompts
from sambench.status import NO_TEXTURES, OUT_OF_MEMORY, TOO_SMALL, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import Prompts, Variant

RECORD = records.CORRUPTIONS


@dataclass(frozen=True)
class Source:
    """What is done to the images of a data set. photographs: of ice, for `frost`."""

    changes: Sequence[Change]
    photographs: Sequence[Path] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any], folders: Sequence[Path]) -> Source:
        """The image as it is, then what the section `corruptions` of the configuration says."""
        common = itertools.product(settings["names"], settings["severities"])
        kinds = ((JPEG_QUALITY, settings["jpeg_quality"]), (SCALE, settings["scale"]))
        other = [(name, level) for name, levels in kinds for level in levels]
        changes = [Change(name, float(level)) for name, level in (*common, *other)]
        return cls([Change(CLEAN), *changes], textures(folders))


def measure(
    variant: Variant, images: pd.DataFrame, truth: pd.DataFrame, *, source: Source, prompts: Sequence[str]
) -> pd.DataFrame:
    """Rows with the columns of records.CORRUPTIONS, one per instance, prompt type and change.

    images, truth: columns of records.IMAGES and INSTANCES. prompts: prompt types.
    """
    table = make_prompts("", truth, prompts)
    tasks = plan(images, truth, table)
    image_of = table["image_id"].to_numpy()
    items = [(str(image_of[task.batches[0].rows[0]]), task, change) for task in tasks for change in source.changes]
    scores = {change: ChosenIous(len(table)) for change in source.changes}
    ahead = prefetch(partial(load, variant, source.photographs), items)
    loads = track(ahead, len(items), f"corruptions {variant.name}")
    for (_, _, change), loaded in zip(items, loads, strict=True):
        score(variant, loaded, scores[change], change)
    facts = truth.set_index("annotation_id")[["area", "iscrowd"]]
    known = table[["annotation_id", "image_id", "prompt"]].join(facts, on="annotation_id")
    parts = [
        known.assign(
            corruption=change.name, level=change.level, iou=scores[change].iou["argmax"], status=scores[change].status
        )
        for change in source.changes
    ]
    return pd.concat(parts, ignore_index=True)[RECORD.names]


def load(variant: Variant, photographs: Sequence[Path], item: tuple[str, ImageTask, Change]) -> LoadedImage:
    """Read one image, change it, let the variant prepare it, unpack the ground truth. Runs in a worker thread."""
    image_id, task, change = item
    height, width = task.size
    nothing = np.zeros((0, height, width), dtype=bool)
    if change.name == FROST and not photographs:
        return LoadedImage(task, None, nothing)
    try:
        pixels = read_image(task.path, width, height, task.view)
    except InputError as error:
        return LoadedImage(task, None, nothing, str(error))
    changed = corrupt(pixels, change, stream(image_id, change), photographs)
    own = resized(task, (changed.shape[0], changed.shape[1]))
    truth = np.zeros((len(task.rles), *own.size), dtype=bool)
    for at, (size, counts) in enumerate(task.rles):
        mask = masks.decode_rle(size, counts)
        truth[at] = mask if own.size == task.size else scaled_mask(mask, own.size)
    return LoadedImage(own, variant.prepare(changed), truth)


def resized(task: ImageTask, size: tuple[int, int]) -> ImageTask:
    """A task with its prompts on an image of another size (height, width). A point is the middle of its pixel."""
    if size == task.size:
        return task
    factors = np.array([size[1] / task.size[1], size[0] / task.size[0]], dtype=np.float32)

    def moved(prompts: Prompts) -> Prompts:
        boxes = None if prompts.boxes is None else prompts.boxes * np.tile(factors, 2)
        points = None if prompts.points is None else (prompts.points + np.float32(0.5)) * factors - np.float32(0.5)
        return replace(prompts, boxes=boxes, points=points)

    batches = [replace(batch, prompts=moved(batch.prompts)) for batch in task.batches]
    return replace(task, size=size, batches=batches)


def score(variant: Variant, loaded: LoadedImage, scores: ChosenIous, change: Change) -> None:
    """Decode the prompts of one changed image; those that cannot be decoded get a status."""
    batches = list(loaded.task.batches)
    if loaded.prepared is None:
        if loaded.unreadable:
            print(loaded.unreadable, file=sys.stderr)
        for batch in batches:
            scores.give_up(batch.rows, UNREADABLE_IMAGE if loaded.unreadable else NO_TEXTURES)
        return
    usable = []
    for batch in batches:
        if not variant.supports(batch.prompts):
            scores.give_up(batch.rows, UNSUPPORTED_PROMPT)
            continue
        seen = loaded.truth[batch.instances].any(axis=(1, 2)) | (change.name != SCALE)
        scores.give_up(batch.rows[~seen], TOO_SMALL)
        if seen.any():
            usable.append(Batch(batch.rows[seen], batch.instances[seen], batch.prompts[seen]))
    if not usable:
        return
    try:
        with memory_guard():
            features = variant.encode_prepared([loaded.prepared])[0]
            for batch in usable:
                for start in range(0, len(batch.rows), variant.decode_chunk):
                    part = batch[start : start + variant.decode_chunk]
                    prompts = part.prompts
                    if variant.uses_ground_truth:
                        prompts = replace(prompts, targets=loaded.targets(part.instances))
                    scores.take(variant.decode(features, prompts), part, loaded)
    except OutOfMemory:
        release_memory()
        for batch in usable:
            waiting = batch.rows[scores.status[batch.rows] == ""]
            scores.give_up(waiting, OUT_OF_MEMORY)


def run(job: MeasuringJob) -> Measured:
    """Score the prompts of the first images of a data set on spoilt copies of them."""

    def measurement(model: Variant, device: torch.device) -> tuple[pd.DataFrame, dict[str, Any]]:
        source = Source.of(job.settings, job.folders)
        return measure(model, *job.annotated(), source=source, prompts=job.settings["prompts"]), {}

    return observe("corruptions", job, RECORD, measurement, accuracy=True)
