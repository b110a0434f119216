"""The table `energy`: joules of an image with its boxes, and whether clocks were held down meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.measured import jobs_of, read_measured
from sambench.results.table import Table, concat, typed

if TYPE_CHECKING:
    from sambench.study import Study

# part: gpu or cpu. joules_per_image: of all that the part took; net_joules_per_image: less what it takes when idle.
# mhz, mhz_low: of the clock, mean and lowest. throttled_by: why it was held down.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights", "decoder")],
        *[pa.field(n, pa.string()) for n in ("part", "meter")],
        pa.field("batch", pa.int32()),
        *[
            pa.field(n, pa.float64())
            for n in ("joules_per_image", "net_joules_per_image", "watts", "idle_watts", "mhz", "mhz_low")
        ],
        pa.field("throttled", pa.bool_()),
        pa.field("throttled_by", pa.string()),
        pa.field("n", pa.int64()),
        *[pa.field(n, pa.float64()) for n in ("boxes_per_image", "seconds", "others")],
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": jobs_of(study, "energy")}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    runs = read_measured(results, "energy", settings["jobs"], records.ENERGY)
    return concat([lines(facts, rows) for facts, rows in runs], SCHEMA)


def lines(facts: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """One line per part of one variant and runtime, with the columns of SCHEMA.

    rows: columns of records.ENERGY. facts: columns of the same name.
    """
    table = []
    for row in rows.to_dict("records"):
        line = {name: value for name, value in {**facts, **row}.items() if name in SCHEMA.names and pd.notna(value)}
        line |= {"n": 0, "throttled": bool(row["throttled"]), "throttled_by": row["throttled"] or ""}
        if pd.notna(row["images"]):
            line |= {"n": row["images"], "boxes_per_image": row["boxes"] / row["images"]}
        if pd.notna(row["joules"]):
            net = row["joules"] - row["idle_watts"] * row["seconds"]
            line["watts"] = row["joules"] / row["seconds"]
            line |= {"joules_per_image": row["joules"] / row["images"], "net_joules_per_image": net / row["images"]}
        table.append(line)
    return typed(table, SCHEMA)


TABLE = Table(
    name="energy",
    order=92,
    title="Energy",
    explanation="Joules of an image with its ground-truth boxes, by part of the machine: the board of the GPU, and the "
    "processors with their memory. net: less what the part takes when idle. throttled: the clock was held down "
    "meanwhile, and why; such a row says less of the variant than of the cooling. no meter: the machine counts nothing "
    "there, or does not let it be read.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "part"),
    selected=lambda study: "energy" in study["measures"],
    sources=lambda study: study.measured_files("energy"),
    settings=settings,
    build=build,
    units={"joules_per_image": "J", "net_joules_per_image": "J", "watts": "W", "idle_watts": "W"}
    | {"mhz": "MHz", "mhz_low": "MHz", "seconds": "s"},
    decimals={"joules_per_image": 3, "net_joules_per_image": 3, "mhz": 0, "mhz_low": 0},
    metrics="energy/{column}/{part}",
)
