"""Make one table of results."""

from pathlib import Path
from typing import Any

from sambench.provenance import provenance
from sambench.results.presentation import write_table
from sambench.results.table import find_table
from sambench.script import run


def main(*, table: str, results: Path, folder: Path, settings: dict[str, Any]) -> None:
    """Write tables/{table}.parquet, .csv, .md and .tex in the folder of the study.

    table: a name of the registry. results: the folder with what was measured. settings: what decides about its content,
    besides its sources.
    """
    what = find_table(table)
    write_table(folder / "tables", what, what.build(results, settings), provenance(settings))


if __name__ == "__main__":
    run(main)
