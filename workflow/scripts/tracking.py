"""Bring the MLflow database up to date with the tables."""

import sys
from pathlib import Path
from typing import Any

from sambench.parquet import read_provenance
from sambench.provenance import digest
from sambench.results.table import find_table
from sambench.results.tracking import Entry, entries, log_study
from sambench.script import run


def main(*, results: Path, folder: Path, tables: list[str], study: dict[str, Any], database: Path) -> None:
    """Log a study: a parent run with tables, figures and report, and a child run per result.

    study: the configuration. database: a SQLite file, created when absent.
    """
    found = [find_table(name) for name in tables]
    lines = [entry for table in found for entry in entries(table, table.read(folder), {})]
    origin = read_provenance(Path(found[0].file(folder)))
    params = {name: ", ".join(values) for name, values in study["study"].items()}
    tags = {f"sambench.{name}": value for name, value in origin.items()}
    campaign = Entry(f"study {digest(study)[:12]}", params, {}, tags)
    kinds = ("tables", "figures", "report")
    files = sorted(path for kind in kinds for path in (folder / kind).glob("*") if path.is_file())
    outcome = log_study(database, results / "mlartifacts", campaign, lines, files)
    print(f"MLflow: {outcome.written} runs written, {outcome.kept} as they were", file=sys.stderr)


if __name__ == "__main__":
    run(main)
