"""Write the report: one HTML page with all tables and figures."""

import json
from pathlib import Path

from sambench.files import write_text
from sambench.results import agreement_table, reproduction, throughput_table
from sambench.results.efficiency_table import DECIMALS, PARTS_DECIMALS
from sambench.results.report import Section, render
from sambench.results.schemas import TABLES, read_parquet, read_provenance
from sambench.script import run


def main(*, results: Path, tables: str, config: str, output: Path) -> None:
    """Write a page that needs no network and no other file.

    Parameters
    ----------
    results
        the results folder with tables/ and figures/
    tables
        JSON list of the tables to show, in order; the figure of the same name goes with a table
    config
        JSON, the configuration of the study
    output
        HTML file to write
    """
    decimals = {
        "efficiency": DECIMALS,
        "efficiency_parts": PARTS_DECIMALS,
        "throughput": throughput_table.DECIMALS,
        "agreement": agreement_table.DECIMALS,
        "reproduction": reproduction.DECIMALS,
    }
    names, sections = json.loads(tables), []
    for name in names:
        table = read_parquet(results / "tables" / f"{name}.parquet", TABLES[name]).to_pandas()
        if table.empty:
            continue
        figure = results / "figures" / f"{name}.svg"
        drawing = figure.read_text(encoding="utf-8") if figure.is_file() else ""
        sections.append(Section(name, table, drawing, decimals.get(name)))
    origin = read_provenance(results / "tables" / f"{names[0]}.parquet")
    write_text(output, render(sections, origin, json.loads(config)))


if __name__ == "__main__":
    run(main)
