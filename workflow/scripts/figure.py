"""Draw the figure of a table."""

from pathlib import Path

from sambench.results.figures import save
from sambench.results.table import find_table
from sambench.script import run


def main(*, figure: str, folder: Path, svg: Path, png: Path) -> None:
    """Draw the figure of the table of that name, from the tables that it names."""
    table = find_table(figure)
    assert table.draw is not None, "the rule draws tables that have a figure"
    chart = table.draw(*(find_table(name).read(folder) for name in table.drawn_from))
    save(chart, svg)
    save(chart, png)


if __name__ == "__main__":
    run(main)
