"""The table `interactive`: mean IoU after each click, and the number of clicks to an IoU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.declared import Column, InSummary, Missing, Published, not_ok
from sambench.results.measured import jobs_of, read_measured
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Table, concat, status_of, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

TARGETS = (80, 85, 90)  # IoU in per cent, of the number of clicks

# miou in per cent after so many clicks; reached_q: instances in per cent that have had an IoU of q % by then. The same
# on all lines of a protocol: noc_q, the mean number of clicks to q %, and failed_q, instances in per cent that never
# get there, which count as the most clicks.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights", "decoder")],
        pa.field("protocol", pa.string()),
        pa.field("clicks", pa.int32()),
        *[pa.field(n, pa.float64()) for n in ("miou", "miou_low", "miou_high")],
        *[pa.field(f"reached_{q}", pa.float64()) for q in TARGETS],
        *[pa.field(f"noc_{q}", pa.float64()) for q in TARGETS],
        *[pa.field(f"failed_{q}", pa.float64()) for q in TARGETS],
        pa.field("seconds_per_click", pa.float64()),
        *[pa.field(n, pa.int64()) for n in ("instances", "crowd", "images")],
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)


def settings(study: Study) -> dict[str, Any]:
    wanted = study.plain["interactive"]
    return {
        "jobs": jobs_of(study, "interactive"),
        "clicks": wanted["clicks"],
        "protocols": wanted["protocols"],
        "statistics": study.bootstrap,
    }


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    runs = read_measured(results, "interactive", settings["jobs"], records.INTERACTIVE)
    wanted = {name: settings[name] for name in ("clicks", "protocols")}
    return concat([lines(facts, rows, **wanted, **settings["statistics"]) for facts, rows in runs], SCHEMA)


def lines(
    facts: Mapping[str, Any],
    rows: pd.DataFrame,
    *,
    clicks: int,
    protocols: Iterable[str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The lines of one variant and runtime, with the columns of SCHEMA: one per protocol and number of clicks.

    rows: columns of records.INTERACTIVE. facts: columns of the same name. clicks: the most that an instance gets; one
    that does not reach an IoU counts as so many (as in RITM, arXiv 2102.06583, section 5). Of a variant that takes
    fewer clicks there are fewer lines. The interval is a bootstrap over images.
    """
    fixed = {name: value for name, value in facts.items() if name in SCHEMA.names}
    table: list[dict[str, Any]] = []
    for protocol in protocols:
        own = rows[(rows["protocol"] == protocol) | rows["protocol"].isna()]
        good = own[own["status"] == OK]
        line = fixed | {
            "protocol": protocol,
            "instances": len(good),
            "crowd": int(good["iscrowd"].astype(bool).sum()),
            "images": good["image_id"].nunique(),
            "status": status_of(own["status"]),
        }
        if good.empty:
            table.append(line)
            continue
        iou = 100 * np.stack(good["iou"].to_numpy())
        first = int(good["first"].iloc[0])
        line["seconds_per_click"] = float(np.stack(good["seconds"].to_numpy())[:, 1 - first :].mean())
        best = np.maximum.accumulate(iou, axis=1)
        for target in TARGETS:
            needed = clicks_to(iou, target, first, clicks)
            line |= {f"noc_{target}": needed.mean(), f"failed_{target}": 100 * float((best[:, -1] < target).mean())}
        for at in range(iou.shape[1]):
            low, high = clustered_bootstrap(iou[:, at], good["image_id"].to_numpy(), resamples=resamples, seed=seed)
            reached = {f"reached_{target}": 100 * float((best[:, at] >= target).mean()) for target in TARGETS}
            means = {"clicks": first + at, "miou": iou[:, at].mean(), "miou_low": low, "miou_high": high}
            table.append(line | means | reached)
    return typed(table, SCHEMA)


def clicks_to(iou: np.ndarray, target: float, first: int, most: int) -> np.ndarray:
    """(N,) clicks after which instances first have an IoU of `target`; `most` for those that never do.

    iou: (N, K) after `first` clicks, one more, and so on.
    """
    reached = iou >= target
    return np.where(reached.any(axis=1), first + reached.argmax(axis=1), most)


def in_summary(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
    """Of clicks alone, or else of the first protocol."""
    own = rows[rows["protocol"] == "clicks"]
    own = rows[rows["protocol"] == rows["protocol"].iloc[0]] if own.empty else own
    third = own.loc[own["clicks"] == 3, "miou"]
    cells = {"noc_85": own["noc_85"].iloc[0], "miou_3_clicks": None if third.empty else third.iloc[0]}
    return cells, not_ok(["clicks"], own.iloc[:1])


def draw(*tables: Any) -> Any:
    from sambench.results.figures import curve_chart

    return curve_chart(
        tables[0],
        x=("clicks", "clicks"),
        y=("miou", "mIoU, %"),
        panel="protocol",
        title="Interactive segmentation",
        band=("miou_low", "miou_high"),
    )


TABLE = Table(
    name="interactive",
    order=25,
    title="Interactive segmentation",
    explanation="Mean IoU in per cent after k clicks, each on the largest error of the last answer, with the 95 % "
    "interval of a bootstrap over images. noc_q is the mean number of clicks to an IoU of q %; an instance that never "
    "gets there counts as the most clicks, and failed_q says how many those are. Protocols: clicks alone, the box "
    "first, and both with the logits of each answer going back to the decoder (fed).",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "protocol", "clicks"),
    selected=lambda study: "interactive" in study["measures"],
    sources=lambda study: study.measured_files("interactive"),
    settings=settings,
    build=build,
    units=dict.fromkeys(("miou", "miou_low", "miou_high"), "%")
    | {f"{name}_{q}": unit for q in TARGETS for name, unit in (("reached", "%"), ("failed", "%"), ("noc", "clicks"))}
    | {"seconds_per_click": "s"},
    decimals={f"noc_{q}": 2 for q in TARGETS} | {"seconds_per_click": 4},
    metrics="interactive/{column}/{protocol}",
    series=dict.fromkeys(("miou", "miou_low", "miou_high", *(f"reached_{q}" for q in TARGETS)), "clicks"),
    published=Published(setting=("protocol", "clicks"), of_data=True),
    summary=InSummary(
        word="clicks",
        order=80,
        columns=(
            Column(name="miou_3_clicks", order=60, unit="%"),
            Column(name="noc_85", order=60, unit="clicks", decimals=2),
        ),
        cells=in_summary,
        explanation="miou_3_clicks and noc_85: mean IoU after three clicks, and clicks to an IoU of 85 %;",
    ),
    drawn_from=("interactive",),
    draw=draw,
)
