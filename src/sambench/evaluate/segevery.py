"""Segment everything on a dataset: one record per image, either of time or of quality.

Quality needs no quiet machine and may run beside other jobs; time is measured on the same code with the images in
memory and everything warmed up. Average recall is class-agnostic: what is stored of an image are counts of matched
instances, so that images and shards add up exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from hotcoco import COCO, COCOeval, Params

from sambench.datasets.pictures import View, read_image, view_of
from sambench.errors import InputError
from sambench.evaluate.filters import Masks, Settings, Trace
from sambench.evaluate.generator import generate
from sambench.evaluate.samplers import OBJECT_AWARE, ORACLE_BOXES, Sampler
from sambench.masks import decode_rle
from sambench.memory import OutOfMemory, memory_guard, peak_mib, release_memory, reset_peak
from sambench.progress import track
from sambench.records import SEGEVERY, SEGEVERY_MASKS
from sambench.status import OK, OUT_OF_MEMORY, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import Variant

LIMITS = (100, 1000)  # most masks of an image that average recall looks at
MATCHED = tuple(f"matched_{limit}" for limit in LIMITS)
STAGES = ("detect", "encode", "decode", "postprocess", "total")
FILTERS = ("prompts", "candidates", "predicted_iou", "stability", "crop_edge", "nms", "masks")

Detector = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class EverythingTask:
    """One image and its ground truth.

    size: (height, width). boxes: (N, 4) float32 x0, y0, x1, y1. rles: (size, counts) of each instance. areas: (N,)
    float. crowd: (N,) bool.
    """

    image_id: int
    path: str
    size: tuple[int, int]
    boxes: np.ndarray
    rles: Sequence[tuple[Sequence[int], bytes]]
    areas: np.ndarray
    crowd: np.ndarray
    view: View | None = None


def plan(images: pd.DataFrame, instances: pd.DataFrame, count: int) -> list[EverythingTask]:
    """The first `count` images by id that have instances. Tables carry the columns of results/records.py."""
    rows_of = instances.groupby("image_id").indices
    tasks: list[EverythingTask] = []
    for image in images.sort_values("image_id").itertuples(index=False):
        if len(tasks) == count:
            break
        if image.image_id not in rows_of:
            continue
        rows = instances.iloc[np.sort(rows_of[image.image_id])]
        corner, extent = rows[["x", "y"]].to_numpy(), rows[["w", "h"]].to_numpy()
        tasks.append(
            EverythingTask(
                image_id=image.image_id,
                path=image.path,
                size=(image.height, image.width),
                boxes=np.column_stack([corner, corner + extent]).astype(np.float32),
                rles=list(zip(rows["rle_size"], rows["rle_counts"], strict=True)),
                areas=rows["area"].to_numpy(),
                crowd=rows["iscrowd"].to_numpy(dtype=bool),
                view=view_of(image),
            )
        )
    return tasks


def detector_of(variant: Variant) -> Detector:
    """The boxes that a detector-style variant finds, of every category: (N, 4) x0, y0, x1, y1.

    Raises InputError for a variant that detects nothing by itself.
    """
    if not hasattr(variant, "instances"):
        raise InputError("segevery.detector", variant.name, expected="a detector-style variant, such as yolov8n_seg")

    def detect(image: np.ndarray) -> np.ndarray:
        boxes: np.ndarray = variant.encode([image])[0].boxes.float().cpu().numpy()
        return boxes

    return detect


def measure_quality(
    variant: Variant,
    sampler: Sampler,
    tasks: Sequence[EverythingTask],
    settings: Settings | None = None,
    detect: Detector | None = None,
    keep: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records (columns of records.SEGEVERY) without times, and the masks (records.SEGEVERY_MASKS) if `keep`."""
    records, kept = [], []
    for task in track(tasks, len(tasks), f"segevery {variant.name}"):
        record, masks = _attempt(variant, sampler, task, settings, detect)
        if masks is not None:
            record |= match(masks, task)
            if keep:
                kept.append(masks_table(masks, task))
        records.append(record)
    return records_table(records), pd.concat(kept, ignore_index=True) if kept else no_masks_table()


def measure_time(
    variant: Variant,
    sampler: Sampler,
    tasks: Sequence[EverythingTask],
    settings: Settings | None = None,
    detect: Detector | None = None,
    warmup: int = 2,
) -> pd.DataFrame:
    """Records (columns of records.SEGEVERY) with times and peak memory, without matches.

    All images are read first; the first one is done `warmup` times before the clock starts.
    """
    images: list[np.ndarray | InputError] = []
    for task in tasks:
        try:
            images.append(read_image(task.path, task.size[1], task.size[0], task.view))
        except InputError as error:
            images.append(error)
    for _ in range(warmup if tasks else 0):
        _attempt(variant, sampler, tasks[0], settings, detect, images[0])
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    records = []
    for task, image in track(list(zip(tasks, images, strict=True)), len(tasks), f"segevery time {variant.name}"):
        reset_peak(device)
        record, masks = _attempt(variant, sampler, task, settings, detect, image)
        if masks is not None:
            record["peak_memory_mib"] = peak_mib(device)
            record |= {f"{stage}_ms": record["seconds"].get(stage, 0.0) * 1000 for stage in STAGES}
        records.append(record)
    return records_table(records)


def records_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as rows with the columns of records.SEGEVERY, null where a record has no value."""
    return pd.DataFrame(
        [{name: record.get(name) for name in SEGEVERY.names} for record in records], columns=SEGEVERY.names
    )


def status_table(tasks: Sequence[EverythingTask], status: str) -> pd.DataFrame:
    """Records of a variant that cannot run: nothing but the reason."""
    return records_table([{"image_id": task.image_id, "status": status} for task in tasks])


def _attempt(
    variant: Variant,
    sampler: Sampler,
    task: EverythingTask,
    settings: Settings | None,
    detect: Detector | None,
    image: np.ndarray | InputError | None = None,
) -> tuple[dict[str, Any], Masks | None]:
    """The masks of one image and how many passed each filter, or None and a status."""
    record: dict[str, Any] = {"image_id": task.image_id}
    try:
        if image is None:
            image = read_image(task.path, task.size[1], task.size[0], task.view)
        if isinstance(image, InputError):
            raise image
    except InputError as error:
        print(error, file=sys.stderr)
        return record | {"status": UNREADABLE_IMAGE}, None
    trace = Trace()
    try:
        with memory_guard(), trace.measure("total"):
            boxes, targets = None, None
            if sampler.kind == OBJECT_AWARE:
                if detect is None:
                    raise ValueError("object_aware: expected a detector")
                with trace.measure("detect"):
                    boxes = detect(image)
            elif sampler.kind == ORACLE_BOXES:
                rows = np.flatnonzero(~task.crowd).tolist()
                boxes = task.boxes[rows]
                if variant.uses_ground_truth:
                    targets = np.stack([decode_rle(*task.rles[i]) for i in rows]) if len(rows) else None
            masks = generate(variant, image, sampler, settings, trace, boxes=boxes, targets=targets)
    except InputError:
        return record | {"status": UNSUPPORTED_PROMPT}, None
    except OutOfMemory:
        release_memory()
        return record | {"status": OUT_OF_MEMORY}, None
    counts = {name: trace.left[name] for name in FILTERS}
    return record | counts | {"seconds": trace.seconds, "status": OK}, masks


def match(masks: Masks, task: EverythingTask) -> dict[str, Any]:
    """How many instances the best 100 and the best 1000 masks find at each of COCO's ten IoU thresholds.

    Masks are ranked by `Masks.scores`, categories do not count, crowds are ignored as COCO does it. The sums of
    `matched_1000` over images, over the sum of `instances`, averaged over the thresholds, are AR@1000.
    """
    instances = int((~task.crowd).sum())
    nothing = dict.fromkeys(MATCHED, [0] * 10)
    if not instances or not len(masks):
        return {"instances": instances, **nothing}
    size = list(task.size)
    truth = COCO(
        {
            "images": [{"id": 1, "height": size[0], "width": size[1]}],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": 1,
                    "iscrowd": int(crowd),
                    "area": float(area),
                    "bbox": _xywh(box),
                    "segmentation": {"size": [int(side) for side in rle_size], "counts": counts.decode()},
                }
                for number, (box, (rle_size, counts), area, crowd) in enumerate(
                    zip(task.boxes, task.rles, task.areas, task.crowd, strict=True), 1
                )
            ],
        }
    )
    found = truth.load_res(
        [
            {
                "image_id": 1,
                "category_id": 1,
                "score": float(score),
                "segmentation": {"size": size, "counts": counts.decode()},
            }
            for score, counts in zip(masks.scores, masks.counts, strict=True)
        ]
    )
    params = Params(iou_type="segm")
    params.use_cats = False
    params.max_dets = list(LIMITS)
    params.area_rng, params.area_rng_lbl = [[0, 1e10]], ["all"]
    evaluation = COCOeval(truth, found, "segm")
    evaluation.params = params
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    recall = np.asarray(evaluation.eval["recall"])[:, 0, 0, :]  # threshold, category, area, limit
    matched = np.rint(recall * instances).astype(int)
    return {"instances": instances} | {name: matched[:, i].tolist() for i, name in enumerate(MATCHED)}


def _xywh(box: np.ndarray) -> list[float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    return [x0, y0, x1 - x0, y1 - y0]


def no_masks_table() -> pd.DataFrame:
    """No rows of records.SEGEVERY_MASKS."""
    return pd.DataFrame(columns=SEGEVERY_MASKS.names)


def masks_table(masks: Masks, task: EverythingTask) -> pd.DataFrame:
    """Rows of records.SEGEVERY_MASKS, in the order of the generator."""
    x0, y0, x1, y1 = masks.boxes.T
    return pd.DataFrame(
        {
            "image_id": task.image_id,
            "score": masks.scores,
            "predicted_iou": masks.predicted_iou,
            "stability": masks.stability,
            "x": x0,
            "y": y0,
            "w": np.where(masks.area > 0, x1 - x0 + 1, 0),
            "h": np.where(masks.area > 0, y1 - y0 + 1, 0),
            "area": masks.area,
            "rle_size": [list(task.size)] * len(masks),
            "rle_counts": masks.counts,
        }
    )
