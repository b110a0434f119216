"""Promptable segmentation: every prompt of an image decoded on one encoding.

A mask prompted from ground truth is scored against its instance; one prompted by a detector's box is kept (see
detections.py). The selection rules all come from one decode: `argmax` (highest predicted IoU among the multimask
tokens), `single` (the single-mask token) and `oracle` (best IoU of all tokens). Only the masks that a rule needs are
enlarged to the size of the image, and they are chosen on low-resolution logits, which is exactly what enlarging first
would give.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from sambench import masks
from sambench.boundary import Boundary, boundary, boundary_iou, width_of
from sambench.datasets.pictures import View, read_image, view_of
from sambench.errors import InputError
from sambench.evaluate.trajectory import trajectory
from sambench.memory import OutOfMemory, memory_guard, release_memory
from sambench.prefetch import prefetch
from sambench.progress import track
from sambench.prompts import clicks_of
from sambench.status import OK, OUT_OF_MEMORY, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import MaskCandidates, Prompts, Variant

SELECTIONS = ("argmax", "single", "oracle")
UPSAMPLING_BYTES = 512 * 2**20  # float32 logits at the size of the frame or image that may exist at once
# Prompts of images that are finished together: a minute or two, with the encodings of a large variant too.
BLOCK_ROWS = {"cpu": 200, "gpu": 20_000}
NOTHING = -1  # the instance of a detector's box that is on none


@dataclass(frozen=True)
class Batch:
    """Prompts of one image that go through one decode: the same kind and number of points.

    rows: (N,) positions in the shard's table of prompts. instances: (N,) positions in the image's instances, NOTHING
    for a box of a detector that is on none. detected: whether all are boxes of detectors.
    clicks: of interactive clicks, the rows (N,) that want the answer to so many; `prompts` are the first ones, and
    `rows` those that want the most. Empty for all other prompts.
    """

    rows: np.ndarray
    instances: np.ndarray
    prompts: Prompts
    detected: bool = False
    clicks: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, part: slice) -> Batch:
        clicks = {count: rows[part] for count, rows in self.clicks.items()}
        return Batch(self.rows[part], self.instances[part], self.prompts[part], self.detected, clicks)

    @property
    def every_row(self) -> np.ndarray:
        """The rows of all its answers."""
        return np.concatenate([*self.clicks.values()]) if self.clicks else self.rows


@dataclass(frozen=True)
class ImageTask:
    """One image with its ground truth, as run-lengths, and its prompts in batches."""

    path: str
    size: tuple[int, int]
    rles: Sequence[tuple[Sequence[int], bytes]]
    batches: Sequence[Batch]
    view: View | None = None


@dataclass(frozen=True)
class LoadedImage:
    """What a worker thread prepares of a task: the variant's own input and the ground truth as (K, H, W) bool.

    unreadable: why there is no input, for a file that was damaged since the index looked at it.
    """

    task: ImageTask
    prepared: Any
    truth: np.ndarray
    unreadable: str = ""

    @cached_property
    def packed_truth(self) -> np.ndarray:
        return masks.pack(self.truth)

    @cached_property
    def boundaries(self) -> list[Boundary]:
        """Of each instance."""
        return [boundary(mask, width_of(*self.task.size)) for mask in self.truth]

    def targets(self, instances: np.ndarray) -> np.ndarray:
        """(N, H, W) bool: the ground truth of the prompts, an empty mask where there is none."""
        found = np.zeros((len(instances), *self.task.size), dtype=bool)
        there = instances != NOTHING
        found[there] = self.truth[instances[there]]
        return found


def plan(images: pd.DataFrame, instances: pd.DataFrame, prompts: pd.DataFrame) -> list[ImageTask]:
    """Group prompts and ground truth by image, without a scan per image. Images without prompts are left out.

    All tables carry the columns of results/records.py; `prompts` must have the index 0, 1, ... Where its column
    `detected` says so, a row is the box of a detector (see detections.py).

    Raises InputError when a prompt names an annotation or an image that is not there.
    """
    position = pd.Series(np.arange(len(instances)), index=instances["annotation_id"].to_numpy())
    annotations = prompts["annotation_id"].to_numpy()
    detected = prompts["detected"].to_numpy(bool) if "detected" in prompts else np.zeros(len(prompts), bool)
    of_prompt = position.reindex(annotations).fillna(NOTHING).to_numpy().astype(np.int64)
    missing = (of_prompt == NOTHING) & ~detected
    if missing.any():
        found = int(annotations[missing.argmax()])
        raise InputError("prompts", "annotation_id", expected="annotations of the dataset", found=found)
    rows_of_image = {key: np.sort(rows) for key, rows in prompts.groupby("image_id").indices.items()}
    unknown = rows_of_image.keys() - set(images["image_id"])
    if unknown:
        raise InputError("prompts", "image_id", expected="images of the dataset", found=min(unknown))

    names, boxes = prompts["prompt"].to_numpy(), prompts["box"].to_numpy()
    points, labels = prompts["points"].to_numpy(), prompts["labels"].to_numpy()
    sizes, counts = instances["rle_size"].to_numpy(), instances["rle_counts"].to_numpy()

    def batch(rows: np.ndarray, of_image: np.ndarray) -> Batch:
        has_box, has_points = boxes[rows[0]] is not None, points[rows[0]] is not None
        xy = np.stack(points[rows]).astype(np.float32).reshape(len(rows), -1, 2) if has_points else None
        marks = np.stack(labels[rows]).astype(np.int64) if has_points else None
        edges = np.stack(boxes[rows]).astype(np.float32) if has_box else None
        return Batch(rows, of_image, Prompts(edges, xy, marks), bool(detected[rows[0]]))

    def with_clicks(starts: Iterable[Mapping[int, int]], rows: np.ndarray, of_image: np.ndarray) -> Batch:
        """One trajectory per mapping, from a number of clicks to the place in `rows` that wants its answer."""
        by_count = {count: np.array([start[count] for start in starts]) for count in sorted(next(iter(starts)))}
        most = by_count[max(by_count)]
        return replace(batch(rows[most], of_image[most]), clicks={count: rows[at] for count, at in by_count.items()})

    tasks = []
    for image in images.itertuples(index=False):
        rows = rows_of_image.get(image.image_id)
        if rows is None:
            continue
        used = np.unique(of_prompt[rows])
        used = used[used != NOTHING]
        of_image = np.where(of_prompt[rows] == NOTHING, NOTHING, np.searchsorted(used, of_prompt[rows]))
        groups: dict[tuple[bool, bool, int], list[int]] = collections.defaultdict(list)
        # Sets such as click_1 and click_5 are points of one trajectory: by instance and first click.
        starts: dict[tuple[int, bytes], dict[int, int]] = collections.defaultdict(dict)
        for at, row in enumerate(rows):
            if not detected[row] and (clicks := clicks_of(names[row])):
                starts[int(of_image[at]), np.asarray(points[row], np.float32).tobytes()][clicks] = at
                continue
            size = 0 if labels[row] is None else len(labels[row])
            groups[bool(detected[row]), boxes[row] is not None, size].append(at)
        alike: dict[tuple[int, ...], list[dict[int, int]]] = collections.defaultdict(list)
        for start in starts.values():
            alike[tuple(sorted(start))].append(start)
        tasks.append(
            ImageTask(
                path=image.path,
                size=(image.height, image.width),
                rles=[(sizes[k], counts[k]) for k in used],
                batches=[
                    *(batch(rows[at], of_image[at]) for at in groups.values()),
                    *(with_clicks(each, rows, of_image) for each in alike.values()),
                ],
                view=view_of(image),
            )
        )
    return tasks


def image_blocks(images: pd.DataFrame, tables: Sequence[pd.DataFrame], most: int) -> list[pd.DataFrame]:
    """Images in blocks that have `most` rows in `tables` at most, or one image each: what is finished together.

    images, tables: with the column image_id.
    """
    counts = sum(
        (table.groupby("image_id").size().reindex(images["image_id"], fill_value=0).to_numpy() for table in tables),
        start=np.zeros(len(images), dtype=np.int64),
    )
    blocks, start, rows = [], 0, 0
    for at, count in enumerate(counts):
        if rows and rows + count > most:
            blocks.append(images.iloc[start:at])
            start, rows = at, 0
        rows += count
    return [*blocks, images.iloc[start:]]


def load(variant: Variant, task: ImageTask) -> LoadedImage:
    """Read one image, let the variant prepare it and unpack the ground truth. Runs in a worker thread."""
    height, width = task.size
    try:
        image = read_image(task.path, width, height, task.view)
    except InputError as error:
        return LoadedImage(task, None, np.zeros((0, height, width), dtype=bool), str(error))
    truth = np.zeros((len(task.rles), height, width), dtype=bool)
    for at, (size, counts) in enumerate(task.rles):
        truth[at] = masks.decode_rle(size, counts)
    return LoadedImage(task, variant.prepare(image), truth)


class Outcome(Protocol):
    """What becomes of the candidate masks of prompts."""

    def take(self, candidates: MaskCandidates, batch: Batch, loaded: LoadedImage) -> None:
        """Fill in the rows of a batch that was decoded."""

    def give_up(self, rows: np.ndarray, status: str) -> None:
        """Give rows without a mask their status."""


class ChosenIous:
    """The columns of prompts from ground truth, one row per prompt, everything null until it is scored.

    selections: the rules whose IoU is wanted; `argmax` always is. boundary: whether the boundary IoU of the mask that
    `argmax` chooses is wanted too.
    """

    def __init__(
        self, rows: int, selections: Sequence[str] = ("argmax",), status: str = "", *, boundary: bool = False
    ) -> None:
        self.selections, self.boundary = selections, boundary
        self.boundary_iou = np.full(rows, np.nan)
        self.iou = {name: np.full(rows, np.nan) for name in SELECTIONS}
        self.predicted_iou = np.full(rows, np.nan, dtype=np.float32)
        self.selected_token = np.full(rows, -1, dtype=np.int8)
        self.status = np.full(rows, status, dtype=object)

    def take(self, candidates: MaskCandidates, batch: Batch, loaded: LoadedImage) -> None:
        argmax = candidates.argmax()
        tokens = tokens_to_enlarge(candidates, self.selections)
        ious = np.full(tuple(tokens.shape), np.nan)
        best = argmax.cpu().numpy()
        for prompt, token, found in enlarge(candidates, tokens, loaded.task.size):
            if self.boundary:
                chosen = np.flatnonzero(token == best[prompt])
                own = _boundary_ious(found[torch.from_numpy(chosen)], loaded, batch.instances[prompt[chosen]])
                self.boundary_iou[batch.rows[prompt[chosen]]] = own
            shared, area, truth = _counts(found, loaded, batch.instances[prompt])
            ious[prompt, token] = masks.iou(shared, area, truth)

        every = np.arange(len(batch.rows))
        self.iou["argmax"][batch.rows] = ious[every, best]
        if "single" in self.selections:
            self.iou["single"][batch.rows] = ious[every, candidates.single.cpu().numpy()]
        if "oracle" in self.selections:
            self.iou["oracle"][batch.rows] = ious.max(axis=1)
        self.predicted_iou[batch.rows] = candidates.scores.cpu().numpy()[every, best]
        self.selected_token[batch.rows] = best
        self.status[batch.rows] = OK

    def give_up(self, rows: np.ndarray, status: str) -> None:
        self.status[rows] = status


def evaluate(
    variant: Variant,
    tasks: Sequence[ImageTask],
    scores: Outcome,
    detections: Outcome | None = None,
    title: str = "segany",
) -> None:
    """Decode every prompt of the tasks and hand the candidates to `scores`, those of detectors to `detections`.

    A prompt that the variant does not take, or an image that cannot be read or does not fit into memory, leaves rows
    with a status.
    """
    images = track(prefetch(partial(load, variant), tasks), len(tasks), title)
    evaluate_loaded(variant, images, scores, detections)


def evaluate_loaded(
    variant: Variant, images: Iterable[LoadedImage], scores: Outcome, detections: Outcome | None = None
) -> None:
    """`evaluate` of images that are loaded already."""

    def outcome(batch: Batch) -> Outcome:
        if not batch.detected:
            return scores
        assert detections is not None, "boxes of detectors need a place for their masks"
        return detections

    def give_up(batches: Iterable[Batch]) -> None:
        """Rows of prompts that did not fit into memory."""
        release_memory()
        for batch in batches:
            outcome(batch).give_up(batch.every_row, OUT_OF_MEMORY)

    for loaded in images:
        if loaded.unreadable:
            print(loaded.unreadable, file=sys.stderr)
            for batch in loaded.task.batches:
                outcome(batch).give_up(batch.every_row, UNREADABLE_IMAGE)
            continue
        usable = []
        for batch in loaded.task.batches:
            taken, refused = _supported(variant, batch)
            outcome(batch).give_up(refused, UNSUPPORTED_PROMPT)
            usable += taken
        if not usable:
            continue
        try:
            with memory_guard():
                features = variant.encode_prepared([loaded.prepared])[0]
        except OutOfMemory:
            give_up(usable)
            continue
        for batch in usable:
            for start in range(0, len(batch.rows), variant.decode_chunk):
                part = batch[start : start + variant.decode_chunk]
                waiting = dict(part.clicks) or {0: part.rows}
                try:
                    with memory_guard():
                        for count, candidates in _answers(variant, features, part, loaded):
                            outcome(part).take(candidates, replace(part, rows=waiting[count]), loaded)
                            del waiting[count]
                except OutOfMemory:
                    give_up([replace(part, rows=rows, clicks={}) for rows in waiting.values()])


def _supported(variant: Variant, batch: Batch) -> tuple[list[Batch], np.ndarray]:
    """What a variant takes of a batch, as one batch or none, and the rows (n,) that it does not take."""
    if not batch.clicks:
        taken = variant.supports(batch.prompts)
        return ([batch], batch.rows[:0]) if taken else ([], batch.rows)
    able = {count: rows for count, rows in batch.clicks.items() if variant.supports(batch.prompts, count)}
    refused = [rows for count, rows in batch.clicks.items() if count not in able]
    left = np.concatenate([batch.rows[:0], *refused])
    return ([replace(batch, rows=able[max(able)], clicks=able)] if able else []), left


def _answers(
    variant: Variant, features: Any, batch: Batch, loaded: LoadedImage
) -> Iterator[tuple[int, MaskCandidates]]:
    """The candidates of one chunk of prompts; with interactive clicks those of each number of clicks that is wanted."""
    prompts = batch.prompts
    if variant.uses_ground_truth:
        prompts = Prompts(prompts.boxes, prompts.points, prompts.labels, loaded.targets(batch.instances))
    if not batch.clicks:
        yield 0, variant.decode(features, prompts)
        return
    truth = loaded.truth[batch.instances]
    for number, answer in enumerate(trajectory(variant, features, prompts, truth, max(batch.clicks) - 1), start=1):
        if number in batch.clicks:
            yield number, answer.candidates


def tokens_to_enlarge(candidates: MaskCandidates, selections: Sequence[str]) -> torch.Tensor:
    """(N, M) bool: the candidates that a rule looks at; `argmax` always does."""
    wanted = torch.zeros(candidates.scores.shape, dtype=torch.bool, device=candidates.scores.device)
    if "oracle" in selections:
        return ~wanted
    wanted.scatter_(1, candidates.argmax()[:, None], True)
    if "single" in selections:
        wanted.scatter_(1, candidates.single[:, None], True)
    return wanted


def enlarge(
    candidates: MaskCandidates, tokens: torch.Tensor, size: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, torch.Tensor]]:
    """The wanted candidates at the size of the image, as many at once as memory is meant for.

    tokens: (N, M) bool. Yields the positions of prompt and token, (n,) each, and the masks, (n, H, W) bool on the
    device.
    """
    prompt, token = (index.cpu() for index in tokens.nonzero(as_tuple=True))
    frame = candidates.upsampling.frame or (0, 0)
    step = max(1, UPSAMPLING_BYTES // (4 * max(size[0] * size[1], frame[0] * frame[1])))
    for start in range(0, len(prompt), step):
        p, t = prompt[start : start + step], token[start : start + step]
        yield p.numpy(), t.numpy(), candidates.upsampling.masks(candidates.at(p, t))


def _counts(
    found: torch.Tensor, loaded: LoadedImage, instances: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact pixel counts of (n, H, W) masks and their instances: intersection, area of the mask, of the truth.

    On a GPU the masks stay there and only the counts come back.
    """
    if found.device.type == "cpu":
        packed, truth = masks.pack(found.numpy()), loaded.packed_truth[instances]
        return masks.intersection(packed, truth), masks.area(packed), masks.area(truth)
    on_device = torch.from_numpy(loaded.truth[instances]).to(found.device)
    counts = torch.stack([(found & on_device).sum((1, 2)), found.sum((1, 2)), on_device.sum((1, 2))])
    shared, area, truth = counts.cpu().numpy()
    return shared, area, truth


def _boundary_ious(found: torch.Tensor, loaded: LoadedImage, instances: np.ndarray) -> list[float]:
    """Of (n, H, W) masks and their instances."""
    width = width_of(*loaded.task.size)
    own = [boundary(mask, width) for mask in found.cpu().numpy()]
    return [boundary_iou(a, loaded.boundaries[at]) for a, at in zip(own, instances, strict=True)]


def result_table(prompts: pd.DataFrame, instances: pd.DataFrame, scores: ChosenIous) -> pd.DataFrame:
    """Scores beside the facts of their instances: the columns of records.SEGANY, in the order of the prompts.

    Raises RuntimeError when a planned prompt was never scored: a bug that must not become a mean.
    """
    unscored = int((scores.status == "").sum())
    if unscored:
        raise RuntimeError(f"{unscored} of {len(prompts)} planned prompts were not scored")
    facts = instances.set_index("annotation_id")[["category_id", "area", "iscrowd"]]
    table = prompts[["annotation_id", "image_id", "prompt"]].join(facts, on="annotation_id")
    for name, column in (("argmax", "iou"), ("single", "iou_single"), ("oracle", "iou_oracle")):
        table[column] = scores.iou[name]
    table["boundary_iou"] = scores.boundary_iou
    table["predicted_iou"] = scores.predicted_iou
    tokens = pd.Series(scores.selected_token, dtype="Int8")
    table["selected_token"] = tokens.mask(tokens < 0).to_numpy(dtype=object, na_value=None)
    table["status"] = scores.status
    return table
