"""MLflow as a view of the result files: brought up to date by one rule, again and again without doubling anything.

The database may be deleted, a run may be cut off, somebody may delete runs or the experiment by hand: the next time all
is as the files say.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sambench.errors import InputError
from sambench.results.runs import Run, clipped

CAMPAIGN, KEY, DIGEST = "sambench.campaign", "sambench.key", "sambench.digest"
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
CUMULATIVE = "latency/cumulative_ms_by_boxes"
VIEW = "sambench"  # the share key of the view that opens on the comparison
# MLflow's limits.
LONGEST_TAG, LONGEST_PARAM, BATCH = 8000, 6000, 800
REQUESTS = 8  # at once, to a server
SQLITE = "sqlite:///"
REBUILD = "delete the file: it is made again from the results"


@dataclass(frozen=True)
class Server:
    """Where runs go. artifacts: a folder that `mlflow server --artifacts-destination` serves, beside a database of our
    own; None: artifacts go through the server, or where its experiment says."""

    uri: str
    artifacts: Path | None = None

    @property
    def remote(self) -> bool:
        return self.uri.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Outcome:
    """How many runs were kept as they were and how many were written, and where they are."""

    kept: int
    written: int
    experiment: str
    parent: str

    @property
    def page(self) -> str:
        """The address of the runs of a campaign, after that of the server."""
        return f"#/experiments/{self.experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def tracking_uri(configured: str) -> str:
    """The address of the tracking server: of the configuration, else of MLFLOW_TRACKING_URI; empty: our own database.

    Raises InputError when it holds a password, which would be written into records and logs.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI", "")
    where = ("config", "tracking.uri") if configured else ("environment", "MLFLOW_TRACKING_URI")
    try:
        secret = urlsplit(uri).password
    except ValueError:
        raise InputError(*where, expected="the address of a tracking server", found=uri) from None
    if secret is not None and uri.startswith("http"):
        remedy = "give them as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
        raise InputError(*where, expected="an address without user and password", found="one with them", remedy=remedy)
    return uri


def view_state(campaign: str, columns: Sequence[str], present: Collection[str]) -> dict[str, Any]:
    """The state of MLflow's runs page, as MLflow 3 keeps it in a tag of the experiment.

    The table shows the runs of one campaign, with these metrics as columns, best first by the first one. Above the
    charts that MLflow draws itself: the first metric, the same against time and size, and cumulative times. present:
    all metrics that there are.
    """
    selected = [f"metrics.`{name}`" for name in columns] + ["params.`licence_weights`", "tags.`status`"]
    charts: list[dict[str, Any]] = []
    if columns:
        charts.append({"type": "BAR", "metricKey": columns[0]})
    for name in ("latency/segany_ms", "params_m"):
        if name in columns and columns[0] != name:
            x, y = ({"type": "METRIC", "key": key, "index": 0} for key in (name, columns[0]))
            charts.append({"type": "SCATTER", "xaxis": x, "yaxis": y})
    if CUMULATIVE in present:
        line = {"metricKey": CUMULATIVE, "selectedMetricKeys": [CUMULATIVE], "xAxisKey": "step", "scaleType": "linear"}
        charts.append({"type": "LINE", **line})
    fixed = {"metricSectionId": VIEW, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return {
        "searchFilter": f"tags.`{CAMPAIGN}` = '{campaign}'",
        "orderByKey": selected[0] if columns else "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": selected,
        "columnOrder": selected,
        "columnWidths": dict.fromkeys(selected, 120),
        "compareRunCharts": [{**fixed, "uuid": f"{VIEW}-{number}", **chart} for number, chart in enumerate(charts)],
        "compareRunSections": [{"uuid": VIEW, "name": "Comparison", "display": True, "isReordered": True}],
        "isAccordionReordered": True,  # else sections stand in the order of the alphabet
    }


def log_campaign(
    server: Server,
    experiment: str,
    campaign: Run,
    runs: Sequence[Run],
    files: Mapping[str, Path],
    columns: Sequence[str],
) -> Outcome:
    """Bring an experiment up to date with a campaign: a parent run with files, and its children.

    A run is known by its key. A child whose content is the same is kept, one whose content changed is deleted and made
    anew (MLflow's params cannot change, its metrics only grow), one that the campaign no longer has is deleted. Other
    campaigns of the experiment stay as they are.

    files: by their address among the artifacts. columns: metrics that the view of the campaign shows, best first by the
    first one. Raises InputError, one line, when the database or server cannot be used.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if server.artifacts is not None:
        _check_database(Path(server.uri.removeprefix(SQLITE)))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # Minutes of retries, by default; the study is complete without MLflow.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    try:
        with _without_waiting_for_the_disk(server):
            book = _Book(server, experiment, campaign.key)
            return book.bring_up_to_date(campaign, runs, files, columns)
    except (MlflowException, SQLAlchemyError) as error:
        remedy = "tables and report are complete; mend it and run again" if server.artifacts is None else REBUILD
        found = str(error).splitlines()[0][:200]
        raise InputError(server.uri, expected="a tracking database or server", found=found, remedy=remedy) from None


def _check_database(file: Path) -> None:
    """Raise InputError when a file is no database. MLflow would try again and again, for minutes."""
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return  # none yet, or somebody writes
    except sqlite3.DatabaseError as error:
        raise InputError(file, expected="a tracking database", found=error, remedy=REBUILD) from None


@contextlib.contextmanager
def _without_waiting_for_the_disk(server: Server) -> Iterator[None]:
    """Our own database is only written to the disk at the end: it commits ten times per run, and a busy disk takes
    0.1 s for each. A killed process loses nothing by it, a power cut a database that is made again."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    if server.artifacts is None:
        yield
        return
    event.listen(Engine, "connect", relax)
    try:
        yield
        with contextlib.suppress(OSError), Path(server.uri.removeprefix(SQLITE)).open("rb") as database:
            os.fsync(database.fileno())
    finally:
        event.remove(Engine, "connect", relax)


class _Book:
    """The runs of one campaign in one experiment."""

    def __init__(self, server: Server, experiment: str, campaign: str) -> None:
        import mlflow

        self.server, self.name, self.campaign = server, experiment, campaign
        self.client = mlflow.MlflowClient(tracking_uri=server.uri)
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            location = None if server.artifacts is None else f"mlflow-artifacts:/{experiment}"
            self.experiment = self.client.create_experiment(experiment, artifact_location=location)
        else:
            self.experiment = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment)

    def bring_up_to_date(
        self, campaign: Run, runs: Sequence[Run], files: Mapping[str, Path], columns: Sequence[str]
    ) -> Outcome:
        self.describe_experiment(columns, {name for run in runs for name, _ in run.metrics})
        known = self.known_runs()
        parent, changed = self.begin(campaign, known.pop(campaign.key, None))
        todo = []
        for run in runs:
            old = known.pop(run.key, None)
            if not _is_complete(old, run):
                todo.append((run, old))
            elif old.data.tags.get(PARENT) != parent:
                self.client.set_tag(old.info.run_id, PARENT, parent)
        with ThreadPoolExecutor(REQUESTS if self.server.remote else 1) as pool:
            for _ in pool.map(lambda entry: self.replace(entry[0], entry[1], parent), todo):
                pass
            for _ in pool.map(lambda run: self.client.delete_run(run.info.run_id), known.values()):
                pass
        if changed:
            self.store(parent, files)
            self.finish(parent, campaign)
        written = len(todo) + changed
        return Outcome(len(runs) + 1 - written, written, self.experiment, parent)

    def describe_experiment(self, columns: Sequence[str], present: Collection[str]) -> None:
        state = view_state(self.campaign, columns, present)
        tags = {
            "mlflow.experimentKind": "custom_model_development",  # not its pages of traces and chats
            f"mlflow.sharedViewState.{VIEW}": json.dumps(state),
            NOTE: f"The study `{self.name}`: a run per campaign; below it, one per data set, variant and runtime.",
        }
        present = self.client.get_experiment(self.experiment).tags
        for key, value in tags.items():
            if present.get(key) != value:
                self.client.set_experiment_tag(self.experiment, key, value)

    def known_runs(self) -> dict[str, Any]:
        """The runs of the campaign by key; of two with one key, which only a restored experiment has, one stays."""
        known: dict[str, Any] = {}
        wanted, token = f"tags.`{CAMPAIGN}` = '{self.campaign}'", None
        while True:
            page = self.client.search_runs([self.experiment], wanted, max_results=1000, page_token=token)
            for run in page:
                other = known.setdefault(run.data.tags.get(KEY, ""), run)
                if other is not run:
                    self.client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return known

    def begin(self, campaign: Run, old: Any) -> tuple[str, bool]:
        """The id of the parent, and whether something of it changed; it is running then.

        It keeps its address where only files, tags or the description changed.
        """
        if _is_complete(old, campaign):
            return old.info.run_id, False
        metrics = {name: value for (name, _), value in campaign.metrics.items()}
        if old is not None and (old.data.metrics != metrics or old.data.params != _params(campaign)):
            self.client.delete_run(old.info.run_id)
            old = None
        if old is None:
            run_id = self.create(campaign, {})
            self.log(run_id, campaign)
            return run_id, True
        run_id = old.info.run_id
        self.client.update_run(run_id, status="RUNNING")
        tags = self.tags(campaign)
        for key in old.data.tags.keys() - tags.keys():
            if not key.startswith("mlflow."):
                self.client.delete_tag(run_id, key)
        self.write(run_id, {}, {}, {**tags, DIGEST: campaign.digest})
        return run_id, True

    def replace(self, run: Run, old: Any, parent: str) -> None:
        if old is not None:
            self.client.delete_run(old.info.run_id)
        run_id = self.create(run, {PARENT: parent})
        self.log(run_id, run)
        self.finish(run_id, run)

    def tags(self, run: Run) -> dict[str, str]:
        own = {NOTE: run.description} if run.description else {}
        own |= {
            "mlflow.source.name": "sambench",
            "mlflow.source.type": "PROJECT",
            CAMPAIGN: self.campaign,
            KEY: run.key,
        }
        return {key: clipped(value, LONGEST_TAG) for key, value in {**run.tags, **own}.items()}

    def create(self, run: Run, tags: Mapping[str, str]) -> str:
        start = round(run.started * 1000) or None
        made = self.client.create_run(self.experiment, start, {**self.tags(run), **tags}, run.name)
        return str(made.info.run_id)

    def log(self, run_id: str, run: Run) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if run.data:
            inputs = [
                DatasetInput(
                    Dataset(
                        name=data.name,
                        digest=data.digest[:36],
                        source_type="local",
                        source=json.dumps({"uri": data.source}),
                        profile=json.dumps({"images": data.images, "instances": data.instances}),
                    ),
                    [InputTag("mlflow.data.context", "evaluation")],
                )
                for data in run.data
            ]
            self.client.log_inputs(run_id, inputs)
        self.write(run_id, run.metrics, _params(run), {DIGEST: run.digest})

    def write(
        self, run_id: str, metrics: Mapping[tuple[str, int], float], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Few calls, of which each costs a server 0.1 s; MLflow itself writes params, then metrics, then tags."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        points = [Metric(name, value, now, step) for (name, step), value in metrics.items()]
        *some, last = _parts(points, BATCH) if points else [[]]
        for part in some:
            self.client.log_batch(run_id, metrics=part)
        self.client.log_batch(
            run_id, last, [Param(*item) for item in params.items()], [RunTag(*i) for i in tags.items()]
        )

    def finish(self, run_id: str, run: Run) -> None:
        """The end comes last: a run that was cut off has none, and is made anew."""
        end = round(run.ended * 1000) or None
        self.client.set_terminated(run_id, "FAILED" if run.failed else "FINISHED", end)

    def store(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Put files among the artifacts of a run, in folders."""
        if self.server.artifacts is None:
            for address, file in files.items():
                folder, _, _ = address.rpartition("/")
                self.client.log_artifact(run_id, str(file), folder or None)
            return
        # Under a relative address, so that the results folder may move.
        root = self.server.artifacts / self.name
        target = root / run_id / "artifacts"
        shutil.rmtree(target, ignore_errors=True)
        for address, file in files.items():
            (target / address).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target / address)
        for other in root.iterdir():
            if not self.has(other.name):
                shutil.rmtree(other, ignore_errors=True)

    def has(self, run_id: str) -> bool:
        """Whether the database knows a run; it may have been deleted since its artifacts were stored."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException:
            return False
        return True


def _is_complete(old: Any, run: Run) -> bool:
    if old is None or old.info.status not in ("FINISHED", "FAILED"):
        return False
    return bool(old.data.tags.get(DIGEST) == run.digest)


def _params(run: Run) -> dict[str, str]:
    return {key: clipped(value, LONGEST_PARAM) for key, value in run.params.items()}


def _parts(entries: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
