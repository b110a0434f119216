"""Published figures: what the file may say, what they are compared with, what a difference is explained by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sambench.config import read_registries
from sambench.errors import InputError
from sambench.parquet import read_parquet
from sambench.results.presentation import write_table
from sambench.results.table import find_table, typed
from sambench.results.tables.efficiency import efficiency
from sambench.results.tables.reproduction import (
    COLUMNS,
    SCHEMA,
    TABLE,
    read_published,
    reproduction,
    rounding,
)

# Counted by calflops 0.3.2 on segment-anything itself, as docs and design state it: M, GFLOPs, GMACs.
SAM = {
    "sam_vit_b": (93.735472, 746.40, 370.471),
    "sam_vit_l": (312.342832, 2637.09, 1312.87),
    "sam_vit_h": (641.090608, 5485.70, 2734.07),
}


@pytest.fixture(scope="module")
def published(root: Path) -> list[dict[str, str]]:
    return read_published(root / "config" / "published.csv")


def figure(**fields: str) -> dict[str, str]:
    base = dict.fromkeys(COLUMNS, "") | {"runtime": "eager", "source": "a paper", "published": "10"}
    return base | fields


def counts(**columns: Any) -> dict[str, pd.DataFrame]:
    whole = {"variant": "v", "status": "ok", "params_m": 9.0, "flops_g": 80.0, "macs_g": 38.0, "products_g": 84.0}
    encoder = {"variant": "v", "part": "image encoder", "params_m": 5.0, "flops_g": 77.0, "macs_g": 36.0}
    return {
        "efficiency": typed([whole | columns], find_table("efficiency").schema),
        "efficiency_parts": typed([encoder | {"products_g": 80.0}], find_table("efficiency_parts").schema),
    }


def test_every_published_figure_has_a_place(published: list[dict[str, str]]) -> None:
    registries = read_registries()
    lines = [tuple(line.values()) for line in published]
    assert len(set(lines)) == len(lines), "a figure stands twice in the file"
    for line in published:
        assert line["variant"] in registries["variants"], line
        assert line["metric"] in find_table(line["table"]).schema.names, line
        assert line["runtime"] in registries["runtimes"], line
        assert line["source"], line
        assert line["dataset"] in ("", *registries["datasets"]), line
        assert len([word for word in line["setting"].split("/") if word]) == len(
            find_table(line["table"]).published.setting
        ), line
        if line["table"] == "instances":
            assert line["setting"].split("/")[0] in registries["detectors"], line
        if line["table"] in ("latency", "throughput", "segevery"):
            assert line["hardware"] and line["kind"], line


def test_sam_agrees_with_the_survey_to_rounding(published: list[dict[str, str]]) -> None:
    lines = [
        {"variant": name, "status": "ok", "params_m": params, "flops_g": flops, "macs_g": macs}
        for name, (params, flops, macs) in SAM.items()
    ]
    table = reproduction(published, {"efficiency": typed(lines, find_table("efficiency").schema)})
    survey = table[table["source"].str.contains("2410.04960") & table["variant"].isin(SAM)]
    assert len(survey) == 6 and survey.groupby("metric").size().to_dict() == {"flops_g": 3, "params_m": 3}
    for line in survey.to_dict("records"):
        digits = 3 if line["published"] > 1000 else 4  # 5490 and 2640 have three
        assert float(f"{line['measured']:.{digits}g}") == float(f"{line['published']:.{digits}g}"), line
        assert line["explanation"] == ""


def test_a_figure_is_compared_with_its_own_line_only() -> None:
    accuracy = {"variant": "v", "runtime": "eager", "prompt": "box", "selection": "argmax", "miou": 70.0}
    boxes = typed(
        [
            accuracy | {"dataset": "coco_val2017"},
            accuracy | {"dataset": "scenes", "miou": 1.0},
            accuracy | {"dataset": "coco_val2017", "selection": "single", "miou": 2.0},
            accuracy | {"dataset": "coco_val2017", "runtime": "bf16", "miou": 3.0},
        ],
        find_table("accuracy_boxes").schema,
    )
    wanted = figure(table="accuracy_boxes", variant="v", dataset="coco_val2017", setting="box/argmax", metric="miou")
    table = reproduction([wanted | {"published": "80"}, wanted | {"variant": "w"}], {"accuracy_boxes": boxes})
    assert table["measured"].tolist() == [70.0] and table["difference"].tolist() == [-12.5]
    assert reproduction([wanted], {"points": boxes}).empty


def test_numbers_of_clicks_are_compared_after_as_many_clicks() -> None:
    line = {"dataset": "coco_val2017", "variant": "v", "runtime": "eager", "protocol": "clicks", "noc_85": 3.0}
    lines = [
        line | {"clicks": 1, "reached_85": 10.0},
        line | {"clicks": 5, "reached_85": 60.0},
        line | {"clicks": 5, "protocol": "box_clicks", "noc_85": 1.0},
        line | {"clicks": 5, "dataset": "scenes", "noc_85": 9.0},
    ]
    wanted = figure(table="interactive", variant="v", dataset="coco_val2017", setting="clicks/5", note="five_clicks")
    figures = [wanted | {"metric": "noc_85", "published": "2.95"}, wanted | {"metric": "reached_85"}]
    table = reproduction(figures, {"interactive": typed(lines, find_table("interactive").schema)})
    assert table["measured"].tolist() == [3.0, 60.0]
    assert (
        table["explanation"].tolist() == ["published with five clicks at most per instance, and masks as polygons"] * 2
    )


def test_times_of_a_cpu_are_not_compared_with_those_of_a_gpu(tmp_path: Path) -> None:
    time = {"dataset": "scenes", "variant": "v", "runtime": "eager", "segany_ms": 12.0, "boxes": 1}
    lines = [
        time | {"device": "AMD EPYC"},
        time | {"device": "NVIDIA H100", "segany_ms": 3.0, "busy": True},
        time | {"boxes": 10},
    ]
    tables = {"latency": typed([{"device": "AMD EPYC"} | line for line in lines], find_table("latency").schema)}
    wanted = figure(table="latency", variant="v", metric="segany_ms", kind="cpu", hardware="Xeon")
    nobody = wanted | {"variant": "w"}
    table = reproduction([wanted, nobody, wanted | {"kind": "gpu", "hardware": "RTX 3090"}], tables)
    assert table["measured"].tolist() == [12.0, 3.0] and table["hardware"].tolist() == ["Xeon", "RTX 3090"]
    assert table["explanation"].tolist() == ["other hardware", "other hardware; our machine was busy with other work"]
    assert table["dataset"].tolist() == ["scenes"] * 2
    write_table(tmp_path, TABLE, table, {})
    assert read_parquet(tmp_path / "reproduction.parquet", SCHEMA).num_rows == 2


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("macs_g", "38.2", ""),  # within one per cent
        ("macs_g", "42.0", "it is the count of multiply-accumulates of the whole path with attention: 42"),
        ("macs_g", "40.1", "it is the count of multiply-accumulates of the image encoder with attention: 40"),
        ("flops_g", "36", "it is the count of multiply-accumulates of the image encoder without attention: 36"),
        ("flops_g", "77.5", "it is the count of FLOPs of the image encoder without attention: 77"),
        ("macs_g", "44", "nearest is the count of multiply-accumulates of the whole path with attention: 42, -4.5 %"),
        ("flops_g", "500", "the source does not say enough to tell why"),
        ("params_m", "5", "it is the count of the image encoder: 5"),
        ("params_m", "9.7", "it is the count of the official model: 9.7"),
    ],
)
def test_a_difference_is_explained_by_the_count_that_it_is(metric: str, value: str, reason: str) -> None:
    wanted = figure(table="efficiency", variant="v", metric=metric, published=value)
    (line,) = reproduction([wanted], counts(params_official_m=9.7)).to_dict("records")
    assert line["explanation"] == reason


def test_rounding_and_notes_explain_too() -> None:
    nine = figure(table="efficiency", variant="v", metric="params_m", published="9")
    assert rounding("9.6") == pytest.approx(0.05) and rounding("264") == 0.5
    (line,) = reproduction([nine], counts(params_m=9.4)).to_dict("records")
    assert line["difference"] > 1 and line["explanation"] == "rounding of the published figure"
    (line,) = reproduction([nine | {"published": "9.32", "note": "head"}], counts()).to_dict("records")
    assert "classifier head" in line["explanation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"published": "many"}, "a number"),
        ({"note": "x"}, "note"),
        ({"table": "x"}, "table"),
        ({"kind": "tpu"}, "kind"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "published.csv"
    good = figure(table="efficiency", variant="v", metric="params_m")
    pd.DataFrame([good, good | change]).to_csv(path, index=False)
    with pytest.raises(InputError, match=f"published.csv:3.*{message}"):
        read_published(path)
    path.write_text("a,b\n")
    with pytest.raises(InputError, match="header"):
        read_published(path)


def test_nothing_measured_gives_an_empty_table(published: list[dict[str, str]], tmp_path: Path) -> None:
    table = reproduction(published, {"efficiency": efficiency([], None, {})})
    assert table.empty
    write_table(tmp_path, TABLE, table, {})
