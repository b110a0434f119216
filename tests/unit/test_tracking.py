"""MLflow as a view: logging twice changes nothing, an edit changes one run, what is gone goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sambench.results.schemas import ACCURACY
from sambench.results.tracking import Entry, accuracy_entries, log_study

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own imports warn in many ways


def table(**values: Any) -> pd.DataFrame:
    lines = []
    for prompt, miou in values.items():
        for selection, number in (("argmax", miou), ("single", None)):
            line = dict.fromkeys(ACCURACY.names)
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

    def log(entries: Sequence[Entry]) -> tuple[int, int]:
        outcome = log_study(database, artifacts, campaign, entries, [file])
        return outcome.written, outcome.kept

    entries = accuracy_entries([table(box=50.0, tight_box=60.0)], {})
    assert log(entries) == (3, 0)
    first = runs(database)
    assert first["d v eager box"].data.metrics == {
        "accuracy/miou": 50.0,
        "accuracy/instances": 4.0,
        "accuracy_single/instances": 4.0,
    }, "a number that does not exist is not logged"
    parent = first["study 1"].info
    assert first["d v eager box"].data.tags["mlflow.parentRunId"] == parent.run_id
    assert (artifacts / "sambench" / parent.run_id / "artifacts" / "boxes.csv").is_file()
    assert parent.artifact_uri == f"mlflow-artifacts:/sambench/{parent.run_id}/artifacts"

    assert log(entries) == (0, 3)
    assert {name: run.info.run_id for name, run in runs(database).items()} == {
        name: run.info.run_id for name, run in first.items()
    }

    assert log(accuracy_entries([table(box=51.0)], {})) == (1, 1)
    last = runs(database)
    assert set(last) == {"study 1", "d v eager box"}, "a result that is gone leaves no run"
    assert last["d v eager box"].data.metrics["accuracy/miou"] == 51.0
