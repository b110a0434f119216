"""Bring the MLflow database up to date with the tables."""

import json
import sys
from pathlib import Path

from sambench.provenance import digest
from sambench.results.schemas import TABLES, read_parquet, read_provenance
from sambench.results.tracking import Entry, entries, log_study
from sambench.script import run


def main(*, results: Path, tables: str, config: str, database: Path, artifacts: Path) -> None:
    """Log a study: a parent run with tables, figures and report, a child run a result.

    Parameters
    ----------
    results
        the results folder with tables/, figures/ and report/
    tables
        JSON list of table names
    config
        JSON, the configuration of the study
    database
        SQLite file, created when absent
    artifacts
        folder for the files of the parent run
    """
    paths = {name: results / "tables" / f"{name}.parquet" for name in json.loads(tables)}
    lines = [
        entry
        for name, path in paths.items()
        for entry in entries(name, read_parquet(path, TABLES[name]).to_pandas(), {})
    ]
    study = json.loads(config)
    origin = read_provenance(next(iter(paths.values())))
    params = {name: ", ".join(values) for name, values in study["study"].items()}
    tags = {f"sambench.{name}": value for name, value in origin.items()}
    campaign = Entry(f"study {digest(study)[:12]}", params, {}, tags)
    files = sorted(
        path for kind in ("tables", "figures", "report") for path in (results / kind).glob("*") if path.is_file()
    )
    outcome = log_study(database, artifacts, campaign, lines, files)
    print(f"MLflow: {outcome.written} runs written, {outcome.kept} as they were", file=sys.stderr)


if __name__ == "__main__":
    run(main)
