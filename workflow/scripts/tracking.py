"""Bring MLflow up to date with the tables of a study."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from filelock import FileLock

from sambench.digests import digest
from sambench.files import is_file, write_text
from sambench.parquet import inputs
from sambench.results import runs
from sambench.results.table import find_table
from sambench.results.tracking import LONGEST_TAG, Server, log_campaign, tracking_uri
from sambench.script import run


def main(
    *,
    results: Path,
    folder: Path,
    tables: list[str],
    study: dict[str, Any],
    shards: dict[str, int],
    annotations: dict[str, list[str]],
    server: str,
    attempt: str,
    tracking: Path,
) -> None:
    """Log a study: a parent run with tables, figures, report and configuration, and a child run per dataset, variant
    and runtime; and write where they are.

    study: the configuration. shards: of each data set. annotations: the annotation files of each. server: the tracking
    server; empty: the database in the results folder. attempt: goes into the note as it is.
    """
    uri = tracking_uri(server)
    there = Server(uri) if uri else Server(f"sqlite:///{(results / 'mlflow.db').resolve()}", results / "mlartifacts")
    found = {name: (find_table(name), find_table(name).read(folder)) for name in tables}
    table, summary = found["summary"]
    data = {name: data_of(name, files, results) for name, files in annotations.items()}
    jobs = [tuple(job) for job in summary[list(runs.KEY)].itertuples(index=False)]
    facts = {
        job: runs.job_facts(study, runs.job_files(study, shards, results, job), results, job, data[job[0]])
        for job in jobs
    }
    children = runs.children(found, jobs, facts)

    config = folder / "config.yaml"
    write_text(config, yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    files = {f"config/{config.name}": config}
    for kind in ("tables", "figures", "report"):
        files |= {
            file.relative_to(folder).as_posix(): file for file in sorted((folder / kind).rglob("*")) if file.is_file()
        }
    more = "… and more: see tables/summary.md among the artifacts"
    text = runs.clipped(table.page(summary) if table.page else "", LONGEST_TAG, more)
    contents = {address: digest(file) for address, file in files.items()}
    campaign = runs.parent(study, summary, text, children, contents)
    name = study["study"]["name"]
    with FileLock(results / ".mlflow.lock"):  # two studies at once would break a database that is new
        outcome = log_campaign(there, name, campaign, children, files, runs.columns(children))

    where = {"uri": uri, "page": outcome.page, "experiment": outcome.experiment, "run": outcome.parent}
    write_text(tracking, json.dumps({"attempt": attempt, **where}, indent=1) + "\n")
    print(f"MLflow: {outcome.written} runs written, {outcome.kept} as they were", file=sys.stderr)


def data_of(name: str, annotations: list[str], results: Path) -> runs.Data:
    """A data set with the digest of its annotations and how many images and instances are used of it."""
    images, instances = (
        pq.read_metadata(results / "datasets" / name / f"{kind}.parquet").num_rows for kind in ("images", "instances")
    )
    files = [Path(file) for file in annotations]
    made_of = inputs(annotations=files) if all(map(is_file, files)) else {}
    return runs.Data(name, "".join(made_of.values()), ", ".join(annotations), images, instances)


if __name__ == "__main__":
    run(main)
