"""The table `latency`: times of an image and its boxes, from the times of single images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.declared import KEY, Column, Cost, InSummary, Missing, Published, not_ok
from sambench.results.measured import jobs_of, read_measured
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Table, all_tables, concat, find_table, read_tables, status_of, table_files, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

RANDOM = "random weights"  # why a time may be another one than that of the published weights
STEP = 10  # boxes between two points of the cumulative time

# Times in ms, see `lines`. weights: checkpoint, random or none. encodes: per image or per prompt. first_ms: the first
# call, compilation included. others: cores that other processes kept busy meanwhile; busy: whether that spoils the
# timing. Behind LENT_AFTER stand the columns that other tables lend.
LENT_AFTER = "first_ms"
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights", "decoder")],
        pa.field("encodes", pa.string()),
        pa.field("boxes", pa.int32()),
        *[
            pa.field(n, pa.float64())
            for n in (
                *("cumulative_ms", "cumulative_low", "cumulative_high", "segany_ms", "prepare_ms", "encode_ms"),
                *("decode_ms", "upsample_ms", "p50", "p90"),
            )
        ],
        pa.field("n", pa.int64()),
        *[pa.field(n, pa.float64()) for n in ("peak_memory_mib", "requested_mib", "first_ms", "others")],
        pa.field("threads", pa.int32()),
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)


def tables_needed(study: Study) -> dict[str, str]:
    return table_files(study, [name for name, table in all_tables().items() if table.lends and table.selected(study)])


def sources(study: Study) -> list[str]:
    return [*study.measured_files("latency"), *tables_needed(study).values()]


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": jobs_of(study, "latency"), "statistics": study.bootstrap, "tables": tables_needed(study)}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    whole = find_table("latency").schema
    found = read_tables(settings["tables"])
    lent = [loan.cells(rows) for name, rows in found.items() if (loan := find_table(name).lends)]
    tables = []
    for facts, times in read_measured(results, "latency", settings["jobs"], records.LATENCY):
        key = tuple(facts[name] for name in KEY)
        for cells in lent:
            facts |= cells.get(key, {})
        tables.append(lines(facts, times, whole, **settings["statistics"]))
    return concat(tables, whole)


def with_lent(table: Table, others: Iterable[Table]) -> Table:
    """The table with the columns that others lend, and their units."""
    loans = {other.module: other.lends for other in others if other.lends}
    lent = [column for loan in loans.values() for column in loan.columns]
    fields = [*table.schema]
    place = table.schema.get_field_index(LENT_AFTER) + 1
    fields[place:place] = [pa.field(column.name, column.type) for column in lent]
    units = {column.name: column.unit for column in lent if column.unit}
    return replace(table, schema=pa.schema(fields), units={**table.units, **units}, declared_in=tuple(loans))


def lines(
    facts: Mapping[str, Any], times: pd.DataFrame, schema: pa.Schema = SCHEMA, *, resamples: int, seed: int
) -> pd.DataFrame:
    """The lines of one variant and runtime: at the first box and at every tenth, with the columns of the schema.

    times: columns of records.LATENCY. facts: dataset, variant, runtime and what is known of the run, columns of the
    same name. cumulative_ms is the mean over images of encoding and the boxes so far, with the 95 % interval of a
    bootstrap over images; segany_ms the mean of one image and one box; all other times are medians. Preparation on the
    CPU (reading left out, resizing included) is apart: it can overlap with the device's work.
    """
    fixed = {**facts, "status": status_of(times["status"])}
    fixed |= {name: times[name].max() for name in ("peak_memory_mib", "requested_mib")}
    good = times[times["status"] == OK]
    if good.empty:
        return typed([fixed | {"n": 0}], schema)
    decode, upsample = (np.stack(good[name].to_numpy()) for name in ("decode_ms", "upsample_ms"))
    cumulative = good["encode_ms"].to_numpy()[:, None] + np.cumsum(decode + upsample, axis=1)
    fixed |= {
        "n": len(good),
        "segany_ms": cumulative[:, 0].mean(),
        "prepare_ms": good["prepare_ms"].median(),
        "encode_ms": good["encode_ms"].median(),
        "decode_ms": np.median(decode),
        "upsample_ms": np.median(upsample),
    }
    count = decode.shape[1]
    rows = []
    for boxes in sorted({1, *range(STEP, count + 1, STEP), count}):
        times_so_far = cumulative[:, boxes - 1]
        low, high = clustered_bootstrap(times_so_far, good["image_id"].to_numpy(), resamples=resamples, seed=seed)
        p50, p90 = np.quantile(times_so_far, [0.5, 0.9])
        rows.append(
            fixed
            | {"boxes": boxes, "cumulative_ms": times_so_far.mean(), "cumulative_low": low, "cumulative_high": high}
            | {"p50": p50, "p90": p90}
        )
    return typed(rows, schema)


def one_box(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that hold the time of one image and its first box."""
    return rows[rows["boxes"] == 1]


def in_summary(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
    first = rows.iloc[0]
    cells = {name: first[name] for name in ("device", "encode_ms", "segany_ms", "peak_memory_mib", "busy")}
    missing = not_ok(["time"], rows.iloc[:1])
    if pd.notna(first["segany_ms"]):
        cells["box_ms"] = first["decode_ms"] + first["upsample_ms"]
        missing += [("time", RANDOM)] if first["weights"] == "random" else []
    return cells, missing


def draw(*tables: Any) -> Any:
    from sambench.results.figures import cumulative_chart

    return cumulative_chart(tables[0])


TABLE = Table(
    name="latency",
    order=80,
    title="Time of promptable segmentation",
    explanation="Milliseconds for one image and for one more box, and the cumulative time of 10, 20, ... boxes. "
    "busy: others used the machine meanwhile, so times are too long. decoder: official is the mask decoder as "
    "published, fast the same function with fewer products. encodes: per prompt where prompts enter before the "
    "encoder; encode_ms is then only the preparing of the image, and decode_ms the whole network.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "boxes"),
    selected=lambda study: "latency" in study["measures"],
    sources=sources,
    settings=settings,
    build=build,
    units={name: "ms" for name in SCHEMA.names if name.endswith("_ms") or name in ("p50", "p90")}
    | {"peak_memory_mib": "MiB", "requested_mib": "MiB"},
    metrics="latency/{column}",
    series=dict.fromkeys(("cumulative_ms", "cumulative_low", "cumulative_high", "p50", "p90"), "boxes"),
    completed=with_lent,
    published=Published(rows=one_box),
    summary=InSummary(
        word="time",
        order=50,
        columns=(
            Column(name="encode_ms", order=90, unit="ms", title="image, ms"),
            Column(name="box_ms", order=90, unit="ms", title="box, ms"),
            Column(name="segany_ms", order=90, unit="ms"),
            Column(name="peak_memory_mib", order=110, unit="MiB", title="MiB", digits=0),
        ),
        cells=in_summary,
        explanation="encode_ms is the time of an image, box_ms of one box, segany_ms of both with their means.",
    ),
    costs=(
        Cost(
            column="segany_ms",
            order=10,
            title="time of one image and box, ms",
            rows=lambda rows: one_box(rows[rows["status"] == OK]),
        ),
    ),
    drawn_from=("latency",),
    draw=draw,
)
