"""The figure `object_size`: mean IoU of small, medium and large objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sambench.results.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

SIZES = {"miou_small": "small", "miou_medium": "medium", "miou_large": "large"}
TITLE = "Accuracy by object size"


def draw(tables: Mapping[str, pd.DataFrame]) -> Any:
    from sambench.results.drawing import dot_plot
    from sambench.results.headlines import headlines
    from sambench.results.plots._accuracy import accuracy_rows

    rows = accuracy_rows(tables)
    rows = rows[rows["selection"] == "argmax"]
    keys = ["dataset", "variant", "runtime", "prompt", "status"]
    sizes = rows[[*keys, *SIZES]].rename(columns=SIZES).melt(keys, var_name="size", value_name="miou")
    return dot_plot(
        sizes,
        value="miou",
        title="mIoU, %",
        colour="size",
        colours=list(SIZES.values()),
        panels=["dataset", "prompt"],
        choices=["dataset", "prompt", "runtime"],
        heading=TITLE,
        headline={"prompt": headlines(rows["prompt"]), "runtime": rows["runtime"].unique()[:1]},
        joined=True,
    )


FIGURE = Figure(
    name="object_size",
    order=21,
    title=TITLE,
    alt="Dot plot, one line per variant with its mean IoU on small, medium and large objects (areas below 32², below "
    "96² and from 96² pixels on). The numbers are in the tables Box prompts and Point prompts.",
    takes=("accuracy_boxes", "accuracy_points"),
    enough=bool,
    draw=draw,
    module=__name__,
)
