"""`sambench compare` and `sambench recommend` on constructed results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as mask_utils

from sambench import cli, records
from sambench.errors import InputError
from sambench.jobs import Job, instances_file
from sambench.parquet import write_parquet
from sambench.results import decide, pictures
from sambench.results.finished import Finished, category_names, find_study
from sambench.results.statistics import BETTER, UNDECIDED, WORSE
from sambench.results.table import find_table, typed
from sambench.status import OK

IMAGES, PER_IMAGE = 200, 4
AREAS = np.array([500.0, 5000.0, 50_000.0])
DRAWS = {"resamples": 500, "seed": 0}


def rows(iou: np.ndarray, prompt: str = "box") -> pd.DataFrame:
    """The records of segany for 200 images of 4 instances."""
    count = IMAGES * PER_IMAGE
    columns = {
        "annotation_id": np.arange(count),
        "image_id": np.repeat(np.arange(IMAGES), PER_IMAGE),
        "category_id": np.arange(count) % 2 + 1,
        "area": AREAS[np.arange(count) % 3],
        "iscrowd": False,
        "prompt": prompt,
        "iou": iou,
        "iou_single": iou,
        "iou_oracle": iou,
        "boundary_iou": iou,
        "predicted_iou": np.float32(0.9),
        "selected_token": np.int8(1),
        "status": OK,
    }
    return pd.DataFrame(columns)


def study(results: Path, name: str, iou: Mapping[str, np.ndarray], costs: Mapping[str, Any] | None = None) -> Finished:
    """A study that has run: per-instance results, the values of the job that compares, and the summary."""
    plan = {
        "shards": {"d": 1},
        "groups": {"g": ["box"]},
        "jobs": [["d", variant, "eager", "g"] for variant in iou],
        "untrained": {},
        "bootstrap": DRAWS,
    }
    for variant, values in iou.items():
        (file,) = Job("d", variant, "eager", "g").shard_files(results, 1)
        write_parquet(Path(file), rows(values), records.SEGANY, {})
    record = results / "logs" / "tables" / name / "comparison.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"arguments": {"settings": {"plan": plan}}}))
    table = find_table("summary")
    lines = [
        {"dataset": "d", "variant": variant, "runtime": "eager", "licence_code": "MIT", "licence_weights": "MIT"}
        | {"weights": "official file", "ap": [], "ar_1000": [], "everything_ms": [], "status": OK}
        | dict((costs or {}).get(variant, {}))
        for variant in iou
    ]
    write_parquet(Path(table.file(results / name)), typed(lines, table.schema), table.schema, {})
    return find_study(results / name)


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """`other` is `base` but for noise that cancels, `better` a point above it, `mixed` better on small objects only."""
    random = np.random.default_rng(1)
    count = IMAGES * PER_IMAGE
    base = random.uniform(0.4, 0.8, count)
    noise = random.normal(0, 0.03, (3, count))
    noise -= noise.mean(axis=1, keepdims=True)
    size = np.arange(count) % 3
    return {
        "base": base,
        "other": base + noise[0],
        "better": base + noise[1] + 0.01,
        "mixed": base + noise[2] + np.where(size == 0, 0.03, np.where(size == 2, -0.03, 0.0)),
    }


def verdicts(pairs: list[decide.Pair]) -> dict[str, str]:
    table = decide.differences(pairs, **DRAWS)
    return dict(zip(table["subset"], table["verdict"], strict=True))


def test_two_variants_of_a_study(tmp_path: Path, made: dict[str, np.ndarray]) -> None:
    whole = study(tmp_path, "s", made)
    found = {
        name: verdicts(list(decide.of_variants(whole, "base", name))) for name in ("base", "other", "better", "mixed")
    }
    assert set(found["base"].values()) == {UNDECIDED}
    assert found["other"]["all"] == UNDECIDED
    assert found["better"]["all"] == BETTER
    assert [found["mixed"][size] for size in ("small", "medium", "large")] == [BETTER, UNDECIDED, WORSE]
    (pair,) = decide.of_variants(whole, "base@eager", "better")
    line = decide.differences([pair], **DRAWS).iloc[0]
    assert line["difference"] == pytest.approx(1.0) and line["corrected_low"] > 0
    assert [line["instances"], line["images"], pair.apart] == [800, 200, 0]
    with pytest.raises(InputError, match=r"found bettr; did you mean better"):
        list(decide.of_variants(whole, "base", "bettr"))


def test_two_studies(tmp_path: Path, made: dict[str, np.ndarray]) -> None:
    before = study(tmp_path / "one", "s", {"a": made["base"], "b": made["base"], "gone": made["base"]})
    after = study(tmp_path / "two", "s", {"b": made["base"], "a": made["better"]})
    pairs = list(decide.of_studies(before, after))
    table = decide.differences(pairs, **DRAWS).set_index(["subset", "label"])
    assert table.loc[("all", "a @ eager"), "verdict"] == BETTER
    assert (
        table.loc[("all", "b @ eager"), "verdict"] == UNDECIDED and table.loc[("all", "b @ eager"), "difference"] == 0
    )
    assert {pair.label for pair in pairs} == {"a @ eager", "b @ eager"}
    categories = decide.by_category(pairs, {"d": {1: "cat"}}, **DRAWS)
    assert set(categories["category"]) == {"cat", "2"}, "a number where there is no name"


def test_the_instances_that_differ_most(tmp_path: Path, made: dict[str, np.ndarray]) -> None:
    changed = made["base"].copy()
    changed[[7, 500]] += [-0.3, 0.2]
    whole = study(tmp_path, "s", {"base": made["base"], "changed": changed})
    most = decide.most_different(list(decide.of_variants(whole, "base", "changed")), {"d": {2: "dog"}})
    assert len(most) == decide.MOST
    assert most["annotation_id"].tolist()[:2] == [7, 500]
    assert most["difference"].tolist()[:3] == pytest.approx([-30, 20, 0])
    assert most["category"].tolist()[:2] == ["dog", "1"]


def test_the_best_within_a_budget(tmp_path: Path, made: dict[str, np.ndarray]) -> None:
    costs = {
        "base": {"segany_ms": 100.0, "peak_memory_mib": 500.0},
        "other": {"segany_ms": 200.0, "peak_memory_mib": 500.0},
        "better": {"segany_ms": 900.0, "peak_memory_mib": 900.0},
        "mixed": {"segany_ms": 50.0, "peak_memory_mib": 400.0, "licence_weights": "unstated"},
    }
    whole = study(tmp_path, "s", made, costs)
    (free,) = decide.recommend(whole, decide.Budget())
    assert free.best is not None and free.best["variant"] == "better"
    assert set(free.within["verdict"][1:]) == {BETTER} and free.within["low"].iloc[1] > 0
    (tight,) = decide.recommend(whole, decide.Budget(ms=500, licence="permissive"))
    assert sorted(tight.within["variant"]) == ["base", "other"]
    assert tight.within["verdict"].tolist() == ["", UNDECIDED]
    assert tight.left_out == {"too slow": 1, "licence": 1}
    (none,) = decide.recommend(whole, decide.Budget(memory_mib=100))
    assert none.best is None and none.left_out == {"too much memory": 4}
    with pytest.raises(InputError, match="prompt: expected a prompt set of the study, found boxx"):
        list(decide.recommend(whole, decide.Budget(), prompt="boxx"))


def test_a_budget_of_what_was_not_measured(tmp_path: Path, made: dict[str, np.ndarray]) -> None:
    whole = study(tmp_path, "s", made)
    with pytest.raises(
        InputError, match=r"segany_ms: expected measured values, found none; add `latency` to study\.mea"
    ):
        list(decide.recommend(whole, decide.Budget(ms=5)))


def test_what_the_commands_print(
    tmp_path: Path, made: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path, "s", made, {"base": {"segany_ms": 100.0}, "other": {"segany_ms": 90.0}})
    folder = tmp_path / "s"
    cli.compare("base", "mixed", study=folder)
    text = capsys.readouterr().out
    assert "**mixed** against **base**" in text and "| box " in text and "20 instances that differ most" in text
    assert text.count(BETTER) == 1 and text.count(WORSE) == 1
    cli.recommend(folder, budget_ms=95.0)
    text = capsys.readouterr().out
    assert "**other @ eager**" in text and "Nothing else is within the budget" in text and "1 too slow" in text
    cli.recommend(folder, prompt="box")
    text = capsys.readouterr().out
    assert "**better @ eager**" in text and "Against the runner-up" in text
    with pytest.raises(InputError, match="expected a study, found nothing there"):
        cli.compare(str(tmp_path / "x"), str(folder))
    with pytest.raises(InputError, match="expected the folder of a study with prompts"):
        find_study(tmp_path)


def test_pictures_show_instance_and_prompt() -> None:
    mask = np.zeros((100, 200), dtype=np.uint8, order="F")
    mask[40:60, 100:140] = 1
    instance = {
        "x": 100,
        "y": 40,
        "w": 40,
        "h": 20,
        "rle_size": mask.shape,
        "rle_counts": mask_utils.encode(mask)["counts"],
    }
    grey = np.full((100, 200, 3), 90, dtype=np.uint8)
    # 20 pixels around the box and the last one: 81 wide, enlarged to 320.
    picture = pictures.drawn(grey, instance, {"box": None, "points": np.array([120.0, 50.0])})
    assert picture.shape[1] == pictures.SIDE
    scale = pictures.SIDE / 81
    assert tuple(picture[round(30 * scale), round(40 * scale)]) == pictures.PROMPT, "the point"
    assert tuple(picture[round(20 * scale), round(40 * scale)]) == pictures.TRUTH, "the upper border of the mask"
    assert tuple(picture[5, 5]) == (90, 90, 90)
    boxed = pictures.drawn(grey, instance, {"box": np.array([100.0, 40.0, 140.0, 60.0]), "points": None})
    assert (boxed == pictures.PROMPT).all(axis=2).any()
    assert pictures.jpeg(picture).startswith(b"\xff\xd8")


def test_names_of_categories(tmp_path: Path) -> None:
    assert category_names(tmp_path, "d") == {}
    file = Path(instances_file(tmp_path, "d"))
    empty = pd.DataFrame(columns=records.INSTANCES.names)
    write_parquet(file, empty, records.INSTANCES, {"category_names": json.dumps({3: "cat"})})
    assert category_names(tmp_path, "d") == {3: "cat"}
