"""Write the report: one HTML page with all tables and figures."""

import json
from pathlib import Path

from sambench.files import write_text
from sambench.results.report import EXPLANATIONS, Section, render
from sambench.results.schemas import ACCURACY, read_parquet, read_provenance
from sambench.script import run


def main(*, results: Path, titles: str, config: str, output: Path) -> None:
    """Write a page that needs no network and no other file.

    Parameters
    ----------
    results: the results folder with tables/ and figures/
    titles: JSON object, table name to section title
    config: JSON, the configuration of the study
    output: HTML file to write
    """
    sections = [
        Section(
            name,
            title,
            EXPLANATIONS[name],
            read_parquet(results / "tables" / f"{name}.parquet", ACCURACY).to_pandas(),
            (results / "figures" / f"{name}.svg").read_text(encoding="utf-8"),
        )
        for name, title in json.loads(titles).items()
    ]
    origin = read_provenance(results / "tables" / f"{sections[0].name}.parquet")
    write_text(output, render(sections, origin, json.loads(config)))


if __name__ == "__main__":
    run(main)
