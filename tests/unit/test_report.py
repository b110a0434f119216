"""What readers get of a table: rules as columns, best and second, LaTeX; the Pareto front, computed and as drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sambench.results.drawing import write
from sambench.results.figure import all_figures, selected_figures
from sambench.results.front import front
from sambench.results.latex import escape, latex
from sambench.results.layout import FIRST, SECOND, four_digits, lay_out
from sambench.results.report import best
from sambench.results.table import all_tables, find_table, typed

# Four variants: c is beaten by b, and d, which costs most, is the best.
POINTS = {"a": (10.0, 50.0), "b": (20.0, 60.0), "c": (30.0, 60.0), "d": (40.0, 70.0)}


def accuracy(**miou: float | None) -> pd.DataFrame:
    lines = []
    for variant, number in miou.items():
        for rule, more in (("argmax", 0.0), ("oracle", 5.0)):
            line: dict[str, Any] = {"dataset": "d", "variant": variant, "runtime": "eager", "prompt": "box"}
            line |= {"selection": rule, "status": "ok" if number is not None else "no weights", "instances": 9}
            if number is not None:
                line |= {"miou": number + more, "miou_low": number + more - 1, "miou_high": number + more + 1}
            lines.append(line)
    return typed(lines, find_table("accuracy_boxes").schema)


def cells(rows: pd.DataFrame) -> dict[str, list[str]]:
    return {column.name: column.cells for column in lay_out(find_table("accuracy_boxes"), rows).columns}


def test_rules_are_columns_and_an_interval_stands_with_its_number() -> None:
    found = cells(accuracy(a=50.0, b=60.0))
    assert found["variant"] == ["a", "b"]
    assert found["miou"] == ["50.0 (49.0 to 51.0)", "60.0 (59.0 to 61.0)"]
    assert found["miou/oracle"] == ["55.0 (54.0 to 56.0)", "65.0 (64.0 to 66.0)"]
    assert "selection" not in found and "miou_low" not in found


def test_what_is_the_same_in_all_rows_is_said_once() -> None:
    layout = lay_out(find_table("accuracy_boxes"), accuracy(a=50.0, b=60.0))
    assert layout.same == {"dataset": "d", "runtime": "eager", "prompt": "box", "instances": "9"}


def test_best_and_second_leave_the_ceiling_out() -> None:
    layout = lay_out(find_table("accuracy_boxes"), accuracy(ground_truth=100.0, a=50.0, b=60.0, c=60.04, d=None))
    place = next(k for k, column in enumerate(layout.columns) if column.name == "miou")
    # b and c are the same as they are written.
    assert {row: mark for (row, at), mark in layout.marks.items() if at == place} == {1: SECOND, 2: FIRST, 3: FIRST}


def test_times_are_better_when_lower() -> None:
    table = find_table("throughput")
    lines = [
        {"dataset": "d", "variant": name, "runtime": "eager", "batch": 1}
        | {"throughput_img_s": rate, "peak_memory_mib": mib}
        for name, rate, mib in (("a", 1.0, 300.0), ("b", 2.0, 200.0), ("c", 3.0, 100.0))
    ]  # fmt: skip
    layout = lay_out(table, typed(lines, table.schema))
    names = [column.name for column in layout.columns]
    for column in ("throughput_img_s", "peak_memory_mib"):
        assert layout.marks[2, names.index(column)] == FIRST and layout.marks[1, names.index(column)] == SECOND


def test_latex_is_ready_for_a_paper() -> None:
    text = latex(find_table("accuracy_boxes"), accuracy(a_1=50.0, b=60.0, c=55.0, d=None))
    assert r"\textbf{60.0} {\scriptsize (59.0 to 61.0)}" in text and r"\underline{55.0}" in text
    assert r"a\_1 & 50.0" in text and r"(\%)" in text
    assert r"d\textsuperscript{a} & -- & -- \\" in text and r"\textsuperscript{a} no weights} \\" in text
    assert text.count("no weights") == 1 and "In all rows: dataset d" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {2}
    assert escape('<a & b_c> "50 %"') == r"\textless{}a \& b\_c\textgreater{} \textquotedbl{}50 \%\textquotedbl{}"


def test_a_variant_is_on_the_front_when_no_other_beats_it() -> None:
    rows = pd.DataFrame([{"variant": n, "cost": c, "quality": q} for n, (c, q) in POINTS.items()])
    assert front(rows, "cost", "quality")["variant"].tolist() == ["a", "b", "d"]
    tied = pd.DataFrame({"variant": list("xy"), "cost": [5.0, 5.0], "quality": [1.0, 2.0]})
    assert front(tied, "cost", "quality")["variant"].tolist() == ["y"]
    assert front(rows.assign(quality=float("nan")), "cost", "quality").empty


def test_the_drawn_front_is_the_computed_one(tmp_path: Path) -> None:
    """The browser and the files find the front by Vega's own transforms."""
    times = [
        {"dataset": "d", "variant": name, "runtime": "eager", "device": "cpu", "boxes": 1, "segany_ms": cost}
        | {"status": "ok"}
        for name, (cost, _) in POINTS.items()
    ]
    tables = {
        "accuracy_boxes": accuracy(**{name: quality for name, (_, quality) in POINTS.items()}),
        "latency": typed(times, find_table("latency").schema),
    }
    path = tmp_path / "pareto.svg"
    write(all_figures()["pareto"].drawn(tables).static, [path])
    named = re.findall(r"<text[^>]*>([a-d])</text>", path.read_text())
    assert sorted(named) == ["a", "b", "d"]


def test_figures_are_those_that_the_tables_of_a_study_are_enough_for() -> None:
    assert "pareto" not in selected_figures(["accuracy_boxes"]) and "pareto" not in selected_figures(["latency"])
    assert selected_figures(["accuracy_points", "latency"])["pareto"] == ["accuracy_points", "latency"]
    assert "everything_time" in selected_figures(["segevery"]) and "efficiency" not in selected_figures(["efficiency"])
    assert {name for name, table in all_tables().items() if table.draw} <= {*selected_figures(all_tables())}


@pytest.mark.parametrize("figure", ["pareto", "accuracy_boxes", "object_size", "selection_rules"])
def test_without_numbers_a_figure_says_so(figure: str) -> None:
    tables = {name: accuracy(a=None) if name == "accuracy_boxes" else typed([], find_table(name).schema)
              for name in all_figures()[figure].takes}  # fmt: skip
    assert all_figures()[figure].drawn(tables).static is not None


def test_where_only_one_data_set_was_timed_each_has_its_front_and_the_figure_starts_with_numbers() -> None:
    quality = {name: value for name, (_, value) in POINTS.items()}
    untimed, timed = accuracy(**quality), accuracy(**quality).assign(dataset="timed")
    keys = {"dataset": "timed", "runtime": "eager", "boxes": 1, "device": "M", "status": "ok"}
    times = [keys | {"variant": name, "segany_ms": 1000 * cost} for name, (cost, _) in POINTS.items()]
    counts = [{"variant": name, "flops_g": cost, "status": "ok"} for name, (cost, _) in POINTS.items()]
    tables = {
        "accuracy_boxes": pd.concat([untimed, timed], ignore_index=True),
        "latency": typed(times, find_table("latency").schema),
        "efficiency": typed(counts, find_table("efficiency").schema),
    }
    found = best(tables)
    assert found is not None
    first, second = found["fronts"]
    assert [column["title"] for column in first["columns"]][1:3] == ["mIoU, %", "cost, GFLOPs"]
    assert [row[:3] for row in first["rows"]] == [
        ["a", "50.0", "10.00"],
        ["b", "60.0", "20.00"],
        ["d", "70.0", "40.00"],
    ]
    assert [row[2] for row in second["rows"]] == ["10,000", "20,000", "40,000"]
    shown = all_figures()["pareto"].drawn(tables).for_report.to_dict(validate=False)
    chosen = {param["name"]: param["value"] for param in shown["params"]}
    assert chosen["chosen_dataset"] == "timed" and "chosen_device" not in chosen


def test_numbers_are_written_for_people() -> None:
    assert [four_digits(value) for value in (15623.4, 1234.5, 46.214, 0.012342, 0.0)] == [
        *("15,623", "1234", "46.21", "0.01234", "0"),
    ]
    rows = accuracy(a=50.0, b=60.0)
    rows["instances"] = [36781.0, None, 214.0, None]
    assert cells(rows)["instances"] == ["36,781", "214"]
