"""The summary: what stands in a row, and why a number is missing from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as mask_utils

from sambench import records
from sambench.jobs import box_precision_file, instances_file
from sambench.parquet import read_parquet, write_parquet
from sambench.results import accuracy
from sambench.results.presentation import overview, overview_page, presentable, write_table
from sambench.results.table import expanded, find_table, reasons_in_words, typed
from sambench.results.tables import (
    average_precision,
    boxes,
    corruptions,
    interactive,
    latency,
    segevery,
    summary,
    throughput,
)
from sambench.results.tables.efficiency import SCHEMA as EFFICIENCY
from sambench.status import ALL_CROWDS, NO_NETWORK, NO_WEIGHTS, OK, UNSUPPORTED_PROMPT

JOBS = [("d", "net", "eager"), ("d", "fill", "eager"), ("d", "absent", "eager")]
HERE = dict(zip(summary.KEY, JOBS[0], strict=True))


def scores(prompt: str, **miou: float | str) -> list[dict[str, object]]:
    """Lines of an accuracy table: a number by variant, or the status in its place."""
    lines = []
    for variant, value in miou.items():
        line = {"dataset": "d", "variant": variant, "runtime": "eager", "prompt": prompt, "instances": 0, "images": 0}
        if isinstance(value, str):
            line |= {"status": value}
        else:
            line |= {"miou": value, "miou_low": value - 1, "miou_high": value + 1, "instances": 9, "images": 3}
            line |= {"status": OK}
        lines += [line | {"selection": "argmax"}, line | {"selection": "single", "miou": 1.0}]
    return lines


@pytest.fixture
def rows() -> pd.DataFrame:
    missing = {"absent": NO_WEIGHTS}
    points = scores("random_1", net=40.0, fill=UNSUPPORTED_PROMPT, **missing)
    points += scores("mask_center", net=50.0, fill=UNSUPPORTED_PROMPT, **missing)
    precision = [
        {**HERE, "detector": name, "selection": "argmax", "ap": ap, "status": status}
        for name, ap, status in (("yolo", 30.0, OK), ("detic", None, NO_WEIGHTS))
    ]
    times = [
        {**HERE, "device": "A CPU", "weights": "random", "boxes": boxes, "encode_ms": 100.0, "decode_ms": 4.0}
        | {"upsample_ms": 1.0, "segany_ms": 107.0, "peak_memory_mib": 900.0, "busy": False, "status": OK}
        for boxes in (1, 10)
    ]
    rates = [
        {**HERE, "batch": batch, "best": batch == 2, "throughput_img_s": rate, "status": OK}
        for batch, rate in ((1, 5.0), (2, 7.0))
    ]
    everything = [
        {**HERE, "sampler": name, "ms_per_image": ms, "ar_1000": ar, "status": OK}
        for name, ms, ar in (("grid_16", 900.0, 20.0), ("grid_32", 3000.0, 30.0))
    ]
    costs = [
        {"variant": "net", "params_m": 10.0, "flops_g": 40.0, "macs_g": 20.0, "checkpoint_mb": 41.0, "status": OK},
        {"variant": "fill", "status": NO_NETWORK},
    ]
    tables = {
        "accuracy_boxes": typed(scores("box", net=80.0, fill=60.0, **missing), accuracy.SCHEMA),
        "accuracy_points": typed(points, accuracy.SCHEMA),
        "average_precision": typed(precision, average_precision.SCHEMA),
        "segevery": typed(everything, segevery.SCHEMA),
        "latency": typed(times, latency.SCHEMA),
        "throughput": typed(rates, throughput.SCHEMA),
        "efficiency": typed(costs, EFFICIENCY),
    }
    facts = {"net": {"licence_code": "MIT", "licence_weights": "MIT", "weights": "official file"}}
    return summary.summary(JOBS, tables, facts)


def test_a_row_joins_what_was_measured(rows: pd.DataFrame) -> None:
    net = rows.iloc[0]
    assert [net["box_prompt"], net["miou_box"], net["miou_box_low"], net["miou_box_high"]] == ["box", 80, 79, 81]
    assert [net["point_prompt"], net["miou_point"]] == ["mask_center", 50], "the headline, not the first in the table"
    assert [net["instances"], net["images"]] == [9, 3]
    assert dict(net["ap"]) == {"yolo": 30.0} and dict(net["ar_1000"]) == {"grid_16": 20.0, "grid_32": 30.0}
    assert [net["encode_ms"], net["box_ms"], net["segany_ms"], net["throughput_img_s"]] == [100, 5, 107, 7]
    assert [net["params_m"], net["checkpoint_mb"], net["device"], net["licence_weights"]] == [10, 41, "A CPU", "MIT"]
    assert rows["variant"].tolist() == ["net", "fill", "absent"]


def test_a_row_says_once_why_numbers_are_missing(rows: pd.DataFrame) -> None:
    net, fill, absent = rows["status"]
    assert net == "no weights (AP detic); random weights (time)"
    assert fill == "unsupported prompt (point); not asked (AP, everything, time, throughput); no network (cost)"
    assert absent == "no weights (box, point); not asked (AP, everything, time, throughput, cost)"
    assert (rows["not_asked"] == "clicks, spoilt images").all()
    fewer = summary.summary(JOBS[:1], {}, {})
    assert fewer["status"].tolist() == [OK]
    assert fewer["not_asked"].tolist() == ["box, point, AP, everything, time, throughput, cost, clicks, spoilt images"]


def test_clicks_and_spoilt_images_are_one_number_each() -> None:
    clicked = [
        {**HERE, "protocol": protocol, "clicks": clicks, "miou": miou, "noc_85": noc, "status": OK}
        for protocol, noc, mious in (("box_clicks", 1.5, (80.0, 85.0, 88.0, 90.0)), ("clicks", 2.5, (60.0, 70.0, 75.0)))
        for clicks, miou in enumerate(mious, start=int(protocol == "clicks"))
    ]
    spoilt = [
        {**HERE, "prompt": "box", "corruption": name, "level": level, "drop": drop, "status": OK}
        for name, level, drop in (("clean", 0.0, 0.0), ("all", 0.0, 12.5), ("all", 5.0, 30.0), ("fog", 5.0, 40.0))
    ]
    tables = {"interactive": typed(clicked, interactive.SCHEMA), "corruptions": typed(spoilt, corruptions.SCHEMA)}
    (row,) = summary.summary(JOBS[:1], tables, {}).to_dict("records")
    assert [row["miou_3_clicks"], row["noc_85"], row["corruption_drop"], row["status"]] == [75.0, 2.5, 12.5, OK]
    tables["interactive"] = typed(clicked[:4], interactive.SCHEMA)
    (row,) = summary.summary(JOBS[:1], tables, {}).to_dict("records")
    assert [row["miou_3_clicks"], row["noc_85"]] == [90.0, 1.5], "the box first, where there are no clicks alone"
    tables = {"interactive": typed([{**HERE, "protocol": "clicks", "status": NO_WEIGHTS}], interactive.SCHEMA)}
    (row,) = summary.summary(JOBS[:1], tables, {}).to_dict("records")
    assert pd.isna(row["noc_85"]) and row["status"] == "no weights (clicks)"


def test_its_files_and_its_page(rows: pd.DataFrame, tmp_path: Path) -> None:
    table = find_table("summary")
    write_table(tmp_path, table, rows, {})
    back = read_parquet(tmp_path / "summary.parquet", table.schema).to_pandas()
    assert dict(back["ap"][0]) == {"yolo": 30.0} and list(back["ap"][1]) == []
    header = (tmp_path / "summary.csv").read_text().splitlines()[0].split(",")
    assert "ap/yolo" in header and "ar_1000/grid_32" in header and "ap" not in header
    page = overview_page([(table, back)])
    assert "| net " in page and "80.0 ± 1.0" in page and "AP with the boxes of yolo" in page
    assert max(len(line) for line in page.splitlines() if line.startswith("|")) <= 140
    assert page.count(NO_WEIGHTS) == 2, "once for each row"
    assert "licence" in page and "weights" not in page.splitlines()[2], "columns that say nothing are left out"


def test_numbers_by_name_become_columns() -> None:
    wide = expanded(pd.DataFrame({"a": [1, 2], "ap": [[("x", 1.0)], []], "none": [[], []]}))
    assert list(wide) == ["a", "ap/x"] and wide["ap/x"].fillna(-1).tolist() == [1.0, -1.0]


def test_reasons_are_grouped() -> None:
    assert reasons_in_words({}) == OK
    assert reasons_in_words({NO_WEIGHTS: ["a", "b"], "x": ["c"]}, 3) == "no weights (a, b); x (c)"
    assert reasons_in_words({NO_WEIGHTS: ["a", "b"]}, 2) == NO_WEIGHTS


def test_a_wide_table_says_once_per_row_why_numbers_are_missing() -> None:
    lines = [*scores("box", net=80.0, fill=60.0, absent=NO_WEIGHTS)]
    lines += scores("random_1", net=40.0, fill=UNSUPPORTED_PROMPT, absent=NO_WEIGHTS)
    table = typed(lines, accuracy.SCHEMA)
    wide = overview(table)
    assert wide["status"].tolist() == [OK, "unsupported prompt (random_1)", NO_WEIGHTS]
    assert wide["box"].tolist() == ["80.0", "60.0", "–"]
    assert "status" not in overview(table[table["variant"] == "net"])
    shown = presentable(table)
    assert (shown.drop(columns="status") == NO_WEIGHTS).sum().sum() == 0


def test_where_all_instances_are_crowds_there_is_no_precision(tmp_path: Path) -> None:
    row = dict.fromkeys(records.AVERAGE_PRECISION_BOXES.names) | {"dataset": "d", "detector": "x", "status": OK}
    row |= {"detections": 5, "images": 1, "rules": "COCO", "boxes_sha256": "0" * 64}
    found = typed([row], records.AVERAGE_PRECISION_BOXES)
    write_parquet(Path(box_precision_file(tmp_path, "d")), found, records.AVERAGE_PRECISION_BOXES, {})
    instance = {
        "annotation_id": 1,
        "image_id": 1,
        "category_id": 1,
        "x": 0.0,
        "y": 0.0,
        "w": 2.0,
        "h": 2.0,
        "area": 4.0,
    }
    mask = {"rle_size": [4, 4], "rle_counts": mask_utils.encode(np.eye(4, dtype=np.uint8, order="F"))["counts"]}
    for crowd, status in ((True, ALL_CROWDS), (False, OK)):
        instances = pd.DataFrame([instance | mask | {"iscrowd": crowd, "frequency": None}])
        write_parquet(Path(instances_file(tmp_path, "d")), instances, records.INSTANCES, {})
        assert boxes.TABLE.build(tmp_path, {"datasets": ["d"]})["status"].tolist() == [status]
