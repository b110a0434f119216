"""Draw the accuracy tables."""

from pathlib import Path

from sambench.results.figures import accuracy_chart, save
from sambench.results.schemas import ACCURACY, read_parquet
from sambench.script import run


def main(*, table: Path, title: str, svg: Path, png: Path) -> None:
    """Draw one accuracy table: mean IoU with its interval by variant and prompt type.

    Parameters
    ----------
    table
        Parquet file of the table
    title
        the figure's title
    svg
        SVG file to write
    png
        PNG file to write
    """
    chart = accuracy_chart(read_parquet(table, ACCURACY).to_pandas(), title)
    save(chart, svg)
    save(chart, png)


if __name__ == "__main__":
    run(main)
