"""The tables as pictures, where people would rather look than read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from sambench.results.drawing import (
    COLOURS,
    Drawing,
    choose,
    dot_plot,
    inline,
    nothing,
    palette,
    save,
    stacked,
    tooltips,
)
from sambench.results.layout import CEILING
from sambench.status import OK

__all__ = [
    "accuracy_chart",
    "cost_chart",
    "cumulative_chart",
    "curve_chart",
    "place_labels",
    "precision_chart",
    "save",
    "spread",
]

PANEL = (420, 400)  # width and height of a figure of costs, pixels
ACROSS = 2  # such panels side by side
HEIGHT = 420  # of a panel in the report
LETTER, LINE = 6.2, 13.0  # width of a letter and height of a line of labels, pixels
CROWDED = 60.0  # square pixels that a label may share with bubbles and labels before it; else it is left out
Panel = alt.LayerChart | alt.FacetChart  # what alt.layer may give


def accuracy_chart(table: pd.DataFrame, title: str, metric: str = "mIoU, %") -> Drawing:
    """Mean IoU by variant with its 95 % interval, best first: one panel per prompt set, one row of panels per dataset.

    table: rows of a table of mean IoU; metric: what its column `miou` is. The static figure is about the rule `argmax`;
    a variant without a number keeps its line, with the status on it. The ceiling, 100 % by definition, is not drawn.
    """
    rows = table[table["variant"] != CEILING] if metric.startswith("mIoU") else table
    rows = table if rows.empty else rows
    return dot_plot(
        rows,
        value="miou",
        title=metric,
        colour="runtime",
        colours=rows["runtime"].drop_duplicates().tolist(),
        panels=["dataset", "prompt"],
        choices=["dataset", "prompt", "selection"],
        ends=("miou_low", "miou_high") if rows["miou_low"].notna().any() else None,
        heading=title,
        headline={"selection": ["argmax"]},
    )


def precision_chart(table: pd.DataFrame) -> Drawing:
    """AP of masks by variant: one panel per detector, with the AP of its boxes; one row of panels per dataset.

    table: rows of the table `average_precision`.
    """
    headed = table["detector"] + [f" (boxes {ap:.1f})" if pd.notna(ap) else "" for ap in table["box_ap"]]
    renamed = table.assign(prompt=headed, miou=table["ap"], miou_low=np.nan, miou_high=np.nan)
    columns = ["dataset", "variant", "runtime", "prompt", "selection", "miou", "miou_low", "miou_high", "status"]
    return accuracy_chart(renamed[columns], "Instance segmentation", "AP of masks, %")


def cumulative_chart(latency: pd.DataFrame) -> Drawing:
    """Time of an image and its first k boxes, one line per variant with its interval as a band: the survey's figure 16.

    latency: rows of the table `latency`. One panel per dataset, device and runtime; a line is named at its end.
    """
    title = "Time of one image and its boxes"
    good = latency[latency["status"] == OK]
    groups = [(keys, rows) for keys, rows in good.groupby(["dataset", "device", "runtime"], sort=False)]
    if not groups:
        return nothing(title, "no times")
    panels = []
    for (dataset, _, runtime), rows in groups:
        drawn, domain, names = _lines(rows, PANEL[1])
        panel = _cumulative_panel(drawn, drawn, names, domain=domain)
        panels.append(_panel(panel, rows, f"{dataset}, {runtime}"))
    every = pd.concat([_lines(rows, HEIGHT)[0] for _, rows in groups], ignore_index=True)
    names = sorted(every["variant"].unique())
    interactive = choose(_cumulative_panel(every, every, names), every, ["dataset", "device", "runtime"])
    return Drawing(_grid(panels, title), interactive.properties(width="container", height=HEIGHT))


def _lines(rows: pd.DataFrame, height: int) -> tuple[pd.DataFrame, tuple[float, float], list[str]]:
    """Rows of one panel with `low`, `high` and `at`, the time at which the name of a line's last point is written; the
    ends of the axis of times; the names from the slowest to the fastest."""
    low = rows["cumulative_low"].fillna(rows["cumulative_ms"])
    high = rows["cumulative_high"].fillna(rows["cumulative_ms"])
    domain = _decades(low.min(), high.max())
    ends = rows.sort_values("boxes").groupby("variant").tail(1).sort_values("cumulative_ms")
    across = np.log10(domain[1] / domain[0])
    gap = min(LINE, height / max(1, len(ends)))
    heights = spread((np.log10(ends["cumulative_ms"] / domain[0]) / across * height).tolist(), gap, height)
    at = pd.Series([domain[0] * 10 ** (value / height * across) for value in heights], index=ends.index)
    columns = ["dataset", "device", "runtime", "variant", "boxes", "cumulative_ms"]
    return rows[columns].assign(low=low, high=high, at=at), domain, ends["variant"].tolist()[::-1]


def _cumulative_panel(
    data: pd.DataFrame, rows: pd.DataFrame, names: Sequence[str], domain: tuple[float, float] | None = None
) -> Panel:
    last = float(rows["boxes"].max())
    base = alt.Chart(inline(data))
    room = last if domain else 1.3 * last  # in the report names are written inside of the panel
    steps = [tick for tick in (1, 2, 5, 10, 20, 30, 40, 50, 100, 200) if tick <= last]
    x = alt.X("boxes:Q", scale=alt.Scale(domain=[0, room], nice=False), axis=alt.Axis(values=steps), title="boxes")
    scale = alt.Scale(type="log", domain=list(domain) if domain else alt.Undefined, nice=False)
    title = "cumulative time, ms"
    y = alt.Y("cumulative_ms:Q", title=title, scale=scale, axis=alt.Axis(format=",.4~r", tickCount=6))
    ink = alt.Color("variant:N", sort=list(names), legend=None, scale=palette(names))
    band = base.mark_area(opacity=0.2, clip=True).encode(
        x=x, y=alt.Y("low:Q", scale=scale, title=title), y2="high:Q", color=ink
    )
    shown = {"variant": "variant", "runtime": "runtime", "boxes": "boxes", "cumulative_ms": "ms"}
    line = base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=ink)
    dot = base.mark_point(filled=True, size=22, opacity=1).encode(x=x, y=y, color=ink, tooltip=tooltips(shown, rows))
    size = 11 if len(names) <= PANEL[1] / LINE else 9
    text = (
        base.transform_filter("isValid(datum.at)")
        .mark_text(align="left", dx=6, fontSize=size, clip=False)
        .encode(x=x, y=alt.Y("at:Q", scale=scale, title=title), text="variant:N", color=ink)
    )
    return alt.layer(band, line, dot, text)


def cost_chart(efficiency: pd.DataFrame, latency: pd.DataFrame) -> Drawing:
    """Time of one image and box against FLOPs, the area of a bubble its parameters: the cost part of figure 17.

    efficiency, latency: rows of the tables of these names. One panel per dataset, device and runtime.
    """
    title = "Time against operations"
    times = latency[(latency["status"] == OK) & (latency["boxes"] == 1)]
    counted = efficiency.loc[efficiency["status"] == OK, ["variant", "flops_g", "params_m"]]
    good = times.merge(counted, on="variant")
    if good.empty:
        return nothing(title, "no times")
    groups = good.groupby(["dataset", "device", "runtime"], sort=False)
    panels = [_panel(_cost_panel(rows), rows, f"{dataset}, {runtime}") for (dataset, _, runtime), rows in groups]
    names = ["dataset", "device", "runtime", "variant", "flops_g", "segany_ms", "params_m"]
    interactive = choose(_bubbles(good[names]), good, ["dataset", "device", "runtime"])
    return Drawing(_grid(panels, title), interactive.properties(width="container", height=HEIGHT))


TITLES = {"flops_g": "FLOPs of one image and box, G", "segany_ms": "time of one image and box, ms"}
LARGEST = 1200.0  # square pixels of the largest bubble


def _bubbles(rows: pd.DataFrame, domains: dict[str, tuple[float, float]] | None = None) -> Any:
    ends = {name: list(domains[name]) if domains else alt.Undefined for name in TITLES}
    padding = alt.Undefined if domains else 24
    scales = {name: alt.Scale(type="log", domain=ends[name], nice=False, padding=padding) for name in TITLES}
    ticks = alt.Axis(format=",.4~r", tickCount=5)
    x = alt.X("flops_g:Q", title=TITLES["flops_g"], scale=scales["flops_g"], axis=ticks)
    y = alt.Y("segany_ms:Q", title=TITLES["segany_ms"], scale=scales["segany_ms"], axis=ticks)
    top = rows["params_m"].max()
    size = alt.Size(
        "params_m:Q",
        title="parameters, M",
        scale=alt.Scale(type="linear", domain=[0, top], range=[0, LARGEST]),
        legend=alt.Legend(values=[_round(top * share) for share in (0.1, 0.3, 1.0)], orient="top"),
    )
    shown = {"variant": "variant", "runtime": "runtime", "segany_ms": "ms", "flops_g": "GFLOPs", "params_m": "M"}
    bubbles = alt.Chart(inline(rows)).mark_circle(opacity=0.6, color=COLOURS[0])
    return bubbles.encode(x=x, y=y, size=size, tooltip=tooltips(shown, rows))


def _cost_panel(rows: pd.DataFrame) -> Panel:
    width, height = PANEL
    domains = {name: _decades(rows[name].min(), rows[name].max(), 1.35) for name in TITLES}
    places = []
    for name, length in (("flops_g", width), ("segany_ms", height)):
        first, end = domains[name]
        places.append((np.log10(rows[name] / first) / np.log10(end / first) * length).to_numpy())
    radii = np.sqrt(rows["params_m"] / rows["params_m"].max() * LARGEST / np.pi).to_numpy()
    offsets = place_labels(places[0], places[1], radii, rows["variant"].tolist(), (width, height), crowded=CROWDED)
    drawn = rows[["variant", "runtime", "flops_g", "segany_ms", "params_m"]]
    bubbles = _bubbles(drawn, domains)
    # Vega-Lite has no encoding of a text's offset in pixels: the place of a name is that much further in numbers.
    placed = drawn[["variant"]]
    for axis, (name, length) in enumerate((("flops_g", width), ("segany_ms", height))):
        first, end = domains[name]
        placed = placed.assign(**{name: drawn[name] * (end / first) ** (offsets[:, axis] / length)})
    names = (
        alt.Chart(inline(placed[np.isfinite(offsets[:, 0])]))
        .mark_text(align="left", baseline="middle", fontSize=11)
        .encode(x=bubbles.encoding.x, y=bubbles.encoding.y, text="variant:N")
    )
    return alt.layer(bubbles, names)


def curve_chart(
    table: pd.DataFrame,
    *,
    x: tuple[str, str],
    y: tuple[str, str],
    panel: str,
    title: str,
    band: tuple[str, str] | None = None,
) -> Drawing:
    """One line per variant with its interval as a band: one panel per dataset, runtime and value of the column `panel`.

    x, y: a column and what is written at its axis. band: the columns of the ends of the interval. Rows without a number
    are left out, and so is the ceiling beside others.
    """
    good = table[table[y[0]].notna()]
    good = good if (good["variant"] == CEILING).all() else good[good["variant"] != CEILING]
    if good.empty:
        return nothing(title)
    names = sorted(good["variant"].unique())
    low, high = band or (y[0], y[0])
    keys = ["dataset", "runtime", panel]
    data = good[[*dict.fromkeys([*keys, "variant", x[0], y[0], low, high])]]
    free = alt.Scale(zero=False, nice=True)

    # All names, in as many columns as keep the list lower than a panel: by itself Vega leaves out those beyond thirty.
    legend = alt.Legend(symbolLimit=0, columns=math.ceil(len(names) / 24))
    ink = alt.Color("variant:N", title=None, scale=palette(names), legend=legend)

    def lines(rows: pd.DataFrame) -> Panel:
        base = alt.Chart(inline(rows)).encode(x=alt.X(f"{x[0]}:Q", title=x[1], scale=free), color=ink)
        shown = {"variant": "variant", panel: panel, x[0]: x[1], y[0]: y[1], low: "from", high: "to"}
        value = alt.Y(f"{y[0]}:Q", title=y[1], scale=free)
        area = base.mark_area(opacity=0.15).encode(y=alt.Y(f"{low}:Q", title=y[1], scale=free), y2=f"{high}:Q")
        dots = base.mark_point(filled=True, size=22, opacity=1).encode(y=value, tooltip=tooltips(shown, rows))
        return alt.layer(*([area] if band else []), base.mark_line(strokeWidth=1.5).encode(y=value), dots)

    panels = []
    for (dataset, runtime, name), rows in data.groupby(keys, sort=False):
        heading = alt.TitleParams(f"{dataset}, {runtime}: {name}", anchor="start", fontSize=11)
        panels.append(lines(rows).properties(width=PANEL[0], height=PANEL[1], title=heading))
    interactive = choose(lines(data), data, keys).properties(width="container", height=HEIGHT)
    return Drawing(_grid(panels, title), interactive)


def spread(values: Sequence[float], gap: float, end: float) -> list[float]:
    """Ascending positions moved as little as it takes to lie at least `gap` apart, in their order, below `end`.

    Neighbours that are too near form a group that is laid out around its mean (pool adjacent violators).
    """
    groups: list[tuple[float, int]] = []  # mean of value - rank * gap, members
    for rank, value in enumerate(values):
        mean, size = value - rank * gap, 1
        while groups and groups[-1][0] > mean:
            before, members = groups.pop()
            mean, size = (before * members + mean * size) / (members + size), members + size
        groups.append((mean, size))
    placed = [mean for mean, size in groups for _ in range(size)]
    limit = end - gap * (len(placed) - 1)
    return [min(mean, limit) + rank * gap for rank, mean in enumerate(placed)]


def place_labels(
    x: np.ndarray,
    y: np.ndarray,
    radii: np.ndarray,
    labels: Sequence[str],
    size: tuple[int, int],
    crowded: float = np.inf,
) -> np.ndarray:
    """Where to write labels beside bubbles: offsets (N, 2) of a label's left middle from its bubble's centre.

    x, y: (N,) pixels from the lower left, y upwards. Each label takes the first of eight places around its bubble that
    is inside the panel and overlaps the fewest bubbles and labels before it. crowded: square pixels of overlap beyond
    which it is left out, with NaN as its offset.
    """
    taken = [(cx - r, cy - r, cx + r, cy + r) for cx, cy, r in zip(x, y, radii, strict=True)]
    offsets = []
    for i, label in enumerate(labels):
        wide, r = LETTER * len(label), radii[i] + 3
        choices = [
            *((r, 0.0), (-r - wide, 0.0), (-wide / 2, r + LINE / 2), (-wide / 2, -r - LINE / 2)),
            *((0.7 * r, r), (0.7 * r, -r), (-0.7 * r - wide, r), (-0.7 * r - wide, -r)),
        ]
        boxes = [(x[i] + dx, y[i] + dy - LINE / 2, x[i] + dx + wide, y[i] + dy + LINE / 2) for dx, dy in choices]
        costs = [
            sum(_overlap(box, other) for at, other in enumerate(taken) if at != i) + 1e6 * _outside(box, size)
            for box in boxes
        ]
        best = int(np.argmin(costs))
        if costs[best] > crowded:
            offsets.append((np.nan, np.nan))
            continue
        taken.append(boxes[best])
        offsets.append(choices[best])
    return np.array(offsets).reshape(-1, 2)


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """Square pixels that two boxes x0, y0, x1, y1 share."""
    shared = [min(one[2 + axis], two[2 + axis]) - max(one[axis], two[axis]) for axis in (0, 1)]
    return max(0.0, shared[0]) * max(0.0, shared[1])


def _outside(box: tuple[float, ...], size: tuple[int, int]) -> bool:
    return box[0] < 0 or box[1] < 0 or box[2] > size[0] or box[3] > size[1]


def _panel(chart: Panel, rows: pd.DataFrame, dataset: str) -> Panel:
    """A panel with the machine over it, and what is to be known of its times."""
    first = rows.iloc[0]
    threads = ", ".join(str(number) for number in sorted(rows["threads"].dropna().unique()))
    facts = [f"{dataset}, {first['device']}, CPU threads: {threads}"]
    if (rows["weights"] == "random").any():
        facts.append("random weights where there is no checkpoint (they change no time)")
    busy = rows["busy"].fillna(False).astype(bool)
    if busy.any():
        facts.append("the machine was busy with other work: times are too long" if busy.all() else "busy at times")
    width, height = PANEL
    title = alt.TitleParams(facts, anchor="start", fontSize=11, fontWeight="normal", offset=6)
    return chart.properties(width=width, height=height, title=title)


def _grid(panels: Sequence[Panel], title: str) -> Any:
    return stacked([panels[at : at + ACROSS] for at in range(0, len(panels), ACROSS)], title)


def _decades(low: float, high: float, margin: float = 1.15) -> tuple[float, float]:
    """A domain of a logarithmic axis around values."""
    return float(low) / margin, float(high) * margin


def _round(value: float) -> float:
    """To two significant digits."""
    return float(f"{value:.2g}")
