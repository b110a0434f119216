"""Draw one figure."""

from pathlib import Path

from sambench.results.drawing import write
from sambench.results.figure import find_figure
from sambench.results.table import find_table
from sambench.script import run


def main(*, figure: str, tables: list[str], folder: Path, svg: Path, png: Path) -> None:
    """Draw the figure of that name from these tables of the study's folder."""
    drawing = find_figure(figure).drawn({name: find_table(name).read(folder) for name in tables})
    write(drawing.static, [svg, png])


if __name__ == "__main__":
    run(main)
