"""The same numbers on one thread and two, in one shard and two, and in another order of images and annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from sambench.datasets import coco, scenes
from sambench.evaluate.segany import SELECTIONS, ChosenIous, evaluate, plan, result_table
from sambench.jobs import Job, shard_images
from sambench.prompts import EXAMPLES, make_prompts
from sambench.results.accuracy import accuracy
from sambench.variants.base import Runtime
from sambench.variants.baselines import BoxFill, GrabCut, GroundTruth

VARIANTS = {"box_fill": BoxFill, "grabcut": GrabCut, "ground_truth": GroundTruth}
CPU = Runtime("eager", device="cpu")


@dataclass(frozen=True)
class Numbers:
    """What a study makes of its data: instances, prompts, results per prompt, and a table."""

    instances: pd.DataFrame
    prompts: pd.DataFrame
    results: pd.DataFrame
    table: pd.DataFrame


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def study(annotations: Path, images: Path, *, on: int, shards: int) -> Numbers:
    """Every prompt type that the documentation names, and the baselines, which need no weights."""
    with threads(on):
        found = coco.index([annotations], images)
        prompts = make_prompts("scenes", found.instances, EXAMPLES)
        tables, lines = [], []
        for name, variant in VARIANTS.items():
            parts = []
            for shard in range(shards):
                part = shard_images(found.images, shard, shards)
                truth, asked = (
                    table[table["image_id"].isin(part["image_id"])].reset_index(drop=True)
                    for table in (found.instances, prompts)
                )
                scores = ChosenIous(len(asked), list(SELECTIONS), boundary=True)
                evaluate(variant(CPU), plan(part, truth, asked), scores)
                parts.append(result_table(asked, truth, scores))
            rows = pd.concat(parts).sort_values(["annotation_id", "prompt"], ignore_index=True)
            lines.extend(accuracy(Job("scenes", name, "eager", "all"), rows, SELECTIONS, resamples=200, seed=0))
            tables.append(rows.assign(variant=name))
    return Numbers(found.instances, prompts, pd.concat(tables), pd.DataFrame(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three scenes, and a file with the same in another order."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder)
    document = json.loads((folder / "annotations.json").read_text())
    document["images"] = document["images"][:3]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] in kept]
    (folder / "annotations.json").write_text(json.dumps(document))
    turned = {**document, "images": document["images"][::-1], "annotations": document["annotations"][::-1]}
    (folder / "turned.json").write_text(json.dumps(turned))
    return folder


@pytest.fixture(scope="module")
def numbers(folder: Path) -> Numbers:
    return study(folder / "annotations.json", folder / "images", on=1, shards=1)


def test_there_are_numbers(numbers: Numbers) -> None:
    assert set(numbers.prompts["prompt"]) == set(EXAMPLES)
    scored = numbers.results[numbers.results["status"] == "ok"]
    assert len(scored) > 250 and 0.3 < scored["iou"].mean() < 1
    assert np.ptp(scored.loc[scored["variant"] == "grabcut", "iou"]) > 0.1


@pytest.mark.parametrize(("name", "on", "shards"), [("annotations", 2, 1), ("turned", 1, 2)])
def test_threads_shards_and_order_change_no_bit(
    numbers: Numbers, folder: Path, name: str, on: int, shards: int
) -> None:
    other = study(folder / f"{name}.json", folder / "images", on=on, shards=shards)
    for field in ("instances", "prompts", "results", "table"):
        assert_frame_equal(getattr(numbers, field), getattr(other, field), check_exact=True)
