"""The figure `selection_rules`: what the rule that picks a mask among the candidates is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sambench.results.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Selection rules"


def draw(tables: Mapping[str, pd.DataFrame]) -> Any:
    from sambench.results.drawing import dot_plot
    from sambench.results.headlines import headlines
    from sambench.results.plots._accuracy import accuracy_rows

    rows = accuracy_rows(tables)
    return dot_plot(
        rows,
        value="miou",
        title="mIoU, %",
        colour="selection",
        colours=rows["selection"].drop_duplicates().tolist(),
        panels=["dataset", "prompt"],
        choices=["dataset", "prompt", "runtime"],
        heading=TITLE,
        headline={"prompt": headlines(rows["prompt"]), "runtime": rows["runtime"].unique()[:1]},
        joined=True,
    )


FIGURE = Figure(
    name="selection_rules",
    order=22,
    title=TITLE,
    alt="Dot plot, one line per variant with the mean IoU by each selection rule: argmax, the mask with the highest "
    "predicted IoU; single, the mask of the single-mask token; oracle, the best of all, which needs the ground truth.",
    takes=("accuracy_boxes", "accuracy_points"),
    enough=bool,
    draw=draw,
    module=__name__,
)
