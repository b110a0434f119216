"""The accuracy tables as pictures, where people would rather look than read."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd

from sambench.files import atomic

WIDTH, ROW_HEIGHT = 150, 22  # pixels of a panel and of a variant's line in it


def accuracy_chart(table: pd.DataFrame, title: str) -> alt.FacetChart:
    """Mean IoU by variant with its 95 % interval: one panel a prompt type, one row of panels a dataset.

    table: columns of schemas.ACCURACY. Only the headline rule `argmax` is drawn; a variant without a number keeps
    its line, with the status on it.
    """
    drawn = table[table["selection"] == "argmax"].copy()
    runtimes = drawn["runtime"].nunique()
    drawn["label"] = drawn["variant"] if runtimes == 1 else drawn["variant"] + " @ " + drawn["runtime"]
    drawn["text"] = [
        f"{miou:.1f}" if pd.notna(miou) else status for miou, status in zip(drawn["miou"], drawn["status"], strict=True)
    ]
    drawn["at"] = drawn["miou_high"].fillna(drawn["miou"]).fillna(0)
    order = drawn.groupby("label")["miou"].mean().sort_values(ascending=False).index.tolist()
    # One wide table of plain columns: Vega-Lite reads inline JSON.
    base = alt.Chart(drawn.drop(columns=["crowd"])).encode(
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, grid=True, gridColor="#eee"))
    )
    scale = alt.Scale(domain=[0, 115], nice=False)
    axis = alt.Axis(values=[0, 25, 50, 75, 100], grid=True, gridColor="#ddd")
    x = alt.X("miou:Q", title="mIoU, %", scale=scale, axis=axis)
    interval = base.mark_rule(strokeWidth=2, color="#4c78a8").encode(
        x=alt.X("miou_low:Q", scale=scale, axis=axis, title="mIoU, %"), x2="miou_high:Q"
    )
    dot = base.mark_point(filled=True, size=45, opacity=1, color="#4c78a8").encode(x=x)
    text = base.mark_text(align="left", dx=5, fontSize=10, color="#333").encode(
        x=alt.X("at:Q", scale=scale, axis=axis, title="mIoU, %"), text="text:N"
    )
    prompts = table["prompt"].drop_duplicates().tolist()
    return (
        alt.layer(interval, dot, text)
        .properties(width=WIDTH, height=alt.Step(ROW_HEIGHT))
        .facet(
            row=alt.Row("dataset:N", title=None, header=alt.Header(labelFontWeight="bold")),
            column=alt.Column("prompt:N", sort=prompts, title=None, header=alt.Header(labelFontWeight="bold")),
        )
        .properties(title=title)
        .configure_view(stroke=None)
    )


def save(chart: alt.FacetChart, path: Path) -> None:
    """Write a chart; the suffix decides, .svg or .png."""
    with atomic(path) as temporary:  # keeps the suffix
        chart.save(str(temporary), scale_factor=2)
