"""Write the report: one HTML page with all tables and figures."""

from pathlib import Path
from typing import Any

from sambench.files import write_text
from sambench.parquet import read_provenance
from sambench.results.report import Section, render
from sambench.results.table import find_table
from sambench.script import run


def main(*, folder: Path, tables: list[str], study: dict[str, Any], report: Path) -> None:
    """Write a page that needs no network and no other file.

    tables: in order; the figure of the same name goes with a table. study: the configuration.
    """
    sections = []
    for table in (find_table(name) for name in tables):
        rows, figure = table.read(folder), folder / "figures" / f"{table.name}.svg"
        if not rows.empty:
            sections.append(Section(table, rows, figure.read_text(encoding="utf-8") if figure.is_file() else ""))
    origin = read_provenance(Path(find_table(tables[0]).file(folder)))
    write_text(report, render(sections, origin, study))


if __name__ == "__main__":
    run(main)
