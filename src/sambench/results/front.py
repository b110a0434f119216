"""Quality against cost, with the Pareto front: variants that no other one beats at the same or a lower cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from sambench.results.drawing import palette, tooltips

SIZE = (330, 270)  # width and height of a panel of the static figure, pixels
HEIGHT = 270  # of the panel in the report
LINE = 20  # pixels of height that a name has to itself
LEFT = 0.25  # room for names left of the cheapest variant, as a part of the range of costs


def front(rows: pd.DataFrame, cost: str, quality: str) -> pd.DataFrame:
    """The rows of the front by rising cost: each is better than all that cost less or as much.

    Rows without either number are on no front.
    """
    known = rows.dropna(subset=[cost, quality]).sort_values([cost, quality], ascending=[True, False], kind="stable")
    best = known[quality].cummax().shift()
    return known[best.isna() | (known[quality] > best)]


def front_panel(
    data: Any,
    rows: pd.DataFrame,
    *,
    cost: str,
    quality: str,
    titles: tuple[str, str],
    colour: str,
    shown: Mapping[str, str],
    height: int,
    ends: tuple[str, str] | None = None,
) -> Any:
    """Points, those of the front with their names and a line: the best quality at each cost.

    data: what is drawn, `rows` or what a reader chose of them. cost, quality: columns. titles: of both axes. colour:
    the column that colours tell. shown: titles by column of what a mark tells. ends: the columns of the interval of the
    quality. height: of the panel in pixels. The front follows from the data where they are drawn, as in `front`.
    """
    x_scale = alt.Scale(type="log", nice=False, padding=12)
    y_scale = alt.Scale(zero=False, nice=False, padding=16)
    axis = alt.Axis(format=",.4~r", tickCount=5, labelOverlap=True)
    x = alt.X(f"{cost}:Q", title=titles[0], scale=x_scale, axis=axis)
    y = alt.Y(f"{quality}:Q", title=titles[1], scale=y_scale, axis=alt.Axis(format=".4~r", tickCount=6))
    names = rows[colour].dropna().drop_duplicates().tolist()
    legend = alt.Legend(orient="top", direction="horizontal", titleOrient="left", offset=2, symbolOpacity=1)
    ink = alt.Color(
        f"{colour}:N",
        scale=palette(names),
        title=colour.replace("_", " "),
        legend=legend if len(names) > 1 else None,
    )
    there = f"isValid(datum[{cost!r}]) && datum[{cost!r}] > 0 && isValid(datum[{quality!r}])"
    base = (
        alt.Chart(data)
        .transform_filter(there)
        .transform_joinaggregate(lowest=f"min({quality})", highest=f"max({quality})")
    )
    order: list[Any] = [alt.SortField(cost), alt.SortField(quality, order="descending")]
    best = (
        base.transform_window([_window("max", quality, "best")], sort=order, frame=[None, 0])
        .transform_window([_window("lag", "best", "before")], sort=order)
        .transform_filter(f"!isValid(datum.before) || datum[{quality!r}] > datum.before")
    )
    line = best.mark_line(interpolate="step-after", strokeWidth=1.5, strokeDash=[5, 3], color="#888").encode(
        x=x, y=y, order=f"{cost}:Q"
    )
    interval = []
    if ends:
        low = alt.Y(f"{ends[0]}:Q", title=titles[1], scale=y_scale)
        interval = [base.mark_rule(opacity=0.3).encode(x=x, y=low, y2=f"{ends[1]}:Q", color=ink)]
    dot = base.mark_point(filled=True, size=55, opacity=0.75)
    points = dot.encode(x=x, y=y, color=ink, tooltip=tooltips(shown, rows))
    ring = best.mark_point(size=90, strokeWidth=1.5, color="#888").encode(x=x, y=y)
    # Left of a point of the front and above it there is no other point. Of names that would lie on one another the best
    # variant's is written.
    line_of = f"floor((datum[{quality!r}] - datum.lowest) / (datum.highest - datum.lowest || 1) * {height / LINE:.3g})"
    one = (
        best.transform_calculate(line=line_of)
        .transform_window([_window("row_number", None, "place")], groupby=["line"], sort=order[1:])
        .transform_filter("datum.place == 1")
    )
    text = one.mark_text(align="right", baseline="bottom", dx=-5, dy=-3, fontSize=10, clip=False)
    label = text.encode(x=x, y=y, text="variant:N")
    edge = (
        base.transform_aggregate(least=f"min({cost})", most=f"max({cost})", low=f"min({quality})")
        .transform_calculate(edge=f"datum.least * pow(datum.least / datum.most, {LEFT})")
        .mark_point(opacity=0)
        .encode(x=alt.X("edge:Q", title=titles[0], scale=x_scale, axis=axis), y=alt.Y("low:Q", title=titles[1]))
    )
    return alt.layer(*interval, line, points, ring, label, edge)


def _window(operation: str, column: str | None, name: str) -> alt.WindowFieldDef:
    found = {"op": operation, "as": name} | ({"field": column} if column else {})
    return alt.WindowFieldDef.from_dict(found)
