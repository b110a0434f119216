"""Write the overview that ends a run: the headline of each accuracy table."""

from pathlib import Path

from sambench.files import write_text
from sambench.results.presentation import overview_page
from sambench.results.table import find_table
from sambench.script import run


def main(*, tables: list[str], missing: list[str], folder: Path, overview: Path) -> None:
    """Write a Markdown page of these tables of a study's folder. missing: lines on weights and how to get them."""
    found = [find_table(name) for name in tables]
    write_text(overview, overview_page([(table, table.read(folder)) for table in found], missing))


if __name__ == "__main__":
    run(main)
