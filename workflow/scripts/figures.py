"""Draw tables."""

import json
from pathlib import Path

from sambench.results.figures import draw, save
from sambench.results.schemas import TABLES, read_parquet
from sambench.script import run


def main(*, figure: str, tables: str, results: Path, svg: Path, png: Path) -> None:
    """Draw one figure.

    Parameters
    ----------
    figure
        boxes or points (mean IoU with its interval), segany_time (cumulative time), efficiency (time against FLOPs)
    tables
        JSON list of the tables that it is drawn from
    results
        the results folder
    svg
        SVG file to write
    png
        PNG file to write
    """
    read = [
        read_parquet(results / "tables" / f"{name}.parquet", TABLES[name]).to_pandas() for name in json.loads(tables)
    ]
    chart = draw(figure, *read)
    save(chart, svg)
    save(chart, png)


if __name__ == "__main__":
    run(main)
