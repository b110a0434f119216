"""Make one table of results."""

from pathlib import Path
from typing import Any

from sambench.parquet import inputs
from sambench.provenance import provenance
from sambench.results.presentation import write_table
from sambench.results.table import find_table
from sambench.script import run


def main(
    *, table: str, results: Path, folder: Path, settings: dict[str, Any], sources: list[Path] | None = None
) -> None:
    """Write tables/{table}.parquet, .csv, .md and .tex in the folder of the study.

    table: a name of the registry. results: the folder with what was measured. settings: what decides about its content,
    besides its sources, the files that it is made of.
    """
    what = find_table(table)
    origin = provenance(settings) | inputs(sources=sources or [])
    write_table(folder / "tables", what, what.build(results, settings), origin)


if __name__ == "__main__":
    run(main)
