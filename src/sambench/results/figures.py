"""The tables as pictures, where people would rather look than read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from sambench.files import atomic
from sambench.status import OK

WIDTH, ROW_HEIGHT = 150, 22  # pixels of a panel and of a variant's line in it
PANEL = (560, 460)  # width and height of a figure of costs, pixels
LETTER, LINE = 6.2, 13.0  # width of a letter and height of a line of labels, pixels
Panel = alt.LayerChart | alt.FacetChart  # what alt.layer may give
# Tableau's, then Okabe and Ito's where they differ enough.
COLOURS = [
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#d4a100", "#000000", "#ff9da6"),
    *("#0072b2", "#999999", "#6a3d9a", "#009e73"),
]


def accuracy_chart(table: pd.DataFrame, title: str, metric: str = "mIoU, %") -> alt.FacetChart:
    """Mean IoU by variant with its 95 % interval: one panel a prompt set, one row of panels a dataset.

    table: rows of a table of mean IoU; metric: what its column `miou` is. Only the headline rule `argmax` is drawn; a
    variant without a number keeps its line, with the status on it.
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
    base = alt.Chart(drawn.drop(columns=["crowd"], errors="ignore")).encode(
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, grid=True, gridColor="#eee"))
    )
    scale = alt.Scale(domain=[0, 115], nice=False)
    axis = alt.Axis(values=[0, 25, 50, 75, 100], grid=True, gridColor="#ddd")
    x = alt.X("miou:Q", title=metric, scale=scale, axis=axis)
    interval = base.mark_rule(strokeWidth=2, color="#4c78a8").encode(
        x=alt.X("miou_low:Q", scale=scale, axis=axis, title=metric), x2="miou_high:Q"
    )
    dot = base.mark_point(filled=True, size=45, opacity=1, color="#4c78a8").encode(x=x)
    text = base.mark_text(align="left", dx=5, fontSize=10, color="#333").encode(
        x=alt.X("at:Q", scale=scale, axis=axis, title=metric), text="text:N"
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


def precision_chart(table: pd.DataFrame) -> alt.FacetChart:
    """AP of masks by variant: one panel a detector, with the AP of its boxes; one row of panels a dataset.

    table: rows of the table `average_precision`.
    """
    headed = table["detector"] + [f" (boxes {ap:.1f})" if pd.notna(ap) else "" for ap in table["box_ap"]]
    renamed = table.assign(prompt=headed, miou=table["ap"], miou_low=np.nan, miou_high=np.nan)
    columns = ["dataset", "variant", "runtime", "prompt", "selection", "miou", "miou_low", "miou_high", "status"]
    return accuracy_chart(renamed[columns], "Instance segmentation", "AP of masks, %")


def cumulative_chart(latency: pd.DataFrame) -> alt.VConcatChart:
    """Time of an image and its first k boxes, one line a variant with its interval as a band: the survey's figure 16.

    latency: rows of the table `latency`. One panel a dataset and device; a line is named at its end.
    """
    good = _named(latency[latency["status"] == OK])
    panels = [_cumulative_panel(rows, str(dataset)) for (dataset, _), rows in good.groupby(["dataset", "device"])]
    return _stacked(panels, "Time of one image and its boxes")


def _cumulative_panel(rows: pd.DataFrame, dataset: str) -> Panel:
    height = PANEL[1]
    low, high = (
        rows["cumulative_low"].fillna(rows["cumulative_ms"]),
        rows["cumulative_high"].fillna(rows["cumulative_ms"]),
    )
    last = rows["boxes"].max()
    ends = rows.sort_values("boxes").groupby("label").tail(1).sort_values("cumulative_ms")
    domain = _decades(low.min(), high.max())
    across = np.log10(domain[1] / domain[0])
    heights = spread((np.log10(ends["cumulative_ms"] / domain[0]) / across * height).tolist(), LINE, height)
    ends = ends.assign(at=[domain[0] * 10 ** (value / height * across) for value in heights])
    names = ends["label"].tolist()[::-1]
    columns = ["label", "boxes", "cumulative_ms", "low", "high"]
    base = alt.Chart(rows.assign(low=low, high=high)[columns])
    x = alt.X("boxes:Q", title="boxes", scale=alt.Scale(domain=[0, last], nice=False))
    scale = alt.Scale(type="log", domain=domain, nice=False)
    y = alt.Y("cumulative_ms:Q", title="cumulative time, ms", scale=scale, axis=alt.Axis(format="~g"))
    colour = alt.Color("label:N", sort=names, legend=None, scale=alt.Scale(domain=names, range=_colours(len(names))))
    band = base.mark_area(opacity=0.2, clip=True).encode(
        x=x, y=alt.Y("low:Q", scale=scale, title="cumulative time, ms"), y2="high:Q", color=colour
    )
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22)).encode(x=x, y=y, color=colour)
    text = (
        alt.Chart(ends[["label", "at", "boxes"]])
        .mark_text(align="left", dx=8, fontSize=11, clip=False)
        .encode(x=x, y=alt.Y("at:Q", scale=scale, title="cumulative time, ms"), text="label:N", color=colour)
    )
    return _panel(alt.layer(band, line, text), rows, dataset)


def cost_chart(efficiency: pd.DataFrame, latency: pd.DataFrame) -> alt.VConcatChart:
    """Time of one image and box against FLOPs, the area of a bubble its parameters: the cost part of figure 17.

    efficiency, latency: rows of the tables of these names. One panel a dataset and device.
    """
    times = _named(latency[(latency["status"] == OK) & (latency["boxes"] == 1)])
    counted = efficiency.loc[efficiency["status"] == OK, ["variant", "flops_g", "params_m"]]
    good = times.merge(counted, on="variant")
    panels = [_cost_panel(rows, str(dataset)) for (dataset, _), rows in good.groupby(["dataset", "device"])]
    return _stacked(panels, "Time against operations")


def _cost_panel(rows: pd.DataFrame, dataset: str) -> Panel:
    width, height = PANEL
    largest = 1800.0  # square pixels of the largest bubble
    domains = {name: _decades(rows[name].min(), rows[name].max(), 1.35) for name in ("flops_g", "segany_ms")}
    places = []
    for name, length in (("flops_g", width), ("segany_ms", height)):
        first, end = domains[name]
        places.append((np.log10(rows[name] / first) / np.log10(end / first) * length).to_numpy())
    radii = np.sqrt(rows["params_m"] / rows["params_m"].max() * largest / np.pi).to_numpy()
    offsets = place_labels(places[0], places[1], radii, rows["label"].tolist(), (width, height))
    drawn = rows[["label", "flops_g", "segany_ms", "params_m"]].assign(dx=offsets[:, 0], dy=-offsets[:, 1])
    titles = {"flops_g": "FLOPs of one image and box, G", "segany_ms": "time of one image and box, ms"}
    flops, time = (alt.Scale(type="log", domain=domains[name], nice=False) for name in ("flops_g", "segany_ms"))
    x = alt.X("flops_g:Q", title=titles["flops_g"], scale=flops, axis=alt.Axis(format="~g", tickCount=6))
    y = alt.Y("segany_ms:Q", title=titles["segany_ms"], scale=time, axis=alt.Axis(format="~g"))
    base = alt.Chart(drawn).encode(x=x, y=y)
    top = rows["params_m"].max()
    size = alt.Size(
        "params_m:Q",
        title="parameters, M",
        scale=alt.Scale(type="linear", domain=[0, top], range=[0, largest]),
        legend=alt.Legend(values=[_round(top * share) for share in (0.1, 0.3, 1.0)], symbolFillColor="#9ab6d4"),
    )
    bubbles = base.mark_circle(opacity=0.6, color="#4c78a8", stroke="#2b4a6b", strokeWidth=0.5).encode(size=size)
    # Vega-Lite has no encoding of a text's offset: each label is a layer of its own.
    labels = [
        alt.Chart(drawn.iloc[[i]])
        .mark_text(align="left", baseline="middle", fontSize=11, dx=float(row.dx), dy=float(row.dy))
        .encode(x=x, y=y, text="label:N")
        for i, row in enumerate(drawn.itertuples())
    ]
    return _panel(alt.layer(bubbles, *labels), rows, dataset)


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
    x: np.ndarray, y: np.ndarray, radii: np.ndarray, labels: Sequence[str], size: tuple[int, int]
) -> np.ndarray:
    """Where to write labels beside bubbles: offsets (N, 2) of a label's left middle from its bubble's centre.

    x, y: (N,) pixels from the lower left, y upwards. Each label takes the first of eight places around its bubble that
    is inside the panel and overlaps the fewest bubbles and labels before it.
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
        taken.append(boxes[best])
        offsets.append(choices[best])
    return np.array(offsets).reshape(-1, 2)


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """Square pixels that two boxes x0, y0, x1, y1 share."""
    shared = [min(one[2 + axis], two[2 + axis]) - max(one[axis], two[axis]) for axis in (0, 1)]
    return max(0.0, shared[0]) * max(0.0, shared[1])


def _outside(box: tuple[float, ...], size: tuple[int, int]) -> bool:
    return box[0] < 0 or box[1] < 0 or box[2] > size[0] or box[3] > size[1]


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """With a column `label`: the variant, and its runtime where there are several."""
    several = table["runtime"].nunique() > 1
    return table.assign(label=table["variant"] + " @ " + table["runtime"] if several else table["variant"])


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
    title = alt.TitleParams(facts, anchor="start", fontSize=11, fontWeight="normal", color="#555")
    return chart.properties(width=width, height=height, title=title)


def _stacked(panels: Sequence[Panel], title: str) -> alt.VConcatChart:
    # Without anything to draw, a figure that says so.
    shown: list[Any] = list(panels) or [
        alt.Chart(pd.DataFrame({"text": ["no times"]})).mark_text().encode(text="text:N")
    ]
    return (
        alt.vconcat(*shown, padding={"left": 5, "top": 5, "bottom": 5, "right": 5})
        .resolve_scale(color="independent", size="independent")
        .properties(title=alt.TitleParams(title, anchor="start", fontSize=15))
        .configure_view(stroke=None)
        .configure_axis(gridColor="#e8e8e8")
    )


def _decades(low: float, high: float, margin: float = 1.15) -> tuple[float, float]:
    """A domain of a logarithmic axis around values."""
    return float(low) / margin, float(high) * margin


def _round(value: float) -> float:
    """To two significant digits."""
    return float(f"{value:.2g}")


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def save(chart: alt.FacetChart | alt.VConcatChart, path: Path) -> None:
    """Write a chart; the suffix decides, .svg or .png."""
    with atomic(path) as temporary:  # keeps the suffix
        chart.save(str(temporary), scale_factor=2)
