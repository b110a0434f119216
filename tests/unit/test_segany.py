"""The segany stage against hand-computed values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sambench import masks
from sambench.errors import InputError
from sambench.evaluate import shard
from sambench.evaluate.segany import ChosenIous, ImageTask, evaluate, plan, result_table
from sambench.jobs import shard_images
from sambench.prefetch import prefetch
from sambench.status import OK, OUT_OF_MEMORY, UNSUPPORTED_PROMPT
from sambench.variants.base import MaskCandidates, Prompts, Upsampling, Variant

HEIGHT, WIDTH = 8, 10


class Stripes(Variant):
    """Token k of any prompt is the first `columns[k]` columns of the image, with the predicted IoU `scores[k]`."""

    name = "stripes"
    prompt_kinds = frozenset({"box", "point"})

    def __init__(self, columns: Sequence[int], scores: Sequence[float], single: int = 0) -> None:
        self.columns, self.scores, self.single = columns, scores, single
        self.seen: list[Prompts] = []

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        return [image.shape[:2] for image in prepared]

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        self.seen.append(prompts)
        n = len(prompts)
        found = torch.zeros(n, len(self.columns), *features, dtype=torch.bool)
        for token, column in enumerate(self.columns):
            found[:, token, :, :column] = True
        return MaskCandidates(
            found,
            torch.tensor(self.scores).expand(n, -1),
            multimask=tuple(range(1, len(self.columns))),
            single=torch.full((n,), self.single),
            upsampling=Upsampling(features),
        )


def dataset(folder: Path, images: int = 1) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Images with one instance each, the first 5 columns (40 pixels), prompted by a box and by two points."""
    truth = np.zeros((HEIGHT, WIDTH), dtype=bool)
    truth[:, :5] = True
    paths = []
    for number in range(images):
        path = folder / f"{number}.png"
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    ids = np.arange(images)
    image_table = pd.DataFrame({"image_id": ids, "path": paths, "width": WIDTH, "height": HEIGHT})
    instances = pd.DataFrame(
        {
            "annotation_id": ids + 100,
            "image_id": ids,
            "category_id": 1,
            "area": 40.0,
            "iscrowd": False,
            "rle_size": [[HEIGHT, WIDTH]] * images,
            "rle_counts": [masks.encode_rle(truth)] * images,
        }
    )
    rows = []
    for number in ids:
        rows.append((number + 100, number, "box", None, None, np.array([0, 0, 5, 8], np.float32)))
        points = np.array([1, 1, 2, 2], np.float32)
        rows.append((number + 100, number, "random_2", points, np.array([1, 1], np.int8), None))
    prompts = pd.DataFrame(rows, columns=["annotation_id", "image_id", "prompt", "points", "labels", "box"])
    return image_table, instances, prompts


def score(variant: Variant, tasks: Sequence[ImageTask], rows: int, selections: Sequence[str]) -> ChosenIous:
    scores = ChosenIous(rows, selections)
    evaluate(variant, tasks, scores)
    return scores


def test_the_three_rules_come_from_one_decode(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    # Columns 10, 2, 4, 7 of a truth of 5: IoU 1/2, 2/5, 4/5, 5/7. The best score of tokens 1-3 is token 3's.
    variant = Stripes([10, 2, 4, 7], [0.99, 0.1, 0.2, 0.3])
    scores = score(variant, plan(images, instances, prompts), len(prompts), ["argmax", "single", "oracle"])
    np.testing.assert_allclose(scores.iou["argmax"], 5 / 7)
    np.testing.assert_allclose(scores.iou["single"], 1 / 2)
    np.testing.assert_allclose(scores.iou["oracle"], 4 / 5)
    assert (scores.selected_token == 3).all()
    np.testing.assert_allclose(scores.predicted_iou, 0.3, rtol=1e-6)
    assert len(variant.seen) == 2, "one decode for the box, one for the points"


def test_rules_that_are_not_wanted_stay_null(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    scores = score(Stripes([10, 5], [0.9, 0.5]), plan(images, instances, prompts), 2, ["argmax"])
    assert scores.iou["argmax"].tolist() == [1.0, 1.0]
    assert np.isnan(scores.iou["single"]).all() and np.isnan(scores.iou["oracle"]).all()


def test_an_empty_prediction_is_zero_and_never_dropped(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    scores = score(Stripes([0, 0], [0.0, 0.0]), plan(images, instances, prompts), 2, ["argmax"])
    assert scores.iou["argmax"].tolist() == [0.0, 0.0]
    assert scores.status.tolist() == [OK, OK]


def test_unsupported_prompts_are_rows_with_a_status(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    variant = Stripes([10, 5], [0.9, 0.5])
    variant.prompt_kinds = frozenset({"box"})
    scores = score(variant, plan(images, instances, prompts), 2, ["argmax"])
    assert scores.status.tolist() == [OK, UNSUPPORTED_PROMPT]
    table = result_table(prompts, instances, scores)
    assert table["iou"].isna().tolist() == [False, True]
    assert table["selected_token"].tolist() == [1, None]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_want_of_memory_is_a_status_and_others_go_on(tmp_path: Path, error: Exception) -> None:
    images, instances, prompts = dataset(tmp_path, images=2)

    class Greedy(Stripes):
        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            if prompts.boxes is None and not self.seen:
                raise error
            return super().decode(features, prompts)

    variant = Greedy([10, 5], [0.9, 0.5])
    swapped = prompts.iloc[[1, 0, 2, 3]].reset_index(drop=True)
    scores = score(variant, plan(images, instances, swapped), 4, ["argmax"])
    assert scores.status.tolist() == [OUT_OF_MEMORY, OK, OK, OK]


def test_a_bug_is_not_a_status(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)

    class Broken(Stripes):
        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        score(Broken([1, 1], [0, 0]), plan(images, instances, prompts), 2, ["argmax"])


def test_an_unscored_prompt_is_refused(tmp_path: Path) -> None:
    _, instances, prompts = dataset(tmp_path)
    with pytest.raises(RuntimeError, match="2 of 2 planned prompts"):
        result_table(prompts, instances, ChosenIous(2))


def test_prompts_of_unknown_annotations_are_refused(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    with pytest.raises(InputError, match="annotation_id: expected annotations of the dataset, found 7"):
        plan(images, instances, prompts.assign(annotation_id=[100, 7]))


def test_shards_are_a_partition() -> None:
    images = pd.DataFrame({"image_id": np.arange(11)})
    parts = [shard_images(images, shard, 4)["image_id"].tolist() for shard in range(4)]
    assert sorted(i for part in parts for i in part) == list(range(11))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_clicks_follow_the_prediction(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    clicks = prompts.iloc[[1]].assign(prompt="click_3", points=[np.array([2, 3], np.float32)], labels=[[np.int8(1)]])
    variant = Stripes([10, 8], [0.9, 0.5])
    score(variant, plan(images, instances, clicks.reset_index(drop=True)), 1, ["argmax"])
    last = variant.seen[-1]
    # The prediction is columns 0-7, the truth 0-4: the error is the stripe 5-7, so the clicks are negative and
    # start in its middle column, at the first of its deepest pixels.
    assert last.labels is not None and last.labels.tolist() == [[1, 0, 0]]
    assert last.points is not None and last.points[0, 1].tolist() == [6, 1]
    assert last.points[0, 2].tolist() == [6, 2], "a pixel is not clicked twice"


def clicks_of(prompts: pd.DataFrame, counts: Sequence[int]) -> pd.DataFrame:
    """The sets click_k of every instance, all with the same first click, at (2, 3)."""
    point, label = np.array([2, 3], np.float32), np.array([1], np.int8)
    boxes = prompts[prompts["prompt"] == "box"]
    rows = [
        boxes.assign(prompt=f"click_{count}", points=[point] * len(boxes), labels=[label] * len(boxes), box=None)
        for count in counts
    ]
    return pd.concat(rows).sort_values("annotation_id", kind="stable").reset_index(drop=True)


class Learner(Stripes):
    """Its token 1 has more columns with every click: `columns[k]` of them after k + 1 clicks."""

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        assert prompts.points is not None
        learned = Stripes([0, self.columns[prompts.points.shape[1] - 1]], [0.9, 0.5])
        self.seen.append(prompts)
        return learned.decode(features, prompts)


def test_sets_of_clicks_are_points_of_one_trajectory(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path, images=2)
    clicks = clicks_of(prompts, [1, 4, 3])
    variant = Learner([10, 2, 4, 5], [])
    together = score(variant, plan(images, instances, clicks), len(clicks), ["argmax"])
    assert together.iou["argmax"].tolist() == 2 * [0.5, 1.0, 0.8]
    assert len(variant.seen) == 2 * 4, "four decodes per image"
    for count, iou in ((1, 0.5), (3, 0.8), (4, 1.0)):
        alone = score(variant, plan(images, instances, clicks_of(prompts, [count])), 2, ["argmax"])
        assert alone.iou["argmax"].tolist() == [iou, iou]


def test_what_stops_a_trajectory_leaves_its_earlier_answers(tmp_path: Path) -> None:
    images, instances, prompts = dataset(tmp_path)
    clicks = clicks_of(prompts, [1, 2, 3])
    variant = Learner([10, 2, 4], [])
    variant.max_points = 2
    scores = score(variant, plan(images, instances, clicks), 3, ["argmax"])
    assert scores.status.tolist() == [OK, OK, UNSUPPORTED_PROMPT]
    assert scores.iou["argmax"][:2].tolist() == [0.5, 0.4]

    class Greedy(Learner):
        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            if len(self.seen) == 1:
                raise MemoryError
            return super().decode(features, prompts)

    scores = score(Greedy([10, 2, 4], []), plan(images, instances, clicks), 3, ["argmax"])
    assert scores.status.tolist() == [OK, OUT_OF_MEMORY, OUT_OF_MEMORY]
    assert scores.iou["argmax"][0] == 0.5


def test_chunks_and_upsampling_slices_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, instances, prompts = dataset(tmp_path, images=3)
    variant = Stripes([10, 2, 4, 7], [0.99, 0.1, 0.2, 0.3])
    whole = score(variant, plan(images, instances, prompts), 6, ["argmax", "oracle"])
    monkeypatch.setattr("sambench.evaluate.segany.UPSAMPLING_BYTES", 1)
    variant.decode_chunk = 1
    parts = score(variant, plan(images, instances, prompts), 6, ["argmax", "oracle"])
    for rule in whole.iou:
        np.testing.assert_array_equal(whole.iou[rule], parts.iou[rule])


def test_blocks_are_planned_once_and_images_come_ahead_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, instances, prompts = dataset(tmp_path, 5)
    prompts = prompts[prompts["image_id"] != 4].sort_values("prompt", ignore_index=True)
    planned: list[int] = []
    monkeypatch.setattr(shard, "plan", lambda *tables: planned.append(len(tables[0])) or plan(*tables))
    blocks = shard.Shard(images, instances, prompts, {}, most=4)
    assert [table["image_id"].tolist() for table in blocks.images] == [[0, 1], [2, 3, 4]]
    blocks.images.append(images.iloc[5:])  # without images
    ahead, seen = prefetch(lambda task: task.path, blocks.tasks(0)), []
    for number in range(len(blocks)):
        block = blocks.take(number)
        seen.append([Path(path).stem for path in islice(ahead, len(block.tasks))])
        assert set(block.instances["image_id"]) == set(block.images["image_id"])
    assert seen == [["0", "1"], ["2", "3"], []] and planned == [2, 3, 0]
    assert blocks.prompted() == 4 and blocks.prompted(0, 1) == 2, "image 4 has no prompts"
    assert sorted(blocks.prompt_rows()) == list(range(8)) and blocks.prompt_rows()[:4].tolist() == [0, 1, 4, 5]
