"""Paired comparisons on constructed results: equal variants, a known shift, better on small and worse on large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sambench import records
from sambench.jobs import Job
from sambench.parquet import write_parquet
from sambench.results import paired
from sambench.results.paired import Scores, System
from sambench.results.statistics import BETTER, UNDECIDED, WORSE
from sambench.results.table import typed
from sambench.results.tables import comparison
from sambench.results.tables.accuracy_categories import SCHEMA as CATEGORIES
from sambench.results.tables.accuracy_categories import of_categories
from sambench.status import NO_WEIGHTS, OK, OUT_OF_MEMORY

BOOTSTRAP = {"resamples": 1000, "seed": 0}
AREAS = np.array([500.0, 5000.0, 50_000.0])  # small, medium, large


def frame(images: int, per_image: int = 5) -> pd.DataFrame:
    """Instances of all sizes, none of them a crowd."""
    count = images * per_image
    return pd.DataFrame(
        {
            "annotation_id": np.arange(count),
            "image_id": np.repeat(np.arange(images) + 100, per_image),
            "category_id": np.arange(count) % 7,
            "area": AREAS[np.arange(count) % 3],
            "iscrowd": False,
        }
    )


def constructed(images: int = 200) -> Scores:
    """`other` is `base` with noise that cancels, `better` one point above, `mixed` better on small, worse on large."""
    random = np.random.default_rng(0)
    instances = frame(images)
    count = len(instances)
    base = random.uniform(40, 80, count)
    noise = random.normal(0, 3, (count, 3))
    noise -= noise.mean(axis=0)
    shift = np.select([instances["area"] == AREAS[0], instances["area"] == AREAS[2]], [3.0, -3.0], 0.0)
    columns = [base, base + noise[:, 0], base + noise[:, 1] + 1, base + noise[:, 2] + shift]
    names = ("base", "other", "better", "mixed")
    systems = tuple(System(name, "eager") for name in names)
    return Scores(instances, systems, np.stack(columns, axis=1), (OK,) * len(systems))


def lines(scores: Scores, *candidates: str, ceilings: set[str] | None = None) -> pd.DataFrame:
    found = comparison.compare(scores, candidates, ceilings or set(), **BOOTSTRAP)
    return typed(found, comparison.SCHEMA).set_index(["subset", "variant"])


def test_constructed_differences() -> None:
    table = lines(constructed(), "base")
    everything = table.loc["all"]
    assert everything["verdict"].to_dict() == {
        "base": comparison.REFERENCE,
        "other": UNDECIDED,
        "better": BETTER,
        "mixed": UNDECIDED,
    }
    assert everything.loc["better", "difference"] == pytest.approx(1.0)
    assert everything.loc["better", "difference_low"] < 1 < everything.loc["better", "difference_high"]
    assert everything.loc["better", "corrected_low"] < everything.loc["better", "difference_low"]
    assert everything.loc["better", ["instances", "images"]].tolist() == [1000, 200]
    assert table.loc[("small", "mixed"), "verdict"] == BETTER
    assert table.loc[("medium", "mixed"), "verdict"] == UNDECIDED
    assert table.loc[("large", "mixed"), "verdict"] == WORSE
    assert "crowd" not in table.index.get_level_values(0), "there are none"
    assert everything["rank"].to_dict() == {"better": 1, "base": 2, "other": 2, "mixed": 2}
    assert (everything["reference"] == "base").all()


def test_the_reference_is_the_first_candidate_with_numbers() -> None:
    scores = constructed(20)
    scores.iou[:, 0] = np.nan
    gone = Scores(scores.instances, scores.systems, scores.iou, (NO_WEIGHTS, OK, OK, OK))
    table = lines(gone, "base", "other", "better").loc["all"]
    assert (table["reference"] == "other").all()
    assert table.loc["base", "status"] == NO_WEIGHTS and pd.isna(table.loc["base", "difference"])
    assert pd.isna(table.loc["base", "rank"])
    assert (lines(gone, "other", "better", ceilings={"other"}).loc["all"]["reference"] == "better").all()
    none = lines(gone, "base").loc["all"]
    assert none["status"].to_dict() == {"base": NO_WEIGHTS} | dict.fromkeys(
        ("other", "better", "mixed"), comparison.NO_REFERENCE
    )
    assert none["miou"].notna().sum() == 3 and none["rank"].notna().sum() == 3


def test_only_prompts_that_both_answered_are_compared() -> None:
    scores = constructed(50)
    scores.iou[::2, 2] = np.nan
    table = lines(scores, "base").loc["all"]
    kept = slice(1, None, 2)
    assert table.loc["better", "difference"] == pytest.approx((scores.iou[kept, 2] - scores.iou[kept, 0]).mean())
    assert table.loc["better", "reference_miou"] == pytest.approx(scores.iou[kept, 0].mean())
    assert table["instances"].to_dict() == {"base": 250, "other": 250, "better": 125, "mixed": 250}


def test_a_ceiling_has_no_rank() -> None:
    table = lines(constructed(50), "base", ceilings={"better"}).loc["all"]
    assert pd.isna(table.loc["better", "rank"]) and table.loc["other", "rank"] == 1
    assert table.loc["better", "verdict"] == BETTER


def test_few_images_say_nothing_of_others() -> None:
    table = lines(constructed(comparison.LEAST - 1), "base").loc["all"]
    better = table.loc["better"]
    assert better["status"] == comparison.FEW_IMAGES and better["verdict"] == UNDECIDED
    assert pd.isna(better["difference_low"]) and better["difference"] > 0 and set(table["rank"]) == {1}


def test_a_subset_of_few_images_has_no_interval() -> None:
    scores = constructed(50)
    scores.instances.loc[[0, 1], "iscrowd"] = True
    table = lines(scores, "base")
    assert table.loc[("crowd", "better"), "status"] == comparison.FEW_IMAGES
    assert pd.isna(table.loc[("crowd", "better"), "corrected_low"])
    assert table.loc[("not crowd", "better"), "verdict"] == BETTER


def test_by_category() -> None:
    scores = constructed(100)
    rare = scores.instances["category_id"].to_numpy() == 3
    scores.iou[rare, 1] += 5
    found = of_categories(scores, {3: "cat"}, ["base"], set(), **BOOTSTRAP)
    table = typed(found, CATEGORIES).set_index(["variant", "category"])
    assert len(table) == 4 * 7
    assert table.loc[("other", "cat"), "verdict"] == BETTER
    assert table.loc["other", "verdict"].value_counts().to_dict() == {UNDECIDED: 6, BETTER: 1}
    assert table.loc[("other", "cat"), "difference"] == pytest.approx(
        (scores.iou[rare, 1] - scores.iou[rare, 0]).mean()
    )
    assert table.loc[("base", "cat"), "verdict"] == comparison.REFERENCE
    own = table.loc[("base", "cat")]
    assert own["miou_low"] < own["miou"] == pytest.approx(scores.iou[rare, 0].mean())
    few = typed(of_categories(constructed(5), {}, ["base"], set(), **BOOTSTRAP), CATEGORIES)
    assert set(few["status"]) == {comparison.FEW_IMAGES} and few["miou_low"].isna().all()
    gone = constructed(100)
    gone.iou[:, 3] = np.nan
    lines = typed(of_categories(gone, {}, ["mixed"], set(), **BOOTSTRAP), CATEGORIES)
    assert (lines["variant"] == "mixed").sum() == 1 and set(lines.loc[lines["variant"] == "base", "status"]) == {
        comparison.NO_REFERENCE
    }


def write_results(folder: Path, name: str, iou: list[float], *, order: list[int], status: str = OK) -> dict[str, Any]:
    """A file of segany for two images in one shard each, and the plan that reads it."""
    rows = frame(2, 2).iloc[order].assign(prompt="box", iou=iou, predicted_iou=np.float32(0.5), selected_token=1)
    rows = rows.assign(iou_single=0.1, iou_oracle=1.0, boundary_iou=0.2, status=status)
    scored = ["iou", "iou_single", "iou_oracle", "boundary_iou", "predicted_iou", "selected_token"]
    files = Job("d", name, "eager", "g").shard_files(folder, 2)
    for shard, file in enumerate(files):
        part = rows[rows["image_id"] == 100 + shard]
        other = part.assign(prompt="random_1", iou=0.0)
        both = pd.concat([part, other])[records.SEGANY.names]
        both[scored] = both[scored].where(both["status"] == OK)
        write_parquet(Path(file), both, records.SEGANY, {})
    return {
        "shards": {"d": 2},
        "groups": {"g": ["box", "random_1"], "other": []},
        "jobs": [["d", "a", "eager", "g"], ["d", "b", "eager", "g"], ["e", "b", "eager", "other"]],
        "untrained": {
            "fill": "sambench.variants.baselines:BoxFill",
            "truth": "sambench.variants.baselines:GroundTruth",
        },
        "bootstrap": BOOTSTRAP,
    }


def test_scores_are_read_on_the_same_prompts(tmp_path: Path) -> None:
    write_results(tmp_path, "a", [0.1, 0.2, 0.3, 0.4], order=[0, 1, 2, 3])
    plan = write_results(tmp_path, "b", [0.2, 0.1, 0.3, 0.4], order=[1, 0, 2, 3])
    scores = paired.read_scores(tmp_path, plan, "d", "g", "box")
    assert scores.iou.T.tolist() == [pytest.approx([10, 20, 30, 40])] * 2, "whatever the order of the rows"
    assert scores.statuses == (OK, OK) and [str(system) for system in scores.systems] == ["a @ eager", "b @ eager"]
    single = paired.read_scores(tmp_path, plan, "d", "g", "box", systems=[("b", "eager")], selection="single")
    assert single.iou.T.tolist() == [pytest.approx([10.0] * 4)]
    write_results(tmp_path, "b", [0.1, 0.2, 0.3, 0.4], order=[0, 1, 2, 3], status=OUT_OF_MEMORY)
    gone = paired.read_scores(tmp_path, plan, "d", "g", "box")
    assert gone.scored() == [System("a", "eager")] and gone.statuses == (OK, OUT_OF_MEMORY)
    assert paired.ceilings(plan) == {"truth"}
    settings = {"plan": plan, "references": ["a"]}
    table = comparison.TABLE.build(tmp_path, settings)
    assert table.groupby("prompt", sort=False).size().to_dict() == {"box": 8, "random_1": 8}
