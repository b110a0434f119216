"""Means, sizes, counts, completeness, intervals: against hand-computed values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sambench.errors import InputError
from sambench.jobs import Job
from sambench.parquet import read_parquet, read_provenance
from sambench.results import accuracy as means
from sambench.results.accuracy import SCHEMA, is_box
from sambench.results.parts import check_complete
from sambench.results.presentation import overview, presentable, write_table
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import all_tables, concat, find_table
from sambench.status import NO_WEIGHTS, OK, OUT_OF_MEMORY

JOB = Job("d", "v", "eager", "g")
BOOTSTRAP = {"resamples": 200, "seed": 0}


def results(**columns: object) -> pd.DataFrame:
    base = {
        "annotation_id": [1, 2, 3, 4],
        "image_id": [10, 10, 11, 12],
        "area": [1023.9, 1024.0, 9215.9, 9216.0],
        "iscrowd": [False, True, False, False],
        "prompt": "box",
        "iou": [0.1, 0.2, 0.3, 0.4],
        "iou_single": [0.5, 0.5, 0.5, 0.9],
        "status": OK,
    }
    return pd.DataFrame(base | columns)


def accuracy(rows: pd.DataFrame, selections: list[str]) -> pd.DataFrame:
    return pd.DataFrame(means.accuracy(JOB, rows, selections, **BOOTSTRAP), columns=SCHEMA.names)


def test_means_sizes_and_counts() -> None:
    table = accuracy(results(), ["argmax", "single"])
    line = table.iloc[0]
    assert line["miou"] == pytest.approx(25.0)
    # Half-open bounds: 32² = 1024 is medium, 96² = 9216 is large.
    assert [line["miou_small"], line["miou_medium"], line["miou_large"]] == pytest.approx([10, 25, 40])
    assert [line["instances"], line["crowd"], line["images"]] == [4, 1, 3]
    assert table.iloc[1]["selection"] == "single" and table.iloc[1]["miou"] == pytest.approx(60.0)
    assert list(table.columns) == SCHEMA.names


def test_rows_without_a_number_leave_the_mean_and_are_counted() -> None:
    table = accuracy(results(status=[OK, OUT_OF_MEMORY, OK, OK]), ["argmax"])
    assert table.iloc[0]["miou"] == pytest.approx(100 * 0.8 / 3)
    assert table.iloc[0]["status"] == "out of memory: 1 of 4"


def test_a_variant_without_weights_has_no_mean() -> None:
    table = accuracy(results(status=NO_WEIGHTS, iou=np.nan), ["argmax"])
    assert pd.isna(table.iloc[0]["miou"]) and table.iloc[0]["status"] == NO_WEIGHTS
    assert presentable(table).iloc[0][["miou", "status"]].tolist() == ["–", NO_WEIGHTS]
    assert NO_WEIGHTS in overview(table).to_string()


def test_completeness() -> None:
    planned = results()[["annotation_id", "prompt"]]
    check_complete(results(), planned, "job")
    doubled = pd.concat([results(), results().iloc[[0]]])
    for rows, message in (
        (results().iloc[1:], "1 missing, 0 more than once, 0 not planned"),
        (doubled, "0 missing, 1 more than once, 0 not planned"),
        (results(annotation_id=[1, 2, 3, 5]), "1 missing, 0 more than once, 1 not planned"),
    ):
        with pytest.raises(InputError, match=f"job: expected each of 4 planned prompts once, found {message}"):
            check_complete(rows, planned, "job")


def test_points_and_boxes_are_apart() -> None:
    prompts = ["box", "box_center", "tight_box", "random_3", "noisy_box", "click_3"]
    assert [name for name in prompts if is_box(name)] == ["box", "tight_box", "noisy_box"]


def test_every_table_is_whole() -> None:
    tables = all_tables()
    assert [table.order for table in tables.values()] == sorted(table.order for table in tables.values())
    for name, table in tables.items():
        assert table.name == name and table.module.endswith(f".{name}") and table.title and table.explanation
        known = set(table.schema.names)
        assert {*table.key, *table.units, *table.decimals} <= known, name
        assert set(table.drawn_from) <= set(tables) and bool(table.drawn_from) == (table.draw is not None), name
        if table.metrics:
            assert "status" in known, f"{name}: a run of MLflow says why a number is missing"
    with pytest.raises(InputError, match=r"found accuracy_box|did you mean accuracy_boxes"):
        find_table("accuracy_box")


def test_tables_are_written_in_four_forms(tmp_path: Path) -> None:
    table = accuracy(results(), ["argmax"])
    write_table(tmp_path, find_table("accuracy_boxes"), table, {"git_commit": "abc"})
    back = read_parquet(tmp_path / "accuracy_boxes.parquet", SCHEMA).to_pandas()
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert read_provenance(tmp_path / "accuracy_boxes.parquet") == {"schema_version": "1", "git_commit": "abc"}
    assert (tmp_path / "accuracy_boxes.csv").read_text().splitlines()[1].startswith("d,v,eager,box,argmax,25.0000,")
    assert "| 25.0 " in (tmp_path / "accuracy_boxes.md").read_text()
    assert "25.0 &" in (tmp_path / "accuracy_boxes.tex").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy_boxes.csv",
        "accuracy_boxes.md",
        "accuracy_boxes.parquet",
        "accuracy_boxes.tex",
    ]


def test_a_table_without_rows_is_written_too(tmp_path: Path) -> None:
    """A study of boxes alone has a table of points, which is empty."""
    for table in all_tables().values():
        write_table(tmp_path, table, concat([], table.schema), {})
        assert read_parquet(tmp_path / f"{table.name}.parquet", table.schema).num_rows == 0, table.name


def test_bootstrap_of_independent_values_is_the_textbook_interval() -> None:
    values = np.random.default_rng(1).normal(50, 10, size=2000)
    low, high = clustered_bootstrap(values, np.arange(2000), resamples=4000, seed=0)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_bootstrap_draws_whole_images() -> None:
    # 200 images, all instances of one image alike: 50 copies of an instance must not narrow the interval.
    per_image = np.random.default_rng(2).normal(50, 10, size=200)
    once = clustered_bootstrap(per_image, np.arange(200), resamples=3000, seed=0)
    often = clustered_bootstrap(np.repeat(per_image, 50), np.repeat(np.arange(200), 50), resamples=3000, seed=0)
    assert once == pytest.approx(often)
    assert once[1] - once[0] == pytest.approx(2 * 1.96 * per_image.std() / np.sqrt(200), rel=0.05)


def test_one_image_says_nothing_about_others() -> None:
    assert np.isnan(clustered_bootstrap(np.array([1.0, 2.0]), np.array([5, 5]), resamples=100, seed=0)).all()
