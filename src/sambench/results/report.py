"""The report: one HTML page with the tables, the figures and where they come from; needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import pandas as pd
from markupsafe import Markup

from sambench.results.tables import overview, presentable


@dataclass(frozen=True)
class Section:
    """A table of the report with its figure as SVG text."""

    name: str
    title: str
    explanation: str
    table: pd.DataFrame
    figure: str = ""


EXPLANATIONS = {
    "boxes": "Mean IoU in per cent of the masks that box prompts give, with the 95 % interval of a bootstrap over "
    "images. box is the annotation's box, tight_box the box of its mask, noisy_box the annotation's box, every side "
    "moved by about a tenth of its extent.",
    "points": "Mean IoU in per cent of the masks that point prompts give. box_center is the centre of the annotation's "
    "box, mask_center the pixel deepest inside the mask, random_k k pixels of the mask, click_k k interactive clicks.",
}


def render(sections: Sequence[Section], provenance: Mapping[str, str], config: Mapping[str, object]) -> str:
    """The page as text. provenance: of the tables, as `read_provenance` gives it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sambench.results"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        sections=[
            {
                "name": section.name,
                "title": section.title,
                "explanation": section.explanation,
                "figure": Markup(section.figure),
                "overview": _html(overview(section.table)),
                "table": _html(presentable(section.table)),
            }
            for section in sections
        ],
        provenance=provenance,
        libraries=json.loads(provenance.get("libraries", "{}")),
        config=json.dumps(config, indent=2, default=str),
    )


def _html(table: pd.DataFrame) -> Markup:
    return Markup(table.to_html(index=False, border=0, classes="table", escape=True))
