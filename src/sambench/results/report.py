"""The report: one HTML page with the tables, the figures and where they come from; needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import pandas as pd
from markupsafe import Markup

from sambench.provenance import read_libraries
from sambench.results.presentation import overview, presentable
from sambench.results.table import Table


@dataclass(frozen=True)
class Section:
    """A table of the report with its rows. figure: SVG text."""

    table: Table
    rows: pd.DataFrame
    figure: str = ""


def render(sections: Sequence[Section], provenance: Mapping[str, str], config: Mapping[str, object]) -> str:
    """The page as text. provenance: of the tables, as `read_provenance` gives it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sambench.results"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        sections=[
            {
                "name": section.table.name,
                "title": section.table.title,
                "explanation": section.table.explanation,
                "figure": Markup(section.figure),
                "metric": "mIoU" if "miou" in section.rows else "AP",
                "overview": _html(overview(section.rows), "overview") if "selection" in section.rows else "",
                "table": _html(presentable(section.rows, section.table.decimals), "full"),
            }
            for section in sections
        ],
        provenance=provenance,
        libraries=read_libraries(provenance),
        config=json.dumps(config, indent=2, default=str),
    )


def _html(table: pd.DataFrame, kind: str) -> Markup:
    """A table as HTML; the page itself lays columns of words to the left."""
    return Markup(table.to_html(index=False, border=0, classes=f"table {kind}", escape=True))
