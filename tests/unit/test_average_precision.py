"""Average precision against pycocotools and lvis: precision, recall and statistics equal to the bit."""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lvis import LVIS as LvisApi
from lvis import LVISEval, LVISResults
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval

from sambench.evaluate.average_precision import BBOX, SEGM, Evaluator, Scores
from sambench.evaluate.judged import judged
from sambench.evaluate.rules import COCO, LVIS, Rules
from sambench.evaluate.score import Truth

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning"),  # of loggers, in lvis
]

HEIGHT, WIDTH = 24, 32
GEOMETRY = {BBOX: "bbox", SEGM: "segmentation"}
Dataset = dict[str, list[dict[str, Any]]]
Results = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def numpy_for_lvis(monkeypatch: pytest.MonkeyPatch) -> None:
    """lvis 0.5.3 uses np.float, which NumPy removed."""
    monkeypatch.setattr(np, "float", float, raising=False)


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()}


def adversarial(seed: int, images: int = 10, detections: int | None = None) -> tuple[Dataset, Results]:
    """Everything at once: tied scores, duplicates, empty and full masks, annotations of area 0 or of another area than
    their mask's, crowd, images without ground truth or without detections, a category that no image has, negative and
    not exhaustively annotated categories, ids in no order."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 * i + 1, "name": str(i), "frequency": "rcf"[i % 3]} for i in range(5)]
    ids = [category["id"] for category in categories]
    document: Dataset = {"images": [], "annotations": [], "categories": categories}
    results: Results = []
    for number in rng.permutation(images):
        image = {"id": 7 * int(number) + 2, "height": HEIGHT, "width": WIDTH}
        image["neg_category_ids"] = rng.choice(ids, 1).tolist()
        image["not_exhaustive_category_ids"] = rng.choice(ids[:4], 1).tolist()
        document["images"].append(image)
        objects = []
        for _ in range(rng.integers(1, 7) if rng.random() < 0.75 else 0):
            left, top = rng.integers(WIDTH - 2), rng.integers(HEIGHT - 2)
            width, height = rng.integers(1, WIDTH - left), rng.integers(1, HEIGHT - top)
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[top : top + height, left : left + width] = rng.random((height, width)) < rng.choice([0.8, 1, 1])
            area = float(mask.sum()) * rng.choice([0, 1, 1, 1, 1, 20, 60])
            mask &= rng.random() < 0.9
            objects.append((mask, [float(left), float(top), float(width), float(height)], int(rng.choice(ids[:4]))))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": objects[-1][2],
                    "area": area,
                    "iscrowd": int(rng.random() < 0.2),
                    "bbox": objects[-1][1],
                    "segmentation": rle(mask),
                }
            )
        for _ in range(rng.integers(12) if detections is None else detections):
            mask, box = rng.random((HEIGHT, WIDTH)) < rng.choice([0, 0.1, 0.9, 1]), rng.integers(15, size=4).tolist()
            category = int(rng.choice(ids))
            if objects and rng.random() < 0.7:
                mask, box, its = objects[rng.integers(len(objects))]
                mask = np.roll(mask, rng.integers(-2, 3, 2), (0, 1)) if rng.random() < 0.6 else mask
                box = [box[0] + int(rng.integers(-1, 2)), *box[1:]]
                category = its if rng.random() < 0.8 else category
            score = float(rng.choice([0.1, 0.5, 0.5, 0.9, round(rng.random(), 2)]))
            result = {"image_id": image["id"], "category_id": category, "score": score}
            results += [result | {"bbox": box, "segmentation": rle(mask)}] * (2 if rng.random() < 0.15 else 1)
    rng.shuffle(results)
    return document, results


def ours(
    document: Dataset, results: Results, iou_type: str, rules: Rules, class_agnostic: bool = False, shards: int = 1
) -> Scores:
    """Images dealt out to evaluators, whose states are merged."""
    evaluators = [
        Evaluator(document["categories"], iou_type, rules, class_agnostic=class_agnostic) for _ in range(shards)
    ]
    for i, image in enumerate(document["images"]):
        annotations, detections = (
            [entry for entry in entries if entry["image_id"] == image["id"]]
            for entries in (document["annotations"], results)
        )
        evaluators[i % shards].add(image, annotations, detections)
    first, *others = evaluators
    first.absorb(evaluator.state() for evaluator in others)
    return first.finish()


def only(results: Results, iou_type: str) -> Results:
    """Results for the references, which take areas from a box wherever there is one."""
    kept = ("image_id", "category_id", "score", GEOMETRY[iou_type])
    return [{name: copy.deepcopy(result[name]) for name in kept} for result in results]


def pycocotools(document: Dataset, results: Results, iou_type: str, class_agnostic: bool = False) -> Scores:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = CocoApi()
        reference.dataset = copy.deepcopy(document) | {"info": {}}
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(only(results, iou_type)), iou_type)
        evaluation.params.useCats = int(not class_agnostic)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Scores(dict(enumerate(evaluation.stats.tolist())), evaluation.eval["precision"], evaluation.eval["recall"])


class Repaired(LVISEval):
    """lvis without the misprint that makes use_cats = 0 find nothing."""

    def _get_gt_dt(self, img_id: int, cat_id: int) -> tuple[list, list]:
        if self.params.use_cats:
            return super()._get_gt_dt(img_id, cat_id)
        return tuple(
            [entry for each in self.params.cat_ids for entry in of[img_id, each]] for of in (self._gts, self._dts)
        )


def lvis(document: Dataset, results: Results, iou_type: str, folder: Path, class_agnostic: bool = False) -> Scores:
    path = folder / "lvis.json"
    path.write_text(json.dumps(document))
    reference = LvisApi(str(path))
    evaluation = Repaired(reference, LVISResults(reference, only(results, iou_type)), iou_type)
    evaluation.params.use_cats = int(not class_agnostic)
    evaluation.evaluate()
    evaluation.accumulate()
    if not class_agnostic:
        evaluation.summarize()
    precision, recall = (evaluation.eval[name][..., None] for name in ("precision", "recall"))
    return Scores(dict(enumerate(map(float, evaluation.results.values()))), precision, recall)


def assert_identical(found: Scores, expected: Scores) -> None:
    np.testing.assert_array_equal(found.precision, expected.precision, strict=True)
    np.testing.assert_array_equal(found.recall, expected.recall, strict=True)
    if expected.statistics:
        assert list(found.statistics.values()) == list(expected.statistics.values())
    assert (expected.precision[..., 0, :] > 0).any()  # something was found, so that equality says something


@pytest.mark.parametrize("iou_type", [BBOX, SEGM])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_coco_equals_pycocotools(seed: int, iou_type: str, class_agnostic: bool) -> None:
    document, results = adversarial(seed)
    found = ours(document, results, iou_type, COCO, class_agnostic, shards=1 + seed)
    assert_identical(found, pycocotools(document, results, iou_type, class_agnostic))


@pytest.mark.parametrize("iou_type", [BBOX, SEGM])
@pytest.mark.parametrize("seed", range(4))
def test_lvis_equals_lvis(seed: int, iou_type: str, tmp_path: Path) -> None:
    document, results = adversarial(seed)
    found = ours(document, results, iou_type, LVIS, shards=1 + seed)
    assert_identical(found, lvis(document, results, iou_type, tmp_path))
    assert list(found.statistics)[6:10] == ["ap_rare", "ap_common", "ap_frequent", "ar_300"]


@pytest.mark.parametrize("iou_type", [BBOX, SEGM])
def test_more_detections_than_are_looked_at(iou_type: str, tmp_path: Path) -> None:
    document, results = adversarial(5, images=4, detections=400)
    assert_identical(ours(document, results, iou_type, COCO), pycocotools(document, results, iou_type))
    assert_identical(ours(document, results, iou_type, LVIS), lvis(document, results, iou_type, tmp_path))


@pytest.mark.parametrize(("better", "expected"), [(299, 1), (300, 0)])
def test_lvis_takes_300_of_an_image_before_it_judges(better: int, expected: float, tmp_path: Path) -> None:
    """Detections that are not judged, or are empty, take the place of worse ones all the same."""
    image = {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    found = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 10, 10]}
    unjudged, empty = found | {"category_id": 2, "score": 0.9}, found | {"score": 0.9, "bbox": [0, 0, 0, 10]}
    document = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "area": 100.0, "bbox": [0, 0, 10, 10]}],
        "categories": [{"id": i, "frequency": "f"} for i in (1, 2)],
    }
    results = [found] + [unjudged] * (better - 100) + [empty] * 100
    scores = ours(document, results, BBOX, LVIS)
    assert scores.statistics["ap"] == pytest.approx(expected)
    np.testing.assert_array_equal(scores.precision, lvis(document, results, BBOX, tmp_path).precision)


def without_unjudged(document: Dataset, results: Results, rules: Rules, class_agnostic: bool) -> Results:
    annotations = collections.defaultdict(list)
    for annotation in document["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    truth = Truth({image["id"]: image for image in document["images"]}, annotations, document["categories"], rules)
    table = pd.DataFrame(results, columns=["image_id", "category_id", "score"])
    kept = judged(truth, table, class_agnostic=class_agnostic)
    return [result for result, keep in zip(results, kept, strict=True) if keep]


@pytest.mark.parametrize("rules", [COCO, LVIS], ids=["coco", "lvis"])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("detections", [None, 600])
def test_boxes_that_are_not_judged_change_nothing(rules: Rules, class_agnostic: bool, detections: int | None) -> None:
    document, results = adversarial(11, images=3 if detections else 10, detections=detections)
    kept = without_unjudged(document, results, rules, class_agnostic)
    by_category = without_unjudged(document, results, rules, class_agnostic=False)
    if rules is LVIS or detections:
        assert len(kept) < len(results)
    for iou_type in (BBOX, SEGM):
        whole = ours(document, results, iou_type, rules, class_agnostic)
        assert_identical(ours(document, kept, iou_type, rules, class_agnostic), whole)
        # What is decoded must do for both.
        assert_identical(ours(document, by_category, iou_type, rules, class_agnostic), whole)


@pytest.mark.parametrize("iou_type", [BBOX, SEGM])
def test_lvis_itself_does_not_miss_the_boxes_that_are_not_judged(iou_type: str, tmp_path: Path) -> None:
    document, results = adversarial(12, images=3, detections=400)
    kept = without_unjudged(document, results, LVIS, False)
    assert_identical(lvis(document, kept, iou_type, tmp_path), lvis(document, results, iou_type, tmp_path))


def test_what_is_judged_by_hand() -> None:
    """The cap of an image comes before the categories: box 301 has no chance, even if none before it is judged."""
    image = {"id": 1, "neg_category_ids": [3]}
    annotations = {1: [{"category_id": 1, "area": 9.0}, {"category_id": 4, "area": 0}]}
    categories = [{"id": i, "frequency": "f"} for i in range(1, 6)]
    table = pd.DataFrame({"image_id": 1, "category_id": [1, 2, 3, 4] * 80, "score": [0.5] * 320})
    table.loc[319, ["category_id", "score"]] = [1, 0.9]
    kept = judged(Truth({1: image}, annotations, categories, LVIS), table)
    known = table["category_id"].isin([1, 3]).to_numpy()
    assert np.array_equal(
        np.flatnonzero(kept), np.flatnonzero(known & ((np.arange(320) < 299) | (np.arange(320) == 319)))
    )
    by_category = judged(Truth({1: image}, annotations, categories, COCO), table)
    assert by_category.all()
    assert judged(Truth({1: image}, annotations, categories, COCO), table, class_agnostic=True).all(), "all are tied"
    table["score"] = np.linspace(0, 1, 320)
    best = judged(Truth({1: image}, annotations, categories, COCO), table, class_agnostic=True)
    assert np.array_equal(best, np.arange(320) >= 220)
    assert judged(Truth({1: image}, {}, categories, COCO), table.iloc[:0]).shape == (0,)


@pytest.mark.parametrize("iou_type", [BBOX, SEGM])
def test_class_agnostic_lvis_is_lvis_with_all_categories_exhaustive(iou_type: str, tmp_path: Path) -> None:
    document, results = adversarial(6)
    found = ours(document, results, iou_type, LVIS, class_agnostic=True)
    for image in document["images"]:
        image["not_exhaustive_category_ids"] = []
    assert_identical(found, lvis(document, results, iou_type, tmp_path, class_agnostic=True))
    assert "ap_rare" not in found.statistics


@pytest.mark.slow
@pytest.mark.parametrize("iou_type", [BBOX, SEGM])
def test_real_lvis_annotations(shared: Path, iou_type: str, tmp_path: Path) -> None:
    """LVIS v0.5 with detections made of its annotations, moved, mistaken, and of anything."""
    document = json.loads((shared / "data/eval_fixtures/lvis_v0.5/lvis_val_100.json").read_text())
    rng = np.random.default_rng(0)
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    negative = {image["id"]: image["neg_category_ids"] for image in document["images"]}
    results: Results = []
    for annotation in document["annotations"]:
        image_id = annotation["image_id"]
        height, width = sizes[image_id]
        for _ in range(3):
            polygons = [(np.array(each) + rng.normal(0, 2)).tolist() for each in annotation["segmentation"]]
            drawn = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
            category = int(rng.choice([annotation["category_id"]] * 4 + (negative[image_id] or [1]) + [7]))
            box = (np.array(annotation["bbox"]) + rng.normal(0, 2, 4)).clip(0).tolist()
            mask = {"size": [height, width], "counts": drawn["counts"].decode()}
            results.append(
                {
                    "image_id": image_id,
                    "category_id": category,
                    "score": round(rng.random(), 1),
                    "bbox": box,
                    "segmentation": mask,
                }
            )
    kept = without_unjudged(document, results, LVIS, False)
    assert len(kept) < len(results)
    assert_identical(ours(document, kept, iou_type, LVIS), ours(document, results, iou_type, LVIS))
    assert_identical(ours(document, results, iou_type, LVIS, shards=3), lvis(document, results, iou_type, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["nanodet_m_416_bbox", "yolov5n_fp16_bbox", "yolov8n_int8_bbox", "yolov8n-seg_int8_segm_and_bbox"]
)
def test_real_detectors(shared: Path, name: str) -> None:
    folder = shared / "data"
    (truth,) = (folder / "coco_val2017_subset/annotations").glob("instances*.json")
    document = json.loads(truth.read_text())
    results = json.loads((folder / "detections_coco_val2017_subset" / f"{name}.json").read_text())
    for iou_type in (BBOX, SEGM) if "segmentation" in results[0] else (BBOX,):
        assert_identical(ours(document, results, iou_type, COCO), pycocotools(document, results, iou_type))


def test_by_hand() -> None:
    """Two objects; detections by score: found, wrong, found. Precision is 1 up to recall 1/2, then 2/3."""
    image = {"id": 1}
    annotations = [
        {"id": i + 1, "category_id": 1, "area": 100.0, "bbox": [20 * i, 0, 10, 10], "iscrowd": 0} for i in range(2)
    ]
    detections = [
        {"category_id": 1, "score": score, "bbox": [x, 0, 10, 10]} for score, x in ((0.9, 0), (0.8, 100), (0.7, 20))
    ]
    evaluator = Evaluator([{"id": 1}], BBOX)
    evaluator.add(image, annotations, detections)
    statistics = evaluator.finish().statistics
    # 101 recalls: 0, 0.01 ... 0.50 lie in the first half.
    assert statistics["ap"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert statistics["ar_1"] == 0.5 and statistics["ar_10"] == 1
    assert statistics["ap_small"] == statistics["ap"] and statistics["ap_large"] == -1


def test_a_box_beside_the_mask_does_not_count() -> None:
    document, results = adversarial(7)
    plain = ours(document, only(results, SEGM), SEGM, COCO)
    for result in results:
        result["bbox"] = [0, 0, 1000, 1000]
    assert_identical(ours(document, results, SEGM, COCO), plain)


def test_the_annotation_with_id_0_can_be_found() -> None:
    """The references take its id for "nothing found"."""
    annotations = [{"id": 0, "image_id": 1, "category_id": 1, "area": 100.0, "bbox": [0, 0, 10, 10], "iscrowd": 0}]
    results = [{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 10, 10]}]
    document = {"images": [{"id": 1}], "annotations": annotations, "categories": [{"id": 1}]}
    assert ours(document, results, BBOX, COCO).statistics["ap"] == pytest.approx(1)
    assert pycocotools(document, results, BBOX).statistics[0] == 0


def test_nothing_detected() -> None:
    document, _ = adversarial(8)
    for rules in (COCO, LVIS):
        found = ours(document, [], SEGM, rules)
        assert found.statistics["ap"] == found.statistics["ap50"] == 0
        assert (found.precision[:, :, :4, 0] <= 0).all()
        assert (found.precision[:, :, 4] == -1).all()  # the category that no image has


def test_shards_do_not_merge_with_other_rules() -> None:
    document, _ = adversarial(0)
    coco, other = (Evaluator(document["categories"], SEGM, rules) for rules in (COCO, LVIS))
    with pytest.raises(ValueError, match=r"lvis_style|params"):
        coco.absorb([other.state()])
    with pytest.raises(ValueError):
        coco.absorb([pickle.dumps("damaged")])


def test_unknown_categories_are_refused() -> None:
    evaluator = Evaluator([{"id": 1}], BBOX)
    evaluator.add({"id": 1}, [], [{"category_id": 2, "score": 0.5, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(KeyError, match="2"):
        evaluator.finish()
