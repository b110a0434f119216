"""Masks of detector boxes and their average precision, against hand-computed values and pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sambench import masks, records
from sambench.datasets import coco
from sambench.evaluate.detections import DetectedMasks, box_ious, box_prompts, instance_of
from sambench.evaluate.instances import box_precision, mask_precision, truth_of
from sambench.evaluate.segany import NOTHING, ChosenIous, evaluate, plan
from sambench.jobs import Job
from sambench.parquet import read_parquet, write_parquet
from sambench.results.tables.average_precision import beside_boxes
from sambench.status import OK, OUT_OF_MEMORY
from sambench.variants.base import MaskCandidates, Prompts, Runtime, Upsampling, Variant
from sambench.variants.baselines import BoxFill, GroundTruth

HEIGHT, WIDTH = 20, 30
IMAGES = [1, 2, 3]
# image, category, x, y, w, h: two instances of category 1 beside each other, one of category 2, none on image 3.
TRUTH = [(1, 1, 0, 0, 10, 10), (1, 1, 12, 0, 10, 10), (2, 2, 5, 5, 20, 10)]


def boxes(*rows: tuple[float, ...]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["image_id", "category_id", "x", "y", "w", "h", "score"])
    return table.astype({"image_id": "int64", "category_id": "int64"})


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """An annotation file, and the tables of its images and instances; a mask lacks the top left quarter of its box."""
    rows, annotations = [], []
    for number, (image, category, x, y, w, h) in enumerate(TRUTH, start=1):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[y : y + h, x : x + w] = True
        mask[y : y + h // 2, x : x + w // 2] = False
        rle = {"size": [HEIGHT, WIDTH], "counts": masks.encode_rle(mask).decode()}
        facts = {"image_id": image, "category_id": category, "area": float(mask.sum())}
        annotations.append({"id": number, **facts, "bbox": [x, y, w, h], "iscrowd": 0, "segmentation": rle})
        size = {"rle_size": [HEIGHT, WIDTH], "rle_counts": masks.encode_rle(mask)}
        rows.append({"annotation_id": number, **facts, "x": x, "y": y, "w": w, "h": h, "iscrowd": False, **size})
    paths = [tmp_path / f"{image}.png" for image in IMAGES]
    for path in paths:
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
    document = {
        "images": [
            {"id": i, "file_name": p.name, "height": HEIGHT, "width": WIDTH} for i, p in zip(IMAGES, paths, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    }
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(document))
    images = pd.DataFrame({"image_id": IMAGES, "path": map(str, paths), "width": WIDTH, "height": HEIGHT})
    return file, images, pd.DataFrame(rows)


FOUND = boxes(
    (1, 1, 0, 0, 10, 10, 0.9),  # right
    (1, 1, 13, 1, 10, 10, 0.8),  # a little off
    (1, 2, 0, 0, 10, 10, 0.7),  # right place, wrong category
    (2, 2, 5, 5, 20, 10, 0.6),
    (3, 1, 2, 2, 5, 5, 0.95),  # nothing there
)


def decode(variant: Variant, found: dict[str, pd.DataFrame], images: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The table of masks, as the stage makes it."""
    planned = box_prompts(found, truth if variant.uses_ground_truth else None)
    outcome = DetectedMasks(len(planned), 0, ["argmax", "single", "oracle"])
    evaluate(variant, plan(images, truth, planned), ChosenIous(0), outcome)
    return outcome.table(planned, images)


def reference(annotations: Path, results: list[dict[str, Any]], iou_type: str) -> list[float]:
    """AP, AP50, AP75 in per cent by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value for value in evaluation.stats[:3]]


def test_masks_of_boxes_and_their_ap_are_those_of_pycocotools(dataset: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    file, images, instances = dataset
    table = decode(BoxFill(Runtime(device="cpu")), {"d": FOUND}, images, instances)
    assert table["selection"].tolist() == ["argmax"] * 5 + ["single"] * 5, "oracle is no rule for masks without truth"
    assert table["score"].tolist() == FOUND["score"].tolist() * 2 and table["detector"].eq("d").all()
    first = table[table["selection"] == "argmax"]
    for row, box in zip(first.itertuples(), FOUND.itertuples(), strict=True):
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[int(box.y) : int(box.y + box.h), int(box.x) : int(box.x + box.w)] = True
        assert (row.image_id, row.category_id) == (box.image_id, box.category_id)
        np.testing.assert_array_equal(masks.decode_rle(row.rle_size, row.rle_counts), expected)

    results = [
        {"image_id": r.image_id, "category_id": r.category_id, "score": r.score}
        | {"segmentation": {"size": list(r.rle_size), "counts": r.rle_counts.decode()}}
        for r in first.itertuples()
    ]
    truth = truth_of(file, "segm", images)
    # Shard by shard, as the stage writes them.
    shards = [(ids, table[table["image_id"].isin(ids)]) for ids in ([1, 3], [2])]
    lines = mask_precision(truth, [("d", "argmax"), ("d", "single")], shards)
    line = lines["d", "argmax"]
    assert [line["ap"], line["ap50"], line["ap75"]] == pytest.approx(reference(file, results, "segm"), abs=1e-9)
    assert 0 < line["ap"] < 100 and line["detections"] == 5 and line["status"] == OK
    assert "ap_rare" not in line and "ap_large" not in line, "absent where nothing is of the kind"
    assert lines["d", "single"] == line, "one token, whatever the rule"


def test_the_ap_of_boxes_is_that_of_pycocotools(dataset: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    file, images, _ = dataset
    results = [
        {"image_id": r.image_id, "category_id": r.category_id, "score": r.score, "bbox": [r.x, r.y, r.w, r.h]}
        for r in FOUND.itertuples()
    ]
    scores = box_precision(truth_of(file, "bbox", images), FOUND)
    expected = reference(file, results, "bbox")
    assert [scores["ap"], scores["ap50"], scores["ap75"]] == pytest.approx(expected, abs=1e-9)
    agnostic = box_precision(truth_of(file, "bbox", images), FOUND, class_agnostic=True)
    assert agnostic["ap"] != scores["ap"]


def test_only_the_indexed_images_count(dataset: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    file, images, _ = dataset
    alone = images[images["image_id"] == 2]
    scores = box_precision(truth_of(file, "bbox", alone), FOUND[FOUND["image_id"] == 2])
    assert scores["ap"] == pytest.approx(100)


def test_oracle_answers_a_box_with_the_instance_it_overlaps_most(
    dataset: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    file, images, instances = dataset
    assert instance_of(FOUND, instances).tolist() == [1, 2, NOTHING, 3, NOTHING]
    between = boxes((1, 1, 6, 0, 10, 10, 0.5), (1, 1, 7, 0, 10, 10, 0.5), (1, 1, 25, 15, 2, 2, 0.5))
    assert instance_of(between, instances).tolist() == [1, 2, NOTHING]
    table = decode(GroundTruth(Runtime(device="cpu")), {"d": FOUND}, images, instances)
    areas = [masks.decode_rle(r.rle_size, r.rle_counts).sum() for r in table.head(5).itertuples()]
    assert areas == [75, 75, 0, 150, 0]
    line = mask_precision(truth_of(file, "segm", images), [("d", "argmax")], [(IMAGES, table)])["d", "argmax"]
    # Every instance is found, after one false alarm in each category: precision 2/3 and 1/2 at every recall.
    assert line["ap"] == pytest.approx((100 * 2 / 3 + 50) / 2, abs=0.01)


def test_boxes_that_share_no_area_have_no_overlap() -> None:
    a, b = np.array([[0.0, 0, 4, 4], [0, 0, 0, 0]]), np.array([[2.0, 0, 4, 4], [4, 0, 4, 4], [0, 0, 0, 0]])
    np.testing.assert_allclose(box_ious(a, b), [[8 / 24, 0, 0], [0, 0, 0]])


class TwoTokens(Variant):
    """Token 0 is the whole image, token 1 its left half; the multimask token is the second."""

    prompt_kinds = frozenset({"box"})

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        return [image.shape[:2] for image in prepared]

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        if len(prompts) and prompts.boxes is not None and prompts.boxes[0, 0] == 5:
            raise MemoryError
        found = torch.ones(len(prompts), 2, *features, dtype=torch.bool)
        found[:, 1, :, features[1] // 2 :] = False
        scores = torch.tensor([0.2, 0.7]).expand(len(prompts), -1)
        return MaskCandidates(found, scores, (1,), torch.zeros(len(prompts), dtype=torch.int64), Upsampling(features))


def test_each_rule_has_its_own_mask_and_want_of_memory_is_a_status(
    dataset: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    file, images, instances = dataset
    table = decode(TwoTokens(), {"d": FOUND}, images, instances)
    areas = {
        rule: [masks.decode_rle(r.rle_size, r.rle_counts).sum() for r in rows.itertuples() if r.status == OK]
        for rule, rows in table.groupby("selection")
    }
    assert areas == {"argmax": [HEIGHT * WIDTH // 2] * 4, "single": [HEIGHT * WIDTH] * 4}
    np.testing.assert_allclose(table.head(3)["predicted_iou"], 0.7)
    np.testing.assert_allclose(table["predicted_iou"].iloc[5:8], 0.2)
    assert table["status"].tolist() == [OK, OK, OK, OUT_OF_MEMORY, OK] * 2
    assert table["rle_counts"].isna().tolist() == [False, False, False, True, False] * 2
    line = mask_precision(truth_of(file, "segm", images), [("d", "argmax")], [(IMAGES, table)])["d", "argmax"]
    assert line["status"] == "out of memory: 1 of 5" and line["detections"] == 5


def test_prompts_from_ground_truth_and_boxes_share_one_encoding(
    dataset: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    _, images, instances = dataset
    encoded = []

    class Counting(BoxFill):
        def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
            encoded.append(len(prepared))
            return super().encode_prepared(prepared)

    edges = [np.array([x, y, x + w, y + h], np.float32) for _, _, x, y, w, h in TRUTH]
    prompts = instances[["annotation_id", "image_id"]].assign(prompt="box", points=None, labels=None, detected=False)
    prompts["box"] = edges
    planned = pd.concat([prompts, box_prompts({"d": FOUND, "e": FOUND})], ignore_index=True)
    scores, outcome = ChosenIous(3), DetectedMasks(10, 3, ["argmax"])
    evaluate(Counting(Runtime(device="cpu")), plan(images, instances, planned), scores, outcome)
    np.testing.assert_allclose(scores.iou["argmax"], 0.75)
    table = outcome.table(planned.iloc[3:].reset_index(drop=True), images)
    assert table["detector"].tolist() == ["d"] * 5 + ["e"] * 5 and table["rle_counts"].notna().all()
    assert sum(encoded) == 3


def test_a_box_that_was_not_decoded_is_refused(dataset: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    _, images, _ = dataset
    planned = box_prompts({"d": FOUND})
    with pytest.raises(RuntimeError, match="5 of 5 boxes"):
        DetectedMasks(5, 0, ["argmax"]).table(planned, images)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_boxes_that_lvis_does_not_judge_are_not_decoded_and_change_nothing(
    dataset: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path, class_agnostic: bool
) -> None:
    """The stages themselves: on image 2 nobody looked for category 1, on image 3 for nothing."""
    file, _, _ = dataset
    document = json.loads(file.read_text())
    for image, absent in zip(document["images"], ([2], [], [1]), strict=True):
        image |= {"neg_category_ids": absent, "not_exhaustive_category_ids": []}
    for category in document["categories"]:
        category["frequency"] = "f"
    file.write_text(json.dumps(document))
    index = coco.index(file, tmp_path)
    boxes_found = pd.concat([FOUND, boxes((2, 1, 5, 5, 20, 10, 0.99), (3, 2, 2, 2, 5, 5, 0.9))], ignore_index=True)
    empty = pd.DataFrame(columns=records.PROMPTS.names)
    files = {name: tmp_path / f"{name}.parquet" for name in ("images", "instances", "prompts", "found")}
    for (name, schema), table in zip(
        {"images": records.IMAGES, "instances": records.INSTANCES, "prompts": records.PROMPTS}.items(),
        (index.images, index.instances, empty),
        strict=True,
    ):
        write_parquet(files[name], table, schema, {})
    write_parquet(files["found"], boxes_found, records.BOXES, {})
    card = {"builder": "sambench.variants.baselines:BoxFill", "prompts": ["box"]}
    model = {"name": "box_fill", "card": card, "runtime": {"name": "eager", "device": "cpu"}, "weights": []}
    answers = {}
    for keep in (True, False):
        outputs = {name: tmp_path / f"{name}_{keep}.parquet" for name in ("segany", "masks", "precision")}
        script("segany")(
            model=model,
            threads=1,
            images=files["images"],
            instances=files["instances"],
            prompts=files["prompts"],
            selections=["argmax"],
            shard="0-of-1",
            segany=outputs["segany"],
            detectors={"d": files["found"]},
            keep_unjudged=keep,
            masks=outputs["masks"],
        )
        script("average_precision")(
            dataset="tiny",
            annotations=file,
            images=files["images"],
            detectors={"d": files["found"]},
            class_agnostic=class_agnostic,
            precision=outputs["precision"],
            masks=[outputs["masks"]],
            selections=["argmax"],
            keep_unjudged=keep,
        )
        (line,) = read_parquet(outputs["precision"], records.AVERAGE_PRECISION_MASKS).to_pylist()
        answers[keep] = line
    assert (answers[True].pop("detections"), answers[False].pop("detections")) == (7, 5)
    assert answers[True] == answers[False]
    assert 0 < answers[True]["ap"] < 100


def script(name: str) -> Callable[..., None]:
    """The function of a stage's script."""
    main: Callable[..., None] = runpy.run_path(str(Path(__file__).parents[2] / f"workflow/scripts/{name}.py"))["main"]
    return main


def test_the_table_puts_the_variants_of_a_detector_together() -> None:
    part = pd.DataFrame({"dataset": "set", "detector": ["d", "e"], "selection": "argmax", "ap": [10.0, 20.0]})
    for name in ("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ap_rare", "ap_common", "ap_frequent"):
        part[name] = np.nan
    part[["detections", "images", "rules", "boxes_sha256", "status"]] = [1, 1, "COCO", "abc", OK]
    detectors = pd.DataFrame({"dataset": "set", "detector": ["d", "e"], "ap": [30.0, 40.0]})
    jobs = [(Job("set", variant, "eager", "detectors"), part) for variant in ("v", "w")]
    table = beside_boxes(jobs, detectors)
    assert table[["detector", "variant", "ap", "box_ap"]].to_numpy().tolist() == [
        ["d", "v", 10.0, 30.0],
        ["d", "w", 10.0, 30.0],
        ["e", "v", 20.0, 40.0],
        ["e", "w", 20.0, 40.0],
    ]
