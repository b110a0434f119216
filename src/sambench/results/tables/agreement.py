"""The table `agreement`: the masks of a runtime against those of eager float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.measured import jobs_of, read_measured
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Table, concat, status_of, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

# Mean and lowest IoU, same_token, and area (of the image that a mask covers) in per cent.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights", "decoder")],
        *[pa.field(n, pa.float64()) for n in ("miou", "miou_low", "miou_high", "lowest", "same_token", "area")],
        *[pa.field(n, pa.int64()) for n in ("prompts", "images")],
        pa.field("status", pa.string()),
    ]
)


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": jobs_of(study, "agreement"), "statistics": study.bootstrap}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    runs = read_measured(results, "agreement", settings["jobs"], records.AGREEMENT)
    return concat([line(facts, rows, **settings["statistics"]) for facts, rows in runs], SCHEMA)


def line(facts: Mapping[str, Any], rows: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """The line of one variant and runtime, with the columns of SCHEMA.

    rows: columns of records.AGREEMENT. facts: columns of the same name. The interval is a bootstrap over images.
    """
    fixed = {name: value for name, value in facts.items() if name in SCHEMA.names}
    good = rows[rows["status"] == OK]
    fixed |= {"prompts": len(good), "images": good["image_id"].nunique(), "status": status_of(rows["status"])}
    if good.empty:
        return typed([fixed], SCHEMA)
    iou = 100 * good["iou"]
    low, high = clustered_bootstrap(iou.to_numpy(), good["image_id"].to_numpy(), resamples=resamples, seed=seed)
    fixed |= {"miou": iou.mean(), "miou_low": low, "miou_high": high, "lowest": iou.min()}
    fixed |= {"same_token": 100 * good["same_token"].astype(float).mean(), "area": 100 * good["area"].mean()}
    return typed([fixed], SCHEMA)


TABLE = Table(
    name="agreement",
    order=100,
    title="Agreement of runtimes",
    explanation="Mean IoU in per cent of the masks of a runtime with those of eager float32 and the official decoder "
    "on the same boxes: what a faster runtime changes. With random weights it compares runtimes, not variants.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime"),
    selected=lambda study: "agreement" in study["measures"],
    sources=lambda study: study.measured_files("agreement"),
    settings=settings,
    build=build,
    units=dict.fromkeys(("miou", "miou_low", "miou_high", "lowest", "same_token", "area"), "%"),
    decimals={"miou": 2, "lowest": 2},
    metrics="agreement/{column}",
)
