"""The figure `pareto`: accuracy against time, the survey's figure 17 (arXiv 2410.04960)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sambench.results.declared import KEY, Cost
from sambench.results.figure import Figure
from sambench.results.table import all_tables

ACCURACY = ("accuracy_boxes", "accuracy_points")
NOT_TIMED = "not timed"
BELOW = 34  # pixels from an axis to the middle of its title


def enough(tables: frozenset[str]) -> bool:
    return bool(tables & {*ACCURACY}) and bool(tables - {*ACCURACY})


def all_costs() -> list[tuple[str, Cost]]:
    """(table, cost) of everything that accuracy can stand against, dearest to the reader first."""
    found = [(name, cost) for name, table in all_tables().items() for cost in table.costs]
    return sorted(found, key=lambda entry: entry[1].order)


def costs_beside_accuracy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of accuracy (with a number) with a column per cost and `device`; a cost that was not measured is NaN."""
    from sambench.results.plots._accuracy import accuracy_rows

    rows = accuracy_rows(tables)
    rows = rows.loc[rows["miou"].notna(), [*KEY, "prompt", "selection", "miou", "miou_low", "miou_high"]]
    rows = rows.assign(**{cost.column: np.nan for _, cost in all_costs()}, device=None)
    for name, cost in all_costs():
        if name in tables:
            rows = _joined(rows, cost.rows(tables[name]), cost.column)
    # Counts hold on any machine: what was not timed stands with the first one.
    timed = rows["device"].dropna()
    return rows.assign(device=rows["device"].fillna(NOT_TIMED if timed.empty else timed.iloc[0]))


def _joined(rows: pd.DataFrame, other: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows with the cost in that column, and with its device where it is timed."""
    keys = [name for name in KEY if name in other]
    columns = [column, *(["device"] if "device" in other else [])]
    found = rows[keys].merge(other[[*keys, *columns]].drop_duplicates(keys), on=keys, how="left")
    return rows.assign(**{name: rows[name].where(rows[name].notna(), found[name].to_numpy()) for name in columns})


def measured_costs(rows: pd.DataFrame) -> dict[str, str]:
    """The titles of those costs that there are: times, or where nothing was timed what was counted."""
    return {cost.column: cost.title for _, cost in all_costs() if rows[cost.column].notna().any()}


def draw(tables: Mapping[str, pd.DataFrame]) -> Any:
    import altair as alt

    from sambench.results.drawing import Drawing, choose, inline, nothing, small_title, stacked
    from sambench.results.front import HEIGHT, SIZE, front_panel
    from sambench.results.headlines import headlines

    rows = costs_beside_accuracy(tables)
    costs = measured_costs(rows)
    if not costs:
        return nothing(TITLE)
    titles = {"variant": "variant", "runtime": "runtime", "miou": "mIoU, %", "miou_low": "from", "miou_high": "to"}
    shown = titles | costs
    look: dict[str, Any] = {"quality": "miou", "colour": "runtime", "shown": shown, "ends": ("miou_low", "miou_high")}
    argmax = rows[rows["selection"] == "argmax"]
    timed = {name: title for name, title in costs.items() if name.endswith("_ms")} or dict([next(iter(costs.items()))])
    lines = []
    for (dataset, device), part in argmax.groupby(["dataset", "device"], sort=False):
        heading = small_title(f"{dataset}, {device}")
        panels = []
        for cost, title in timed.items():
            for prompt in headlines(part["prompt"]):
                drawn = part[(part["prompt"] == prompt) & part[cost].notna()]
                if not drawn.empty:
                    axes = (title, f"mIoU, {prompt}, %")
                    panel = front_panel(inline(drawn), drawn, cost=cost, titles=axes, height=SIZE[1], **look)
                    panels.append(panel.properties(width=SIZE[0], height=SIZE[1], title=heading))
        lines += [panels] if panels else []
    static = stacked(
        lines, TITLE, "argmax; the dashed line joins variants that no other beats at the same cost or less"
    )
    menu = alt.binding_select(options=list(costs), labels=list(costs.values()), name="cost")
    chosen = alt.param(name="chosen_cost", value=next(iter(costs)), bind=menu if len(costs) > 1 else alt.Undefined)
    # What a reader sees at first has numbers: data sets that were timed come first.
    rows = rows.sort_values(next(iter(costs)), key=lambda cost: cost.isna(), kind="stable")
    panel = front_panel(inline(rows), rows, cost="cost", titles=(" ", "mIoU, %"), height=HEIGHT, **look)
    panel = choose(panel, rows, ["dataset", "device", "prompt", "selection", "runtime"], everything=["runtime"])
    panel = panel.transform_calculate(cost="datum[chosen_cost]")
    # The title of an axis cannot follow a menu: a text in its place does.
    words = alt.expr(f"{json.dumps(costs)}[chosen_cost]")
    at: dict[str, Any] = {"x": alt.expr("width / 2"), "y": alt.expr(f"height + {BELOW}")}
    axis = alt.Chart(alt.InlineData(values=[{}])).mark_text(text=words, fontWeight="bold", **at)
    panel = alt.layer(panel, axis).add_params(chosen)
    return Drawing(static, panel.properties(width="container", height=HEIGHT))


TITLE = "Accuracy against time"
FIGURE = Figure(
    name="pareto",
    order=1,
    title=TITLE,
    alt="Scatter of mean IoU over the time of an image, one point per variant and runtime; a dashed step line joins "
    "the Pareto front, whose variants are named. The numbers are in the tables Summary, Box prompts and Time.",
    takes=(*ACCURACY, *dict.fromkeys(name for name, _ in all_costs())),
    enough=enough,
    draw=draw,
    module=__name__,
)
