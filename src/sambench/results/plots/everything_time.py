"""The figure `everything_time`: recall of segment everything against its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sambench.results.figure import Figure

TITLE = "Segment everything: recall against time"


def draw(tables: Mapping[str, pd.DataFrame]) -> Any:
    from sambench.results.drawing import Drawing, choose, inline, nothing, small_title, stacked
    from sambench.results.front import HEIGHT, SIZE, front_panel

    rows = tables["segevery"].dropna(subset=["ms_per_image", "ar_1000"])
    if rows.empty:
        return nothing(TITLE)
    names = (
        "dataset",
        "device",
        "variant",
        "runtime",
        "sampler",
        "ms_per_image",
        "masks_per_image",
        "ar_100",
        "ar_1000",
    )
    rows = rows[list(names)]
    look: dict[str, Any] = {
        "cost": "ms_per_image",
        "quality": "ar_1000",
        "titles": ("time per image, ms", "AR@1000, %"),
        "colour": "sampler",
        "shown": {"variant": "variant", "runtime": "runtime", "sampler": "sampler", "ar_1000": "AR@1000, %"}
        | {"ar_100": "AR@100, %", "ms_per_image": "ms per image", "masks_per_image": "masks per image"},
    }
    panels = []
    for (dataset, device), part in rows.groupby(["dataset", "device"], sort=False):
        panel = front_panel(inline(part), part, height=SIZE[1], **look)
        panels.append(panel.properties(width=SIZE[0], height=SIZE[1], title=small_title(f"{dataset}, {device}")))
    lines = [panels[at : at + 2] for at in range(0, len(panels), 2)]
    panel = front_panel(inline(rows), rows, height=HEIGHT, **look)
    panel = choose(panel, rows, ["dataset", "device", "sampler", "runtime"], everything=["sampler", "runtime"])
    return Drawing(stacked(lines, TITLE), panel.properties(width="container", height=HEIGHT))


FIGURE = Figure(
    name="everything_time",
    order=51,
    title=TITLE,
    alt="Scatter of the average recall of the best 1,000 masks over the time of an image, one point per variant, "
    "runtime and sampler; a dashed step line joins the Pareto front. The numbers are in the table Segment everything.",
    takes=("segevery",),
    draw=draw,
    module=__name__,
)
