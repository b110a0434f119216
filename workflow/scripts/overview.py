"""Write the overview that ends a run: the headline of each accuracy table."""

from pathlib import Path

from sambench.files import write_text
from sambench.results.presentation import overview_page
from sambench.results.reasons import reasons
from sambench.results.table import find_table
from sambench.script import run


def main(*, tables: list[str], files: list[Path], folder: Path, overview: Path) -> None:
    """Write a Markdown page of these tables of a study's folder. files: results that say why numbers are missing."""
    found = [find_table(name) for name in tables]
    write_text(overview, overview_page([(table, table.read(folder)) for table in found], reasons(files)))


if __name__ == "__main__":
    run(main)
