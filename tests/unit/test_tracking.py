"""MLflow as a view: logging twice changes nothing, an edit changes one run, what is gone goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sambench.results.accuracy import SCHEMA
from sambench.results.table import all_tables, find_table
from sambench.results.tracking import Entry, entries, log_study

BOXES = find_table("accuracy_boxes")
LOGGED = [name for name, table in all_tables().items() if table.metrics]
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own imports warn in many ways


def table(**values: Any) -> pd.DataFrame:
    lines = []
    for prompt, miou in values.items():
        for selection, number in (("argmax", miou), ("single", None)):
            line = dict.fromkeys(SCHEMA.names)
            line |= {
                "dataset": "d",
                "variant": "v",
                "runtime": "eager",
                "prompt": prompt,
                "selection": selection,
            }
            lines.append(line | {"miou": number, "instances": 4, "status": "ok"})
    return pd.DataFrame(lines)


def runs(database: Path) -> dict[str, Any]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("sambench")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_logging_is_idempotent(tmp_path: Path) -> None:
    database, artifacts = tmp_path / "mlflow.db", tmp_path / "mlartifacts"
    file = tmp_path / "boxes.csv"
    file.write_text("a,b\n")
    campaign = Entry("study 1", {"datasets": "d"}, {}, {"sambench.git_commit": "abc"})

    def log(lines: Sequence[Entry]) -> tuple[int, int]:
        outcome = log_study(database, artifacts, campaign, lines, [file])
        return outcome.written, outcome.kept

    rows = entries(BOXES, table(box=50.0, tight_box=60.0), {})
    assert log(rows) == (3, 0)
    first = runs(database)
    assert first["accuracy_boxes d v eager box"].data.metrics == {
        "accuracy/miou": 50.0,
        "accuracy/instances": 4.0,
        "accuracy_single/instances": 4.0,
    }, "a number that does not exist is not logged"
    parent = first["study 1"].info
    assert first["accuracy_boxes d v eager box"].data.tags["mlflow.parentRunId"] == parent.run_id
    assert (artifacts / "sambench" / parent.run_id / "artifacts" / "boxes.csv").is_file()
    assert parent.artifact_uri == f"mlflow-artifacts:/sambench/{parent.run_id}/artifacts"

    assert log(rows) == (0, 3)
    assert {name: run.info.run_id for name, run in runs(database).items()} == {
        name: run.info.run_id for name, run in first.items()
    }

    assert log(entries(BOXES, table(box=51.0), {})) == (1, 1)
    last = runs(database)
    assert set(last) == {"study 1", "accuracy_boxes d v eager box"}, "a result that is gone leaves no run"
    assert last["accuracy_boxes d v eager box"].data.metrics["accuracy/miou"] == 51.0


@pytest.mark.parametrize("name", LOGGED)
def test_every_logged_table_has_the_columns_that_name_its_runs(name: str) -> None:
    what = find_table(name)
    line = pd.DataFrame([dict.fromkeys(what.schema.names, "argmax")])
    measured = ("miou", "ap", "ar_1000", "params_m", "segany_ms", "throughput_img_s")
    column = next(name for name in measured if name in line)
    line[column] = 7.5
    (entry,) = entries(what, line, {})
    assert entry.metrics == {f"{what.metrics}/{column}": 7.5} and list(entry.params) == list(what.key)
