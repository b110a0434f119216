"""The table `throughput`: images per second, from the runs of single batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.declared import KEY, Column, Cost, InSummary, Loan, Missing, Published, not_ok
from sambench.results.measured import jobs_of, read_measured
from sambench.results.table import Table, concat, typed
from sambench.status import OK
from sambench.variants.base import PER_PROMPT

if TYPE_CHECKING:
    from sambench.study import Study

# encode_img_s counts the time of the encoder alone, and is empty where it runs per prompt; data_wait in per cent of the
# time.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights", "decoder")],
        pa.field("encodes", pa.string()),
        pa.field("batch", pa.int32()),
        pa.field("best", pa.bool_()),
        *[
            pa.field(n, pa.float64())
            for n in ("throughput_img_s", "encode_img_s", "boxes_per_image", "data_wait", "seconds")
        ],
        pa.field("n", pa.int64()),
        *[pa.field(n, pa.float64()) for n in ("peak_memory_mib", "requested_mib", "others")],
        pa.field("threads", pa.int32()),
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)


RATE = Column(name="throughput_img_s", order=100, unit="images per second", decimals=3, title="images/s", digits=2)
BEST_BATCH = Column(name="best_batch", type=pa.int32())


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": jobs_of(study, "throughput")}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    runs = read_measured(results, "throughput", settings["jobs"], records.THROUGHPUT)
    return concat([lines(facts, rows) for facts, rows in runs], SCHEMA)


def lines(facts: Mapping[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """One line per batch size of one variant and runtime, with the columns of SCHEMA.

    runs: columns of records.THROUGHPUT. facts: columns of the same name. `best` marks the batch with the most
    images per second, the smaller one of equals.
    """
    rows = []
    per_prompt = facts.get("encodes") == PER_PROMPT
    for run in runs.to_dict("records"):
        line = {name: value for name, value in {**facts, **run}.items() if name in SCHEMA.names}
        if run["status"] == OK:
            line |= {
                "n": run["images"],
                "throughput_img_s": run["images"] / run["seconds"],
                "encode_img_s": None if per_prompt else run["images"] / run["encode_seconds"],
                "boxes_per_image": run["boxes"] / run["images"],
                "data_wait": 100 * run["wait_seconds"] / run["seconds"],
            }
        rows.append({"best": False, "n": 0, **line})
    rates = [row.get("throughput_img_s", 0.0) for row in rows]
    if max(rates) > 0:
        rows[rates.index(max(rates))]["best"] = True
    return typed(rows, SCHEMA)


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the batch sizes with the most images per second, one per dataset, variant and runtime at most."""
    return rows[rows["best"].fillna(False).astype(bool)]


def lent(rows: pd.DataFrame) -> dict[tuple[str, ...], dict[str, Any]]:
    return {
        tuple(row[name] for name in KEY): {RATE.name: row[RATE.name], BEST_BATCH.name: row["batch"]}
        for row in best(rows).to_dict("records")
    }


def in_summary(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
    fastest = best(rows)
    if fastest.empty:
        return {}, not_ok(["throughput"], rows.iloc[:1])
    return {name: fastest[name].iloc[0] for name in (RATE.name, "device")}, []


def batch_times(rows: pd.DataFrame) -> pd.DataFrame:
    """The best rows with batch_ms, the time of an image and its ground-truth boxes in a batch."""
    return best(rows).assign(batch_ms=lambda found: 1000 / found[RATE.name])


TABLE = Table(
    name="throughput",
    order=90,
    title="Throughput",
    explanation="Images per second with their ground-truth boxes, read from disk meanwhile, by batch size; data_wait "
    "is the share of the time in per cent that the model waited for images. encodes: per prompt where prompts enter "
    "before the encoder, which then has no images per second of its own.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "batch"),
    selected=lambda study: "throughput" in study["measures"],
    sources=lambda study: study.measured_files("throughput"),
    settings=settings,
    build=build,
    units={"throughput_img_s": "images per second", "encode_img_s": "images per second", "data_wait": "%"}
    | {"seconds": "s", "peak_memory_mib": "MiB", "requested_mib": "MiB"},
    decimals={"throughput_img_s": 3, "encode_img_s": 3},
    metrics="throughput/{column}",
    published=Published(rows=best),
    summary=InSummary(word="throughput", order=60, columns=(RATE,), cells=in_summary),
    costs=(Cost(column="batch_ms", order=20, title="time per image at the best batch size, ms", rows=batch_times),),
    lends=Loan(columns=(RATE, BEST_BATCH), cells=lent),
    series=dict.fromkeys(("throughput_img_s", "encode_img_s", "peak_memory_mib"), "batch"),
)
