"""Distributions as a heat map: one line per variant, so that forty can be compared at a glance."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from sambench.results.drawing import (
    COLUMNS,
    FEW,
    FEW_ROW,
    LABEL_LIMIT,
    PANEL_WIDTH,
    ROW,
    Drawing,
    choose,
    inline,
    nothing,
    small_title,
    stacked,
    tooltips,
)
from sambench.results.layout import CEILING

TITLE = "IoU of single masks"


def distribution_chart(table: pd.DataFrame) -> Drawing:
    """How many masks have an IoU in each tenth, variants with the highest median first.

    table: rows of the table `iou_distribution`. The static figure is about the headline prompts in the first runtime.
    """
    from sambench.results.headlines import headlines

    rows = table[(table["variant"] != CEILING) & table["p50"].notna()]
    if rows.empty:
        return nothing(TITLE)
    tenths = [name for name in rows if name.startswith("from_")]
    keys = ["dataset", "variant", "runtime", "prompt", "p50"]
    long = rows[[*keys, *tenths]].melt(keys, var_name="tenth", value_name="share")
    long["iou"] = long["tenth"].str.removeprefix("from_").astype(int)
    long["end"] = long["iou"] + 10
    long = long.drop(columns="tenth")

    def panel(data: Any, order: Any, limit: int) -> Any:
        x = alt.X("iou:Q", title="IoU, %", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(grid=False))
        y = alt.Y("variant:N", sort=order, title=None, axis=alt.Axis(labels=limit > 0, labelLimit=limit, ticks=False))
        scale = alt.Scale(scheme="blues", type="sqrt", domainMin=0)
        legend = alt.Legend(orient="top", gradientLength=120, titleOrient="left")
        shown = {"variant": "variant", "runtime": "runtime", "iou": "IoU from, %", "end": "to"}
        shown |= {"share": "masks, %", "p50": "median IoU, %"}
        return (
            alt.Chart(data)
            .mark_rect()
            .encode(
                x=x,
                x2="end:Q",
                y=y,
                color=alt.Color("share:Q", title="masks, %", scale=scale, legend=legend),
                tooltip=tooltips(shown, long),
            )
        )

    kept = long[(long["runtime"] == long["runtime"].iloc[0]) & long["prompt"].isin(headlines(long["prompt"]))]
    ranked = kept.groupby("variant")["p50"].mean().sort_values(ascending=False).index.tolist()
    height = (ROW if len(ranked) > FEW else FEW_ROW) * len(ranked)
    lines = []
    for dataset, part in kept.groupby("dataset", sort=False):
        panels = [
            panel(inline(own), ranked, 0 if at else LABEL_LIMIT).properties(
                width=PANEL_WIDTH, height=height, title=small_title(f"{dataset}: {prompt}")
            )
            for at, (prompt, own) in enumerate(part.groupby("prompt", sort=False))
        ]
        lines += [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]
    order = alt.EncodingSortField(field="p50", op="max", order="descending")
    interactive = choose(panel(inline(long), order, 130), long, ["dataset", "prompt", "runtime"])
    return Drawing(stacked(lines, TITLE), interactive.properties(width="container", height=height))
