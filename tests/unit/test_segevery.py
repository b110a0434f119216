"""The segevery stage: average recall against pycocotools, records of odd images, the table."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sambench.errors import InputError
from sambench.evaluate.filters import Masks, Settings
from sambench.evaluate.samplers import parse_sampler
from sambench.evaluate.segevery import EverythingTask, detector_of, match, measure_quality, measure_time, plan
from sambench.jobs import EverythingJob
from sambench.masks import encode_rle
from sambench.parquet import read_parquet, write_parquet
from sambench.records import SEGEVERY, SEGEVERY_MASKS
from sambench.results.tables.segevery import SCHEMA, average_recall, line
from sambench.status import OK, OUT_OF_MEMORY, UNREADABLE_IMAGE, UNSUPPORTED_PROMPT
from sambench.variants.base import BOX, MaskCandidates, Prompts, Runtime, Upsampling, Variant
from sambench.variants.baselines import BoxFill, GroundTruth

HEIGHT, WIDTH = 40, 60


class Discs(Variant):
    """A disc of radius 5, 10 and 15 pixels around each point; `broken` makes it fail on request."""

    name = "discs"
    broken: Exception | None = None

    def encode_prepared(self, prepared: Any) -> list[Any]:
        if self.broken is not None:
            raise self.broken
        return [image.shape[:2] for image in prepared]

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        assert prompts.points is not None
        y, x = np.mgrid[: features[0], : features[1]]
        distance = np.hypot(x - prompts.points[:, 0, 0, None, None], y - prompts.points[:, 0, 1, None, None])
        logits = np.array([5, 10, 15])[:, None, None] - distance[:, None]
        scores = torch.tensor([0.9, 0.95, 0.92]).expand(len(prompts), -1)
        single = torch.zeros(len(prompts), dtype=torch.int64)
        return MaskCandidates(torch.from_numpy(logits).float(), scores, (0, 1, 2), single, Upsampling(features))


def masks_of(masks: np.ndarray, scores: np.ndarray) -> Masks:
    """(K, H, W) bool masks with scores; what the generator does not need for a match is zero."""
    k = len(masks)
    counts = np.empty(k, dtype=object)
    counts[:] = [encode_rle(mask) for mask in masks]
    values = scores.astype(np.float32)
    zeros = np.zeros((k, 4), np.int64)
    return Masks(counts, masks.sum(axis=(1, 2)), zeros, values, values, np.zeros((k, 2)), zeros)


def task_of(image_id: int, masks: np.ndarray, crowd: np.ndarray) -> EverythingTask:
    return EverythingTask(
        image_id=image_id,
        path="",
        size=masks.shape[1:],  # type: ignore[arg-type]
        boxes=np.zeros((len(masks), 4), np.float32),
        rles=[(masks.shape[1:], encode_rle(mask)) for mask in masks],
        areas=masks.sum(axis=(1, 2)).astype(float),
        crowd=crowd,
    )


def random_masks(random: np.random.Generator, count: int) -> np.ndarray:
    masks = np.zeros((count, HEIGHT, WIDTH), bool)
    for mask in masks:
        y, x = random.integers(0, HEIGHT - 4), random.integers(0, WIDTH - 4)
        mask[y : y + random.integers(3, 20), x : x + random.integers(3, 30)] = True
    return masks


def jitter(random: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    return np.stack([np.roll(mask, random.integers(-2, 3, size=2), axis=(0, 1)) for mask in masks])


def test_average_recall_is_that_of_pycocotools() -> None:
    random = np.random.default_rng(3)
    images, annotations, results, records = [], [], [], []
    for image_id in range(1, 7):
        truth = random_masks(random, 12)
        crowd = random.random(12) < 0.2
        found = np.concatenate([jitter(random, truth[:8]), random_masks(random, 140)])
        scores = np.round(random.random(len(found)), 1)  # many ties, and more than 100 masks
        task, masks = task_of(image_id, truth, crowd), masks_of(found, scores)
        records.append(match(masks, task))
        images.append({"id": image_id, "height": HEIGHT, "width": WIDTH})
        for (size, counts), area, is_crowd in zip(task.rles, task.areas, crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1 + len(annotations) % 3,
                    "iscrowd": int(is_crowd),
                    "area": float(area),
                    "bbox": [0, 0, 1, 1],
                    "segmentation": {"size": list(size), "counts": counts},
                }
            )
        for counts, score in zip(masks.counts, masks.scores, strict=True):
            rle = {"size": [HEIGHT, WIDTH], "counts": counts}
            results.append({"image_id": image_id, "category_id": 1, "score": float(score), "segmentation": rle})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        categories = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
        reference.dataset = {"images": images, "annotations": annotations, "categories": categories}
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [1, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0, 0, :]
    table = pd.DataFrame(records)
    for limit, column in ((100, 1), (1000, 2)):
        assert average_recall(table, limit) == pytest.approx(100 * recall[:, column].mean(), abs=1e-9)
    assert average_recall(table, 100) < average_recall(table, 1000) < 100


def test_match_by_hand() -> None:
    truth = np.zeros((2, 10, 10), bool)
    truth[0, :5], truth[1, 8:] = True, True
    found = truth.copy()
    found[1, 9] = False  # IoU 10 / 20
    both = match(masks_of(found, np.array([0.2, 0.9])), task_of(1, truth, np.array([False, False])))
    assert both == {"instances": 2, "matched_100": [2] + [1] * 9, "matched_1000": [2] + [1] * 9}
    none = match(masks_of(found[:0], np.zeros(0)), task_of(1, truth, np.array([False, True])))
    assert none == {"instances": 1, "matched_100": [0] * 10, "matched_1000": [0] * 10}
    crowd = match(masks_of(found, np.ones(2)), task_of(1, truth, np.array([True, True])))
    assert crowd["instances"] == 0
    assert np.isnan(average_recall(pd.DataFrame([crowd]), 100))


def dataset(
    folder: Path, pictures: dict[str, Image.Image | bytes], size: tuple[int, int] = (HEIGHT, WIDTH)
) -> list[EverythingTask]:
    """A task a picture, with one instance: a disc of radius 10."""
    tasks = []
    for number, (name, picture) in enumerate(pictures.items()):
        path = folder / name
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            picture.save(path)
        y, x = np.mgrid[: size[0], : size[1]]
        disc = np.hypot(x - size[1] / 4, y - size[0] / 4) < 10
        task = task_of(number, disc[None], np.array([False]))
        tasks.append(
            EverythingTask(**{**task.__dict__, "path": str(path), "boxes": np.array([[0, 0, 20, 20]], np.float32)})
        )
    return tasks


def grey() -> Image.Image:
    return Image.new("L", (WIDTH, HEIGHT), 90)


LOOSE = Settings(stability_score_thresh=0.5)


def test_odd_pictures_give_masks_or_a_row_that_says_why_not(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    grey().resize((WIDTH * 8, HEIGHT * 8)).save(buffer, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees: stored 40x60, shown 60x40
    turned = io.BytesIO()
    Image.new("RGB", (HEIGHT, WIDTH)).save(turned, "JPEG", exif=exif)
    tasks = dataset(
        tmp_path,
        {
            "grey.png": grey(),
            "alpha.png": Image.new("RGBA", (WIDTH, HEIGHT), (1, 2, 3, 4)),
            "cmyk.jpg": Image.new("CMYK", (WIDTH, HEIGHT)),
            "turned.jpg": turned.getvalue(),
            "truncated.jpg": buffer.getvalue()[: len(buffer.getvalue()) // 2],
            "other_size.png": Image.new("RGB", (WIDTH + 1, HEIGHT)),
            "text.png": b"not an image",
        },
    )
    missing = EverythingTask(**{**tasks[0].__dict__, "image_id": 7, "path": str(tmp_path / "missing.png")})
    for records in (
        measure_quality(Discs(), parse_sampler("grid_2"), [*tasks, missing], LOOSE)[0],
        measure_time(Discs(), parse_sampler("grid_2"), [*tasks, missing], LOOSE, warmup=0),
    ):
        assert records["status"].tolist() == [OK] * 4 + [UNREADABLE_IMAGE] * 4
        assert (records["masks"][:4] == records["masks"][0]).all()
        assert records["masks"][0] > 0
        assert records["masks"][4:].isna().all()


def test_records_of_quality_and_time_fit_their_schemas_and_add_up(tmp_path: Path) -> None:
    tasks = dataset(tmp_path, {"a.png": grey(), "b.png": grey()})
    sampler = parse_sampler("grid_2")
    quality, masks = measure_quality(Discs(), sampler, tasks, LOOSE, keep=True)
    time = measure_time(Discs(), sampler, tasks, LOOSE, warmup=1)
    for name, table, schema in (
        ("quality", quality, SEGEVERY),
        ("time", time, SEGEVERY),
        ("masks", masks, SEGEVERY_MASKS),
    ):
        write_parquet(tmp_path / f"{name}.parquet", table, schema, {})
    quality, time = (read_parquet(tmp_path / f"{n}.parquet", SEGEVERY).to_pandas() for n in ("quality", "time"))
    # Four points, three discs each; the masks of one image are those of the other.
    assert quality["prompts"].tolist() == [4, 4]
    assert quality["candidates"].tolist() == [12, 12]
    assert len(masks) == 2 * quality["masks"][0]
    assert quality["matched_1000"][0].tolist() == [1] * 10  # the disc around the first point is the instance
    assert time["matched_1000"].isna().all() and quality["total_ms"].isna().all()
    assert (time["total_ms"] >= time[["encode_ms", "decode_ms", "postprocess_ms"]].sum(axis=1)).all()
    assert (time["peak_memory_mib"] > 0).all()

    table = line(EverythingJob("d", "v", "r", "grid_2"), quality, time, "a device")
    write_parquet(tmp_path / "table.parquet", table, SCHEMA, {})
    row = table.iloc[0]
    assert row["ms_per_image"] == pytest.approx(time["total_ms"].mean())
    assert row["median_ms"] == pytest.approx(time["total_ms"].median())
    assert (row["ar_1000"], row["instances"], row["images"], row["status"]) == (100.0, 2, 2, OK)
    with pytest.raises(InputError, match="same"):
        line(EverythingJob("d", "v", "r", "grid_2"), quality, time[:1], "a device")


def test_what_cannot_run_leaves_rows(tmp_path: Path) -> None:
    tasks = dataset(tmp_path, {"a.png": grey()})
    variant = Discs()
    variant.broken = MemoryError()
    records, _ = measure_quality(variant, parse_sampler("grid_2"), tasks)
    assert records["status"].tolist() == [OUT_OF_MEMORY]
    variant.prompt_kinds = frozenset({BOX})
    records, masks = measure_quality(variant, parse_sampler("grid_2"), tasks, keep=True)
    assert records["status"].tolist() == [UNSUPPORTED_PROMPT]
    assert list(masks.columns) == SEGEVERY_MASKS.names
    variant = Discs()
    variant.broken = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        measure_quality(variant, parse_sampler("grid_2"), tasks)
    table = line(EverythingJob("d", "v", "r", "grid_2"), records, records, "a device")
    assert table["status"].tolist() == [UNSUPPORTED_PROMPT]
    assert table["ar_1000"].isna().all()


def test_boxes_of_the_ground_truth_and_of_a_detector(tmp_path: Path) -> None:
    tasks = dataset(tmp_path, {"a.png": grey()})
    sampler = parse_sampler("oracle_boxes")
    perfect, _ = measure_quality(GroundTruth(Runtime(device="cpu")), sampler, tasks)
    filled, _ = measure_quality(BoxFill(Runtime(device="cpu")), sampler, tasks)
    assert average_recall(perfect, 1000) == 100
    assert average_recall(filled, 1000) < 100
    assert perfect["prompts"].tolist() == filled["prompts"].tolist() == [1]
    seen = []

    def detect(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return np.array([[0, 0, 20, 20], [5, 5, 50, 30], [1, 1, 1, 1]], np.float32)

    records = measure_time(
        BoxFill(Runtime(device="cpu")), parse_sampler("object_aware"), tasks, detect=detect, warmup=2
    )
    assert records["prompts"].tolist() == [3]
    assert len(seen) == 3
    assert records["detect_ms"][0] > 0
    with pytest.raises(InputError, match="detector-style"):
        detector_of(Discs())


def test_plan_takes_the_first_annotated_images_by_id() -> None:
    images = pd.DataFrame({"image_id": [9, 4, 7, 2], "path": list("abcd"), "width": 60, "height": 40})
    instances = pd.DataFrame(
        {
            "annotation_id": [1, 2, 3],
            "image_id": [9, 7, 9],
            "category_id": 1,
            "x": [1.0, 2.0, 3.0],
            "y": 5.0,
            "w": 10.0,
            "h": 20.0,
            "area": 200.0,
            "iscrowd": [False, True, False],
            "rle_size": [[40, 60]] * 3,
            "rle_counts": [encode_rle(np.ones((40, 60), bool))] * 3,
        }
    )
    tasks = plan(images, instances, 2)
    assert [task.image_id for task in tasks] == [7, 9]
    assert tasks[1].boxes.tolist() == [[1, 5, 11, 25], [3, 5, 13, 25]]
    assert tasks[0].crowd.tolist() == [True]
    assert [task.image_id for task in plan(images, instances, 1)] == [7]


def test_peak_memory_sees_what_was_there() -> None:
    # In a process of its own: one that has freed memory before may reuse it, and its peak then stands still.
    program = (
        "import numpy as np, torch; from sambench import memory; cpu = torch.device('cpu');"
        "memory.reset_peak(cpu); before = memory.peak_mib(cpu);"
        "block = np.ones(64 * 2**20, dtype=np.uint8); print(memory.peak_mib(cpu) - before, block[-1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 60 <= float(done.stdout.split()[0]) < 100
