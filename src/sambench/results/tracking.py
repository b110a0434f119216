"""MLflow as a view of the result files: logged by one serial rule, again and again without doubling anything."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sambench.provenance import digest
from sambench.results.table import Table

EXPERIMENT = "sambench"
KEY, DIGEST = "sambench.key", "sambench.digest"
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Entry:
    """One run: params are its coordinates, metrics are flat and grouped by slashes."""

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def digest(self) -> str:
        return digest([self.params, self.metrics, self.tags])


@dataclass(frozen=True)
class Outcome:
    """How many runs were kept as they were, and how many were written."""

    kept: int
    written: int


def entries(table: Table, rows: pd.DataFrame, tags: Mapping[str, str]) -> list[Entry]:
    """One entry per row of a table, or group of rows that differ by the selection rule only; none for a table that is
    not logged.

    The headline rule's metrics are `accuracy/miou` and so on, another rule's `accuracy_single/miou`. A number that
    does not exist is not logged, neither as 0 nor as NaN; the status says why.
    """
    if not table.metrics:
        return []
    group, coordinates = table.metrics, list(table.key)
    numbers = rows.select_dtypes("number").columns.difference(coordinates, sort=False)
    found = []
    for values, lines in rows.groupby(coordinates, sort=False):
        params = dict(zip(coordinates, map(str, values), strict=True))
        metrics: dict[str, float] = {}
        for line in lines.to_dict("records"):
            rule = line.get("selection", "argmax")
            prefix = group if rule == "argmax" else f"{group}_{rule}"
            metrics |= {f"{prefix}/{column}": float(line[column]) for column in numbers if pd.notna(line[column])}
        facts = {**tags, "table": table.name, "status": lines["status"].iloc[0]}
        found.append(Entry(" ".join([table.name, *params.values()]), params, metrics, facts))
    return found


def log_study(
    database: Path, artifacts: Path, campaign: Entry, entries: Sequence[Entry], files: Sequence[Path]
) -> Outcome:
    """Bring the database up to date with a campaign: a parent run with the files, a child run a result cell.

    A run is known by its key. One whose content is the same is kept, one whose content changed is deleted and made
    anew (MLflow's params cannot change, its metrics only grow), one that the campaign no longer has is deleted.

    database: created when absent. artifacts: the folder that `mlflow server --artifacts-destination` serves; the
    files are copied there under a relative address, so that the results folder may move.
    """
    import mlflow
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.time import get_current_time_millis

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database.resolve()}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(EXPERIMENT, artifact_location=f"mlflow-artifacts:/{EXPERIMENT}")
    )
    known: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        known |= {run.data.tags[KEY]: run for run in page if KEY in run.data.tags}
        token = page.token
        if not token:
            break

    def upsert(key: str, entry: Entry, parent: str | None) -> tuple[str, bool]:
        run = known.pop(key, None)
        if run is not None and run.data.tags.get(DIGEST) == entry.digest:
            if parent and run.data.tags.get(PARENT) != parent:
                client.set_tag(run.info.run_id, PARENT, parent)
            return run.info.run_id, False
        if run is not None:
            client.delete_run(run.info.run_id)
        # The digest is the last thing written: a run that was cut off has none and is made anew.
        tags = {**entry.tags, KEY: key} | ({PARENT: parent} if parent else {})
        run_id = client.create_run(experiment_id, run_name=entry.name, tags=tags).info.run_id
        now = get_current_time_millis()
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in entry.metrics.items()],
            params=[Param(name, value) for name, value in entry.params.items()],
        )
        client.log_batch(run_id, tags=[RunTag(DIGEST, entry.digest)])
        client.set_terminated(run_id)
        return run_id, True

    parent, parent_written = upsert(campaign.name, campaign, None)
    if parent_written:
        target = artifacts / EXPERIMENT / parent / "artifacts"
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy2(file, target / file.name)
    written = [upsert(f"{campaign.name}/{entry.name}", entry, parent)[1] for entry in entries]
    for key, run in known.items():
        if key.startswith(f"{campaign.name}/"):
            client.delete_run(run.info.run_id)
    changed = sum(written) + parent_written
    return Outcome(kept=len(entries) + 1 - changed, written=changed)
