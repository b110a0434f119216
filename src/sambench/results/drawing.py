"""What figures share: a picture for papers beside one to explore, data inlined as CSV, choices, sorted dot plots.

A figure is drawn twice. `static` goes into SVG and PNG: small panels side by side, headline prompts and rules only.
`interactive` goes into the report: one panel as wide as the page, in which a reader chooses data set, prompt, rule and
runtime and points at marks to read their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from sambench.files import atomic, write_text

# Tableau's, then Okabe and Ito's where they differ enough.
COLOURS = [
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#d4a100", "#000000", "#ff9da6"),
    *("#0072b2", "#999999", "#6a3d9a", "#009e73"),
]
ROW, FEW_ROW = 13, 20  # pixels of a variant's line in a dot plot, of many variants and of few
FEW = 15
PANEL_WIDTH = 210
LABEL_LIMIT = 170  # pixels of a variant's name
COLUMNS = 5  # panels side by side
# What panels are titled by and readers choose among.
NAMES = {"dataset": "data set", "prompt": "prompt", "selection": "rule", "runtime": "runtime", "sampler": "sampler"}


@dataclass(frozen=True)
class Drawing:
    """A figure: for files, and for the report, where the static one is shown if there is no other, and none if it is
    empty."""

    static: Any
    interactive: Any = None
    empty: bool = False

    @property
    def for_report(self) -> Any:
        return self.interactive if self.interactive is not None else self.static


def drawing(drawn: Any) -> Drawing:
    """What a `draw` function gave, a chart or a Drawing, as a Drawing."""
    return drawn if isinstance(drawn, Drawing) else Drawing(drawn)


def inline(rows: pd.DataFrame) -> alt.InlineData:
    """Rows as CSV inside the specification: a third of the size of Vega-Lite's JSON. Numbers get five digits."""
    parse = {}
    for name in rows:
        numbers, truth = pd.api.types.is_numeric_dtype(rows[name]), pd.api.types.is_bool_dtype(rows[name])
        parse[str(name)] = "boolean" if truth else "number" if numbers else "string"
    text = rows.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


def choose(chart: Any, rows: pd.DataFrame, names: Sequence[str], everything: Sequence[str] = ()) -> Any:
    """A chart with a menu for each of these columns that has several values; the first one is chosen at first.

    everything: the columns whose values may all be shown at once, which is what they start with.
    """
    for name in names:
        values = rows[name].dropna().drop_duplicates().tolist()
        if len(values) < 2:
            continue
        labels = [str(value) for value in values]
        if name in everything:
            values, labels = [None, *values], ["all", *labels]
        menu = alt.binding_select(options=values, labels=labels, name=NAMES.get(name, name.replace("_", " ")))
        parameter = f"chosen_{name}"
        test = f"{parameter} == null || datum[{name!r}] == {parameter}"
        chart = chart.add_params(alt.param(name=parameter, value=values[0], bind=menu)).transform_filter(test)
    return chart


def tooltips(fields: Mapping[str, str], rows: pd.DataFrame) -> list[alt.Tooltip]:
    """What is shown of a mark: title by column, of the columns that the rows have; numbers with four digits."""
    return [
        alt.Tooltip(name, type="quantitative", format=",.4~r", title=title)
        if pd.api.types.is_numeric_dtype(rows[name])
        else alt.Tooltip(name, type="nominal", title=title)
        for name, title in fields.items()
        if name in rows
    ]


def palette(names: Sequence[str]) -> alt.Scale:
    """A colour for each name, in their order."""
    return alt.Scale(domain=list(names), range=[COLOURS[i % len(COLOURS)] for i in range(len(names))])


def limits(*columns: pd.Series, margin: float = 0.04) -> list[float]:
    """The ends of an axis around all that is drawn on it."""
    values = pd.concat([column.dropna().astype(float) for column in columns])
    if values.empty:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    room = margin * (high - low) or 1.0
    return [low - room, high + room]


def dot_plot(
    rows: pd.DataFrame,
    *,
    value: str,
    title: str,
    colour: str,
    colours: Sequence[str],
    panels: Sequence[str],
    choices: Sequence[str],
    everything: Sequence[str] = (),
    ends: tuple[str, str] | None = None,
    heading: str = "",
    headline: Mapping[str, Sequence[str]] | None = None,
    joined: bool = False,
) -> Drawing:
    """One line per variant, best first, with a dot for each value of the column `colour` and its interval.

    rows: with the columns variant, status, `value`, `ends` (of intervals) and those that are named; a variant without a
    number keeps its line, with its status on it. panels: two columns, whose values are panels of the static figure: the
    first one's below one another, the second one's side by side. headline: the values of columns that the static figure
    is about. choices, everything: see `choose`. joined: dots of a variant are joined by a line. title, heading: of the
    axis and of the figure.
    """
    if rows.empty:
        return nothing(heading)
    low, high = ends or (value, value)
    named = [name for name in ("dataset", "variant", "runtime", "prompt", "selection", "detector") if name in rows]
    data = rows[[*dict.fromkeys([*named, colour, *panels, *choices, value, low, high, "status"])]]
    shown = {name: NAMES.get(name, name) for name in [*named, colour]} | {value: title, low: "from", high: "to"}

    def panel(data: Any, chosen: pd.DataFrame, scale: alt.Scale, order: Any, limit: int) -> Any:
        several = len(colours) > 1
        base = alt.Chart(data).encode(
            y=alt.Y(
                "variant:N",
                sort=order,
                title=None,
                axis=alt.Axis(labels=limit > 0, labelLimit=limit, grid=True, ticks=False),
            ),
            tooltip=tooltips(shown, chosen),
        )
        ink = alt.Color(
            f"{colour}:N",
            scale=palette(colours),
            title=NAMES.get(colour, colour.replace("_", " ")),
            legend=alt.Legend(orient="top") if several else None,
        )
        axis = alt.Axis(format=".4~r", tickCount=5)
        x = alt.X(f"{value}:Q", title=title, scale=scale, axis=axis)
        number = base.transform_filter(f"isValid(datum[{value!r}])")
        layers = []
        if joined:
            layers.append(
                number.mark_rule(opacity=0.35, strokeWidth=2).encode(
                    x=alt.X(f"min({value}):Q", title=title, scale=scale, axis=axis), x2=f"max({value}):Q", tooltip=[]
                )
            )
        # Side by side where they would lie on one another.
        beside = {"yOffset": alt.YOffset(f"{colour}:N", sort=list(colours))} if several and not joined else {}
        if ends:
            layers.append(
                number.mark_rule(strokeWidth=1.5).encode(
                    x=alt.X(f"{low}:Q", title=title, scale=scale, axis=axis), x2=f"{high}:Q", color=ink, **beside
                )
            )
        layers.append(number.mark_point(filled=True, size=34, opacity=1).encode(x=x, color=ink, **beside))
        without = base.transform_filter(f"!isValid(datum[{value!r}])").mark_text(align="left", fontSize=9, opacity=0.8)
        layers.append(without.encode(x=alt.value(3), text="status:N"))
        return alt.layer(*layers)

    kept = data
    for name, values in (headline or {}).items():
        kept = kept[kept[name].isin(list(values))]
    ranked = kept.groupby("variant")[value].mean().sort_values(ascending=False, na_position="last").index.tolist()
    scale = alt.Scale(domain=limits(kept[value], kept[low], kept[high]), nice=False, zero=False, clamp=True)
    row = ROW if len(ranked) > FEW else FEW_ROW
    height = row * len(ranked)
    columns: list[Any] = []
    lines: list[list[Any]] = []
    for first, of_first in kept.groupby(panels[0], sort=False):
        groups = [(key, part) for key, part in of_first.groupby(panels[1], sort=False)]
        for at, (second, part) in enumerate(groups):
            plot = panel(inline(part), part, scale, ranked, 0 if columns else LABEL_LIMIT)
            plot = plot.properties(width=PANEL_WIDTH, height=height, title=small_title(f"{first}: {second}"))
            columns.append(plot)
            if len(columns) == COLUMNS or at + 1 == len(groups):
                lines.append(columns)
                columns = []
    static = stacked(lines, heading)
    order = alt.EncodingSortField(field=value, op="max", order="descending")
    free = alt.Scale(zero=False, nice=False, padding=12)
    interactive = panel(inline(data), data, free, order, 130)
    interactive = choose(interactive, data, choices, everything).properties(width="container", height=height)
    return Drawing(static, interactive)


def small_title(text: str | Sequence[str]) -> alt.TitleParams:
    """The title of a panel."""
    return alt.TitleParams(text, anchor="start", fontSize=11, fontWeight="bold")


def stacked(lines: Sequence[Sequence[Any]], title: str, subtitle: str = "") -> dict[str, Any]:
    """Lines of panels below one another under one title; without any, a figure that says so.

    Put together as a plain specification: altair copies all panels, data included, at every step of a nested chart.
    """
    if not lines:
        return dict(nothing(title).static.to_dict())
    config: dict[str, Any] = {}
    rows = []
    for panels in lines:
        specs = [panel.to_dict(validate=False, context={"pre_transform": False}) for panel in panels]
        for spec in specs:
            config = spec.pop("config", config)
            for key in ("$schema", "usermeta"):
                spec.pop(key, None)
        rows.append({"hconcat": [_own_data(spec) for spec in specs], "spacing": 12})
    look = {"view": {"stroke": None}, "axis": {"gridColor": "#e5e5e5"}}
    return {
        "$schema": alt.SCHEMA_URL,
        "config": {**config, **look},
        "title": {"text": title, "anchor": "start", "fontSize": 15} | ({"subtitle": subtitle} if subtitle else {}),
        "padding": 5,
        "vconcat": rows,
        "resolve": {"scale": {"color": "independent", "size": "independent"}},
    }


def _own_data(spec: dict[str, Any]) -> dict[str, Any]:
    """A panel with its data inside instead of at the top of the whole specification."""
    datasets = spec.pop("datasets", {})

    def fill(part: Any) -> Any:
        if isinstance(part, dict):
            if {*part} <= {"name", "format"} and part.get("name") in datasets:
                return {**part, "values": datasets[part["name"]]}
            return {key: fill(value) for key, value in part.items()}
        return [fill(item) for item in part] if isinstance(part, list) else part

    return fill(spec) if datasets else spec


def nothing(title: str, words: str = "no numbers") -> Drawing:
    """A figure without anything to draw says so."""
    text = alt.Chart(pd.DataFrame({"text": [words]})).mark_text().encode(text="text:N")
    return Drawing(text.properties(title=title), empty=True)


def save(drawn: Any, path: Path) -> None:
    """Write what a `draw` function gave; the suffix decides, .svg or .png."""
    write(drawing(drawn).static, [path])


def write(chart: Any, paths: Sequence[Path]) -> None:
    """Write a chart to several files; the suffix of each decides, .svg or .png. It is laid out once."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(chart if isinstance(chart, dict) else specification(chart))
    for path in paths:
        if path.suffix == ".svg":
            write_text(path, svg)
        else:
            with atomic(path) as temporary:
                temporary.write_bytes(vl_convert.svg_to_png(svg, scale=2))


def specification(chart: Any) -> dict[str, Any]:
    """A chart as Vega-Lite."""
    return dict(chart.to_dict(validate=False, context={"pre_transform": False}))
