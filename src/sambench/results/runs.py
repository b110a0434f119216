"""What a study looks like in MLflow, without MLflow: one parent, and one child per (dataset, variant, runtime)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sambench.jobs import EverythingJob, Job, efficiency_file, measured_file
from sambench.parquet import read_provenance
from sambench.provenance import digest, read_libraries
from sambench.results.headlines import headlines
from sambench.results.table import Table
from sambench.settings import ON_IMAGES
from sambench.status import BAD_WEIGHTS, NO_DEVICE, NO_WEIGHTS, NOT_INSTALLED, OK, OUT_OF_MEMORY

KEY = ("dataset", "variant", "runtime")
RULE = "argmax"
# A number that is missing for one of these reasons could have been there; `unsupported prompt` and the like are
# no faults.
FAULTS = {NO_WEIGHTS, BAD_WEIGHTS, NO_DEVICE, NOT_INSTALLED, OUT_OF_MEMORY}
# Where and how a study runs: not what it measures.
NOT_DECIDING = ("results", "weights", "cache", "download", "shards", "tracking", "site")

Coordinates = tuple[str, str, str]


@dataclass(frozen=True)
class Data:
    """A data set as a run's input. digest: SHA-256 of the annotation file."""

    name: str
    digest: str
    source: str
    images: int
    instances: int


@dataclass(frozen=True)
class Run:
    """One run.

    metrics: (name, step) -> value. started, ended: of the real jobs, in seconds since 1970; 0 is unknown. files: their
    address among the artifacts -> the digest of their content.
    """

    key: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[tuple[str, int], float]
    tags: Mapping[str, str]
    failed: bool = False
    started: float = 0
    ended: float = 0
    data: tuple[Data, ...] = ()
    description: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of everything that is logged."""
        metrics = sorted([*name, value] for name, value in self.metrics.items())
        data = [vars(entry) for entry in self.data]
        texts = [self.name, self.params, self.tags, self.description, self.files]
        return digest([texts, metrics, self.failed, self.started, self.ended, data])


def metric_name(table: Table, row: Mapping[str, Any], column: str, steps: str = "") -> str:
    """`miou` of the prompt `box` -> `miou/box`; `miou_single/box` under the rule `single`; a curve says its steps."""
    words = [column.removeprefix(f"{table.metrics.partition('/')[0]}_")]  # latency/latency_ms would say it twice
    if (rule := row.get("selection") or RULE) != RULE:
        words.append(rule)
    if steps:
        words.append(f"by_{steps}")
    key = {name: f"{row[name]:g}" if isinstance(row[name], float) else row[name] for name in table.key}
    return _allowed(table.metrics.format_map({**key, "column": "_".join(words)}))


def _allowed(name: str) -> str:
    """A name that MLflow takes: a data set, sampler or detector may have a plus sign in its own."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def measured(table: Table, rows: pd.DataFrame) -> tuple[dict[tuple[str, int], float], dict[str, str]]:
    """The metrics of rows that belong to one run, and for numbers that are missing their name and the reason.

    A number that does not exist is neither 0 nor NaN; counts of a row without any such number are left out too. A
    column of `table.series` gives one point per row, at the step that another column names; of other columns, the row
    that is marked `best` counts, where a table marks one, or else the first row of a name.
    """
    numbers = [name for name in rows.select_dtypes("number") if name not in table.key]
    counts = {name for name in numbers if pd.api.types.is_integer_dtype(rows[name])}
    metrics: dict[tuple[str, int], float] = {}
    missing: dict[str, str] = {}
    for row in rows.to_dict("records"):
        found = {name: float(row[name]) for name in numbers if pd.notna(row[name])}
        if not found.keys() - counts:
            missing[metric_name(table, row, numbers[0])] = str(row["status"])
            continue
        if row["status"] != OK:
            missing[metric_name(table, row, numbers[0])] = str(row["status"])
        for name, value in found.items():
            if name in table.series:
                steps = table.series[name]
                metrics[metric_name(table, row, name, steps), int(row[steps])] = value
            if name not in table.series or "best" in row:
                metric = (metric_name(table, row, name), 0)
                if row["best"] is True if "best" in row else metric not in metrics:
                    metrics[metric] = value
    return metrics, missing


class Rows:
    """The rows of a table by run: found once for all runs."""

    def __init__(self, table: Table, rows: pd.DataFrame) -> None:
        self.table = table
        self.columns = [name for name in KEY if name in table.key]
        self.groups = {
            key if isinstance(key, tuple) else (key,): group for key, group in rows.groupby(self.columns, sort=False)
        }

    def of(self, job: Coordinates) -> pd.DataFrame | None:
        coordinates = dict(zip(KEY, job, strict=True))
        return self.groups.get(tuple(coordinates[name] for name in self.columns))


def children(
    tables: Mapping[str, tuple[Table, pd.DataFrame]], jobs: Iterable[Coordinates], facts: Mapping[Coordinates, JobFacts]
) -> list[Run]:
    """One run per (dataset, variant, runtime) with all its numbers.

    tables: of a study by name, with their rows. A run has failed when what it was to measure could not be measured.
    """
    logged = [Rows(*entry) for entry in tables.values() if entry[0].metrics and "variant" in entry[0].key]
    summary = {tuple(row[name] for name in KEY): row for row in tables["summary"][1].to_dict("records")}
    runs = []
    for job in jobs:
        line, what = summary[job], facts[job]
        metrics: dict[tuple[str, int], float] = {}
        reasons: dict[str, str] = {}
        failed, measures = False, set[bool]()
        for rows in logged:
            own = rows.of(job)
            if own is None:
                continue
            points, missing = measured(rows.table, own)
            metrics |= points
            reasons |= missing
            if "runtime" in rows.table.key:  # counts need neither weights nor a device
                measures.add(bool(points))
                failed |= "detector" not in rows.table.key and bool(FAULTS & {*missing.values()})
        status = str(line["status"])
        told = ("family", "licence_code", "licence_weights", "weights", "weights_sha256")
        words = {name: str(line[name]) for name in told if pd.notna(line[name])}
        params = {**dict(zip(KEY, job, strict=True)), **words, **what.params}
        runs.append(
            Run(
                key="/".join(job),
                name=f"{job[1]} {job[2]} {job[0]}",  # what differs most comes first: columns and legends are narrow
                params={name: value for name, value in params.items() if value},
                metrics=metrics,
                tags={**what.tags, **reasons, "status": status},
                failed=failed or measures == {False},
                started=what.started,
                ended=what.ended,
                data=what.data,
                description="" if status == OK else f"Missing: {status}.",
            )
        )
    return runs


def parent(
    config: Mapping[str, Any], summary: pd.DataFrame, description: str, runs: Sequence[Run], files: Mapping[str, str]
) -> Run:
    """The run of a campaign: what was asked, the best of each data set, and the summary as its description.

    config: of the study; two campaigns of one study differ in what it asks. files: their addresses among the artifacts,
    and their digests.
    """
    asked = {key: value for key, value in config.items() if key not in NOT_DECIDING}
    name = f"{config['study']['name']} {digest(asked)[:8]}"
    metrics: dict[tuple[str, int], float] = {("runs", 0): len(runs), ("runs_failed", 0): sum(r.failed for r in runs)}
    tags = dict(runs[0].tags) if runs else {}
    tags = {key: value for key, value in tags.items() if key.startswith(("mlflow.", "version."))}
    rivals = summary[summary["variant"] != "ground_truth"]
    for dataset, rows in rivals.groupby("dataset", sort=False):
        for column in ("miou_box", "miou_point"):
            if rows[column].notna().any():
                best = rows.loc[rows[column].idxmax()]
                metrics[_allowed(f"best_{column}/{dataset}"), 0] = float(best[column])
                tags[_allowed(f"best_{column}/{dataset}")] = f"{best['variant']} {best['runtime']}"
    return Run(
        key=name,
        name=name,
        params={key: ", ".join(value) for key, value in config["study"].items() if isinstance(value, list) and value},
        metrics=metrics,
        tags=tags,
        started=min((run.started for run in runs if run.started), default=0),
        ended=max((run.ended for run in runs), default=0),
        data=tuple({entry.name: entry for run in runs for entry in run.data}.values()),
        description=description,
        files=files,
    )


def columns(runs: Sequence[Run]) -> list[str]:
    """The metrics that the view of a campaign shows: the accuracy of its headline prompts, then time and size."""
    present = list(dict.fromkeys(name for run in runs for name, _ in run.metrics))
    prompts = headlines(name.removeprefix("miou/") for name in present if name.startswith("miou/"))
    firsts = (*(f"miou/{prompt}" for prompt in prompts), "ap/", "ar_1000/", "latency/segany_ms", "ms_per_image/")
    found = []
    for first in (*firsts, "latency/peak_memory_mib", "params_m"):
        found += [name for name in present if name.startswith(first) and name not in found][:1]
    return found


@dataclass(frozen=True)
class JobFacts:
    """What is known of the jobs of one (dataset, variant, runtime)."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    started: float
    ended: float
    data: tuple[Data, ...]


def job_files(config: Mapping[str, Any], shards: Mapping[str, int], results: Path, job: Coordinates) -> list[Path]:
    """The result files of a run, those that depend on data and runtime first.

    config: of the study. shards: of each data set.
    """
    dataset, variant, _ = job
    study = config["study"]
    files = [
        file for group in study["prompt_groups"] for file in Job(*job, group).shard_files(results, shards[dataset])
    ]
    files += [
        EverythingJob(*job, sampler).file(results, kind)
        for sampler in study["samplers"]
        for kind in ("quality", "time")
    ]
    files += [measured_file(results, name, *job) for name in study["measures"] if name in ON_IMAGES]
    if "efficiency" in study["measures"]:
        files.append(efficiency_file(results, variant))
    return [Path(file) for file in files]


def job_facts(
    config: Mapping[str, Any], files: Sequence[Path], results: Path, job: Coordinates, data: Data
) -> JobFacts:
    """What the result files of a run, and the records beside the logs of its jobs, tell about it."""
    study, runtime = config["study"], config["runtimes"][job[2]]
    present = [file for file in files if file.is_file()]
    origin = read_provenance(present[0]) if present else {}
    names = [name for group in study["prompt_groups"] for name in config["prompt_groups"][group]]
    params = {
        "device": origin.get("device", ""),
        "dtype": runtime.get("dtype", "float32"),
        "prompts": ", ".join(names),
        "selections": ", ".join(study["selections"]),
        "samplers": ", ".join(study["samplers"]),
    }
    params |= {f"runtime.{key}": str(value) for key, value in runtime.items() if key not in ("dtype", "device")}
    tags = {f"version.{name}": version for name, version in read_libraries(origin).items()}
    tags["version.sambench"] = origin.get("sambench_version", "")
    if origin.get("git_commit", "unknown") != "unknown":
        tags["mlflow.source.git.commit"] = origin["git_commit"]
        tags["git_dirty"] = origin.get("git_dirty", "")
    # Counts are shared by all data sets and runtimes: their time belongs to no single one.
    own = [file for file in present if file.parent != results / "efficiency"] or present
    times = list(job_times(results, own))
    started, ended = min((t[0] for t in times), default=0.0), max((t[1] for t in times), default=0.0)
    return JobFacts(params, {key: value for key, value in tags.items() if value}, started, ended, (data,))


def job_times(results: Path, files: Iterable[Path]) -> Iterator[tuple[float, float]]:
    """(start, end) of the jobs that made result files, from the records beside their logs."""
    for file in files:
        record = (results / "logs" / file.relative_to(results)).with_suffix(".json")
        try:
            entry = json.loads(record.read_text(encoding="utf-8"))
            yield float(entry["started"]), float(entry["ended"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an older version made it, or somebody tidied up


def clipped(text: str, limit: int, more: str = "…") -> str:
    """Text that fits: whole lines, and a last one that says that there is more."""
    if len(text) <= limit:
        return text
    kept = text[: limit - len(more) - 1]
    return (kept.rpartition("\n")[0] or kept) + "\n" + more
