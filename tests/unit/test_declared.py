"""A new table is one file: what it declares reaches the summary, its page, the costs and the tables that borrow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from sambench.parquet import read_parquet
from sambench.results import tables as registry
from sambench.results.declared import KEY
from sambench.results.plots.pareto import all_costs, costs_beside_accuracy, measured_costs
from sambench.results.presentation import write_table
from sambench.results.table import all_tables, find_table, typed
from sambench.results.tables import summary

MODULE = """
import pyarrow as pa

from sambench.results.declared import KEY, Column, Cost, InSummary, Loan, first_of
from sambench.results.table import Table

PRICE = Column(name="cents", order=105, unit="cents", decimals=3, title="cents per image", digits=2)
TABLE = Table(
    name="price",
    order=95,
    title="Price",
    explanation="What an image costs.",
    schema=pa.schema([*[pa.field(n, pa.string()) for n in (*KEY, "status")], pa.field("cents", pa.float64())]),
    key=KEY,
    selected=lambda study: True,
    sources=lambda study: [],
    settings=lambda study: {},
    build=lambda results, settings: None,
    summary=InSummary(
        word="price", order=65, columns=(PRICE,), cells=first_of("price", ("cents",)), explanation="cents: of an image."
    ),
    costs=(Cost(column="cents", order=5, title="price of an image, cents"),),
    lends=Loan(columns=(PRICE,), cells=lambda rows: {
        tuple(row[name] for name in KEY): {"cents": row["cents"]} for row in rows.to_dict("records")
    }),
)
"""
JOBS = [("d", "net", "eager"), ("d", "fill", "eager")]


@pytest.fixture
def price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pd.DataFrame]:
    """Rows of a table `price`, whose module lies in a folder of its own."""
    (tmp_path / "price.py").write_text(MODULE)
    monkeypatch.setattr(registry, "__path__", [*registry.__path__, str(tmp_path)])
    all_tables.cache_clear()
    yield typed([dict(zip(KEY, JOBS[0], strict=True)) | {"cents": 0.125, "status": "ok"}], find_table("price").schema)
    all_tables.cache_clear()
    sys.modules.pop(f"{registry.__name__}.price", None)
    vars(registry).pop("price", None)


def test_a_new_table_is_one_file(price: pd.DataFrame, tmp_path: Path) -> None:
    table = find_table("summary")
    names = table.schema.names
    assert names[names.index("throughput_img_s") : names.index("peak_memory_mib") + 1][1] == "cents"
    assert [table.units["cents"], table.decimals["cents"]] == ["cents", 3]
    assert " cents: of an image. " in table.explanation
    assert f"{registry.__name__}.price" in table.modules
    rows = summary.summary(JOBS, {"price": price}, {})
    assert rows["cents"].fillna(-1).tolist() == [0.125, -1.0]
    assert rows["status"].tolist() == ["ok", "not asked (price)"]
    assert "price" not in rows["not_asked"][0] and ", throughput, cost," in rows["not_asked"][0]
    write_table(tmp_path, table, rows, {})
    assert read_parquet(tmp_path / "summary.parquet", table.schema).num_rows == 2
    page = summary.page(rows.assign(miou_box=[80.0, 60.0], box_prompt="box"))
    assert "cents per image" in page and " 0.12 " in page

    latency = find_table("latency")
    assert latency.schema.names[latency.schema.names.index("first_ms") + 1 :][:4] == [
        *("throughput_img_s", "best_batch", "cents", "others")
    ]
    accuracy = find_table("accuracy_boxes")
    miou = [dict(zip(KEY, job, strict=True)) | {"prompt": "box", "selection": "argmax", "miou": 80.0} for job in JOBS]
    beside = costs_beside_accuracy({"accuracy_boxes": typed(miou, accuracy.schema), "price": price})
    assert all_costs()[0][0] == "price" and measured_costs(beside) == {"cents": "price of an image, cents"}
    assert beside["cents"].fillna(-1).tolist() == [0.125, -1.0]


def test_no_two_tables_fill_in_the_same_column() -> None:
    parts = [table.summary for table in all_tables().values() if table.summary]
    names = [column.name for column in summary.OWN] + [column.name for part in parts for column in part.columns]
    assert len(names) == len(set(names)) == len(find_table("summary").schema)
    for words in ([part.word for part in parts], [part.order for part in parts]):
        assert len(words) == len(set(words))


def test_the_summary_has_the_columns_that_it_always_had() -> None:
    """Users read the file by these names."""
    by_name, number, text = pa.map_(pa.string(), pa.float64()), pa.float64(), pa.string()
    wanted: list[tuple[Any, ...]] = [
        (text, *KEY, "family", "box_prompt"),
        (number, "miou_box", "miou_box_low", "miou_box_high"),
        (text, "point_prompt"),
        (number, "miou_point", "miou_point_low", "miou_point_high"),
        (pa.int64(), "instances", "images"),
        (by_name, "ap", "boundary_ap", "ar_1000", "everything_ms"),
        (number, "miou_3_clicks", "noc_85", "corruption_drop"),
        (text, "device"),
        (number, "encode_ms", "box_ms", "segany_ms", "throughput_img_s", "peak_memory_mib"),
        (number, "params_m", "flops_g", "macs_g", "checkpoint_mb"),
        (pa.bool_(), "busy"),
        (text, "licence_code", "licence_weights", "weights", "weights_sha256", "status", "not_asked"),
    ]
    table = find_table("summary")
    assert table.schema == pa.schema([pa.field(name, kind) for kind, *names in wanted for name in names])
