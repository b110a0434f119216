"""The report: one HTML page that opens on the answer, with all tables and figures and where they come from.

It needs no network and no other file: figures are specifications that the inlined Vega draws, tables are data that a
script of ours sorts and filters. Both are filled in when their section is opened.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from sambench.provenance import read_libraries
from sambench.results.drawing import Drawing, specification
from sambench.results.figure import Figure
from sambench.results.front import front
from sambench.results.layout import HEADLINE, HIGHER_IS_BETTER, choosable, four_digits, in_words, lay_out
from sambench.results.table import SUFFIXES, Table

KINDS = {".parquet": "Parquet", ".csv": "CSV", ".md": "Markdown", ".tex": "LaTeX", ".svg": "SVG", ".png": "PNG"}
FIRST_SCREEN = "summary"  # the table at the top, with the figure `pareto` before it
MACHINE = ("device", "threads")


@dataclass(frozen=True)
class Data:
    """A data set of the study. notes: what is known of its files, such as a digest."""

    name: str
    images: int
    instances: int
    title: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """All that a report says.

    tables: with their rows, in the order of the page. figures: with the SVG of their files, for readers without
    JavaScript. gallery: of each data set, see gallery.view.of_dataset. reasons: why numbers are missing. config: of the
    study. provenance: of the tables, see `read_provenance`.
    """

    study: str
    tables: Sequence[tuple[Table, pd.DataFrame]]
    figures: Sequence[tuple[Figure, str]] = ()
    datasets: Sequence[Data] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    gallery: Sequence[Mapping[str, Any]] = ()
    reasons: Sequence[str] = ()
    date: datetime.date = field(default_factory=datetime.date.today)


def render(page: Page) -> str:
    """The page as text; names are escaped wherever they stand."""
    rows = {table.name: part for table, part in page.tables}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sambench.results"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates = Path(__file__).parent / "templates"
    some = next(iter(rows.values()), pd.DataFrame())
    return environment.get_template("report.html").render(
        study=page.study,
        date=f"{page.date.day} {page.date:%B %Y}",
        variants=some["variant"].nunique() if "variant" in some else 0,
        runtimes=some["runtime"].unique().tolist() if "runtime" in some else [],
        datasets=page.datasets,
        machines=machines(rows.values()),
        sections=sections(page),
        provenance=page.provenance,
        libraries=read_libraries(page.provenance),
        config=json.dumps(page.config, indent=2, default=str),
        style=Markup((templates / "report.css").read_text(encoding="utf-8")),
        script=Markup((templates / "report.js").read_text(encoding="utf-8")),
        vega=Markup(bundle()) if page.figures else "",
    )


def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that needs nothing else."""
    import vl_convert

    make: Any = vl_convert.javascript_bundle  # its stub asks for an argument that it does not need
    return str(make()).replace("</script", r"<\/script")


def sections(page: Page) -> list[dict[str, Any]]:
    """The sections of the page, in order: a table with its own figure, or a figure alone; those that are open first."""
    tables = {table.name: (table, rows) for table, rows in page.tables if not rows.empty}
    every = {name: rows for name, (_, rows) in tables.items()}
    drawn = {}
    for figure, svg in page.figures:
        taken = figure.tables(every)
        drawing = figure.drawn({name: every[name] for name in taken}) if taken else None
        if drawing is not None and not drawing.empty:
            drawn[figure.name] = (figure, _figure(figure, drawing, svg))
    at_top = "pareto" if "pareto" in drawn else next((name for name in drawn if name in tables), "")
    found: list[tuple[int, dict[str, Any]]] = []
    for name, (table, rows) in tables.items():
        section = _section(table, rows)
        if name == FIRST_SCREEN:
            section |= {"open": True, "best": best(every), "figure": drawn[at_top][1] if at_top else None}
            section["reasons"] = page.reasons
        elif name in drawn and name != at_top:
            section["figure"] = drawn[name][1]
        found.append((table.order, section))
    for name, (alone, shown) in drawn.items():
        if name != at_top and name not in tables:
            found.append((alone.order, {"name": name, "title": alone.title, "figure": shown}))
    if page.gallery:
        count = sum(len(each["pictures"]) for each in page.gallery)
        found.append(
            (4, {"name": "gallery", "title": "Pictures", "count": f"{count} instances", "gallery": page.gallery})
        )
    return [section for _, section in sorted(found, key=lambda pair: (not pair[1].get("open"), pair[0]))]


def _section(table: Table, rows: pd.DataFrame) -> dict[str, Any]:
    if table.name == FIRST_SCREEN:
        best_first = {"by": ["miou_box", "miou_point"], "ascending": False, "na_position": "last", "kind": "stable"}
        rows = pd.concat([part.sort_values(**best_first) for _, part in rows.groupby("dataset", sort=False)])
    layout = lay_out(table, rows)
    columns = [
        {
            "name": column.name,
            "title": column.title,
            "unit": column.unit,
            "word": column.word,
            "choose": choosable(column),
            "lower": bool(column.better) and column.better != HIGHER_IS_BETTER,
        }
        for column in layout.columns
    ]
    return {
        "name": table.name,
        "title": table.title,
        "explanation": table.explanation,
        "count": f"{len(layout.status):,} rows",
        "same": in_words(layout.same),
        "files": [{"kind": KINDS[suffix], "href": f"../tables/{table.name}{suffix}"} for suffix in SUFFIXES],
        "grid": {
            "columns": columns,
            "rows": [list(cells) for cells in zip(*(column.cells for column in layout.columns), strict=True)],
            "marks": {f"{row},{place}": mark for (row, place), mark in layout.marks.items()},
        },
    }


def _figure(figure: Figure, drawing: Drawing, svg: str) -> dict[str, Any]:
    shown = drawing.for_report
    return {
        "alt": figure.alt,
        "spec": (shown if isinstance(shown, dict) else specification(shown)) | {"description": figure.alt},
        "svg": Markup(svg),
        "files": [{"kind": KINDS[suffix], "href": f"../figures/{figure.name}{suffix}"} for suffix in (".svg", ".png")],
    }


def best(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """The variants of the Pareto front of each data set and machine, from the fastest to the most accurate."""
    from sambench.results.headlines import headlines
    from sambench.results.plots.pareto import costs_beside_accuracy, measured_costs

    if not any(name.startswith("accuracy") for name in tables):
        return None
    rows = costs_beside_accuracy(tables)
    costs = measured_costs(rows)
    if not costs or rows.empty:
        return None
    summary = tables.get(FIRST_SCREEN, pd.DataFrame(columns=["variant", "runtime", "licence_weights"]))
    licences = summary.drop_duplicates("variant").set_index("variant")["licence_weights"]
    several = rows["runtime"].nunique() > 1
    fronts = []
    for (dataset, device), part in rows.groupby(["dataset", "device"], sort=False):
        costs = measured_costs(part)
        if not costs:
            continue
        cost, title = next(iter(costs.items()))
        name, _, unit = title.rpartition(", ")
        prompt = headlines(part["prompt"])[0]
        found = front(part[(part["prompt"] == prompt) & (part["selection"] == HEADLINE)], cost, "miou")
        lines = [
            [
                row["variant"],
                *([row["runtime"]] if several else []),
                f"{row['miou']:.1f}",
                four_digits(row[cost]),
                licences.get(row["variant"]) or "",
            ]
            for row in found.to_dict("records")
        ]
        words, numbers = (
            ["variant", *(["runtime"] if several else []), "licence of weights"],
            ["mIoU, %", f"cost, {unit}"],
        )
        fronts.append(
            {
                "title": f"The front on {dataset}",
                "words": f"mIoU with {prompt}. Cost: {name}{f', {device}' if cost.endswith('_ms') else ''}.",
                "columns": [{"title": each, "word": each in words} for each in (*words[:-1], *numbers, words[-1])],
                "rows": lines,
            }
        )
    return {"words": "No other variant is as accurate at the same cost or less.", "fronts": fronts}


def machines(tables: Iterable[pd.DataFrame]) -> list[str]:
    """The machines that the rows of tables were timed on, with the CPU threads where these were written down."""
    found: dict[str, set[int]] = {}
    for rows in tables:
        if "device" not in rows:
            continue
        for device, part in rows[rows["device"].fillna("") != ""].groupby("device", sort=False):
            threads = part["threads"].dropna().astype(int) if "threads" in part else []
            found.setdefault(str(device), set()).update(threads)
    return [
        f"{device} (CPU threads: {', '.join(map(str, sorted(threads)))})" if threads else device
        for device, threads in found.items()
    ]
