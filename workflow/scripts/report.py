"""Write the report: one HTML page with all tables and figures."""

from pathlib import Path
from typing import Any

from sambench.files import write_text
from sambench.gallery.view import read_gallery
from sambench.parquet import INPUT, count_rows, read_provenance
from sambench.results.figure import find_figure
from sambench.results.reasons import reasons
from sambench.results.report import Data, Page, render
from sambench.results.table import find_table
from sambench.script import run


def main(
    *,
    name: str,
    folder: Path,
    tables: list[str],
    figures: list[str],
    datasets: dict[str, dict[str, Any]],
    pictured: dict[str, Path],
    gallery: list[list[str]],
    files: list[Path],
    study: dict[str, Any],
    report: Path,
) -> None:
    """Write a page that needs no network and no other file.

    name: of the study. tables, figures: in order. datasets: by name `images` and `instances`, their Parquet files, and
    the `title`. pictured: by data set, what its gallery shows. gallery: data set, variant and runtime of its masks.
    files: results that say why numbers are missing. study: the configuration.
    """
    found = [(table, table.read(folder)) for table in map(find_table, tables)]
    pictures = [(figure, svg_of(folder, figure.name)) for figure in map(find_figure, figures)]
    origin = read_provenance(Path(find_table(tables[0]).file(folder)))
    data = [data_of(key, entry) for key, entry in datasets.items()]
    page = Page(name, found, pictures, data, origin, study, read_gallery(folder, pictured, gallery), reasons(files))
    write_text(report, render(page))


def svg_of(folder: Path, figure: str) -> str:
    return (folder / "figures" / f"{figure}.svg").read_text(encoding="utf-8")


def data_of(name: str, entry: dict[str, Any]) -> Data:
    """What the index of a data set says of it."""
    images, instances = Path(entry["images"]), Path(entry["instances"])
    origin = read_provenance(instances)
    notes = [f"annotations {value[:12]}" for key, value in origin.items() if key == f"{INPUT}annotations"]
    return Data(name, count_rows(images), count_rows(instances), entry["title"], notes)


if __name__ == "__main__":
    run(main)
