"""The table `volumes`: Dice and IoU of labels in volumes after each click, and what encoding and a click cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.measured import read_measured
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Table, concat, status_of, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

ALL = "all"  # every label, each volume and label counting the same

# dice, iou: means in per cent after so many clicks. covered: voxels of the labels inside of the cubes, in per cent.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights", "label")],
        pa.field("clicks", pa.int32()),
        *[pa.field(n, pa.float64()) for n in ("dice", "dice_low", "dice_high", "iou", "covered")],
        *[pa.field(n, pa.int64()) for n in ("objects", "volumes")],
        *[pa.field(n, pa.float64()) for n in ("encode_seconds", "seconds_per_click", "peak_memory_mib")],
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": [list(job) for job in study.volume_jobs()], "statistics": study.bootstrap}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    runs = read_measured(results, "volumes", settings["jobs"], records.VOLUMES)
    return concat([lines(facts, rows, **settings["statistics"]) for facts, rows in runs], SCHEMA)


def lines(facts: Mapping[str, Any], rows: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """The lines of one variant and runtime, with the columns of SCHEMA: one per label and number of clicks.

    rows: columns of records.VOLUMES. facts: columns of the same name. The interval is a bootstrap over volumes.
    """
    fixed = {name: value for name, value in facts.items() if name in SCHEMA.names}
    table: list[dict[str, Any]] = []
    labels = sorted(rows["label"].dropna().unique())
    for name, own in [(ALL, rows), *((str(int(label)), rows[rows["label"] == label]) for label in labels)]:
        good = own[own["status"] == OK]
        line = fixed | {
            "label": name,
            "objects": len(good),
            "volumes": good["volume"].nunique(),
            "status": status_of(own["status"]),
        }
        if good.empty:
            table.append(line)
            continue
        dice, iou = (100 * np.stack(good[score].to_numpy()) for score in ("dice", "iou"))
        seconds = np.concatenate(good["seconds"].to_numpy())
        line |= {
            "covered": 100 * good["covered"].mean(),
            "encode_seconds": good["encode_seconds"].median(),
            "seconds_per_click": float(np.median(seconds)) if seconds.size else None,
            "peak_memory_mib": good["peak_memory_mib"].max(),
        }
        for at in range(dice.shape[1]):
            groups = good["volume"].to_numpy()
            low, high = clustered_bootstrap(dice[:, at], groups, resamples=resamples, seed=seed)
            means = {"dice": dice[:, at].mean(), "iou": iou[:, at].mean(), "dice_low": low, "dice_high": high}
            table.append(line | {"clicks": at + 1} | means)
    return typed(table, SCHEMA)


TABLE = Table(
    name="volumes",
    order=27,
    title="Volumes",
    explanation="Dice and IoU in per cent of each label in volumes after k clicks, each on the largest error of the "
    "last answer, whose logits go back to the decoder; within a cube around the label, with the 95 % interval of a "
    "bootstrap over volumes. covered: how much of the labels these cubes hold. Not comparable with anything that is "
    "measured on images.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "label", "clicks"),
    selected=lambda study: bool(study["volumes"]),
    sources=lambda study: study.volume_files(),
    settings=settings,
    build=build,
    units=dict.fromkeys(("dice", "dice_low", "dice_high", "iou", "covered"), "%")
    | {"encode_seconds": "s", "seconds_per_click": "s", "peak_memory_mib": "MiB"},
    decimals={"encode_seconds": 3, "seconds_per_click": 4},
    metrics="volumes/{column}/{label}",
    series=dict.fromkeys(("dice", "dice_low", "dice_high", "iou"), "clicks"),
)
