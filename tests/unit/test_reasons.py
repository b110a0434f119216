"""Why numbers are missing: each job says it in its file, and the report and the overview repeat it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from sambench.parquet import write_parquet
from sambench.provenance import REASON, why_none
from sambench.results.presentation import overview_page
from sambench.results.reasons import reasons
from sambench.results.report import Page, render
from sambench.results.tables.summary import TABLE
from sambench.status import BAD_WEIGHTS, NO_DEVICE, OK

SCHEMA = pa.schema([pa.field("n", pa.int32())])


def written(file: Path, status: str, reason: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(file, SCHEMA.empty_table(), SCHEMA, why_none(status, reason))
    return file


def test_reasons_are_told_once_with_all_that_they_are_about(tmp_path: Path) -> None:
    assert why_none(OK, "") == {} and why_none(NO_DEVICE, "no GPU") == {REASON: "no device: no GPU"}
    segany = tmp_path / "segany" / "mine"
    files = [
        written(segany / "mobilesam/gpu/boxes/0-of-2.parquet", NO_DEVICE, "no GPU"),
        written(segany / "tinysam/gpu/boxes/0-of-2.parquet", NO_DEVICE, "no GPU"),
        written(segany / "tinysam/gpu/points/0-of-2.parquet", NO_DEVICE, "no GPU"),
        written(segany / "tinysam/eager/boxes/0-of-2.parquet", BAD_WEIGHTS, "x.pt: <b> cut"),
        written(segany / "mobilesam/eager/boxes/0-of-2.parquet", OK),
        written(tmp_path / "boxes/mine/yolov8n.parquet", "no weights", "put them there"),
        segany / "absent/eager/boxes/0-of-2.parquet",
    ]
    lines = reasons(files)
    assert lines == [
        "mobilesam @ gpu, tinysam @ gpu: no device: no GPU",
        "tinysam @ eager: bad weights: x.pt: <b> cut",
        "yolov8n: no weights: put them there",
    ]
    page = overview_page([], lines)
    assert page == "why numbers are missing:\n- " + "\n- ".join(lines) + "\n"


def test_the_report_says_why() -> None:
    from sambench.results.table import all_tables

    table = all_tables()[TABLE.name]
    row = dict.fromkeys(table.schema.names) | {"dataset": "mine", "variant": "x", "runtime": "eager"}
    row |= {"status": BAD_WEIGHTS} | {field.name: [] for field in table.schema if pa.types.is_map(field.type)}
    rows = pa.Table.from_pylist([row], table.schema).to_pandas()
    html = render(Page("study", [(table, rows)], reasons=["x @ eager: bad weights: <b> cut"]))
    assert "<li>x @ eager: bad weights: &lt;b&gt; cut</li>" in html
