"""Reliability curves: one small panel per variant, so that forty can be read."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from sambench.results.headlines import headlines

PANEL, COLUMNS = 120, 6  # pixels of a side; panels in a row
COLOURS = ("#4c78a8", "#f58518")


def reliability_chart(bins: pd.DataFrame) -> alt.FacetChart | alt.Chart:
    """Mean IoU against predicted IoU, with the diagonal on which a prediction is right.

    bins: rows of the table `calibration_bins`. Drawn are the headline box and point prompts in
    the first runtime of each variant; several data sets are told apart by dashes.
    """
    if bins.empty:
        return alt.Chart(pd.DataFrame({"text": ["no predicted IoU"]})).mark_text().encode(text="text:N")
    prompts = headlines(bins["prompt"])
    first = bins.groupby("variant", sort=False)["runtime"].transform("first")
    drawn = bins[bins["prompt"].isin(prompts) & (bins["runtime"] == first)]
    order = drawn["variant"].drop_duplicates().tolist()
    starts = [10 * math.floor(min(drawn[name].min(), 90) / 10) for name in ("predicted", "miou")]
    across, up = (alt.Scale(domain=[start, 100], nice=False) for start in starts)
    axis = alt.Axis(tickCount=4, grid=True, gridColor="#e8e8e8")
    base = alt.Chart(drawn).encode(
        x=alt.X("predicted:Q", title="predicted IoU, %", scale=across, axis=axis),
        color=alt.Color("prompt:N", title="prompt", scale=alt.Scale(domain=prompts, range=COLOURS[: len(prompts)])),
    )
    y = alt.Y("miou:Q", title="IoU, %", scale=up, axis=axis)
    band = base.mark_area(opacity=0.2, clip=True).encode(
        y=alt.Y("miou_low:Q", title="IoU, %", scale=up), y2="miou_high:Q"
    )
    line = base.mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=14)).encode(y=y)
    if drawn["dataset"].nunique() > 1:
        dash = alt.StrokeDash("dataset:N", title="data set")
        band, line = band.encode(detail="dataset:N"), line.encode(strokeDash=dash)
    # The diagonal is a row of its own per panel: a layer of a facet has to share its data.
    diagonal = (
        alt.Chart(drawn)
        .transform_calculate(low=str(max(starts)), high="100")
        .mark_rule(color="#999", strokeWidth=1, strokeDash=[3, 3])
        .encode(
            x=alt.X("low:Q", title="predicted IoU, %", scale=across),
            x2="high:Q",
            y=alt.Y("low:Q", title="IoU, %", scale=up),
            y2="high:Q",
        )
    )
    return (
        alt.layer(diagonal, band, line)
        .properties(width=PANEL, height=PANEL)
        .facet(
            facet=alt.Facet("variant:N", sort=order, title=None, header=alt.Header(labelFontWeight="bold")),
            columns=COLUMNS,
        )
        .properties(title="What the predicted IoU is worth")
        .configure_view(stroke="#ddd")
    )
