"""A table laid out for readers, in the report and in papers: one row per cell of the study, selection rules as columns.

An interval stands in the cell of its number. What is the same in all rows stands above the table, columns without any
value are left out, and the best and the second best are marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.results.table import Table, expanded
from sambench.status import OK
from sambench.variants.cards import CEILING as CEILING

NOTHING = "–"
FIRST, SECOND = "first", "second"
HEADLINE = "argmax"
# Columns that are better when higher, by the word that they begin with; and those that are better when lower, by unit.
HIGHER = ("miou", "ap", "ar", "reached")
HIGHER_IS_BETTER, LOWER_IS_BETTER = "higher", "lower"
LOWER_UNITS = ("ms", "s", "MiB", "MB", "M", "G", "clicks")
LOWER = ("eer", "failed")
# Endings of columns that their unit tells too, and words that are written otherwise.
ENDINGS = ("_ms", "_mib", "_mb", "_m", "_g", "_img_s")
WORDS = {"miou": "mIoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR", "flops": "FLOPs", "macs": "MACs"}
WORDS |= {"params": "parameters", "eer": "EER", "iou": "IoU", "segany": "image and box"}
CHOOSABLE = 100  # different values that a menu may offer
SHORT_DIGEST = 12


@dataclass(frozen=True)
class Column:
    """name: in the files. title, unit: for people. word: of words. key: it names rows. better: higher or lower."""

    name: str
    title: str
    unit: str
    cells: list[str]
    word: bool
    key: bool
    better: str = ""


@dataclass(frozen=True)
class Layout:
    """columns: those that differ from row to row. same: title and value of those that do not. marks: row and number of
    a column -> FIRST or SECOND. status: of each row."""

    columns: list[Column]
    same: dict[str, str]
    marks: dict[tuple[int, int], str]
    status: list[str]


def lay_out(table: Table, rows: pd.DataFrame) -> Layout:
    """The rows of a table as columns of texts, the variant first.

    Best and second are found among rows that differ by variant and runtime only, by the numbers as they are written;
    the ceiling is no competitor.
    """
    rows = expanded(rows).reset_index(drop=True)
    rows = _rules_as_columns(table, rows) if "selection" in rows else rows
    keys = [name for name in table.key if name in rows]
    order = [*sorted(keys, key=lambda name: name != "variant"), *(name for name in rows if name not in keys)]
    columns, same = [], {}
    for column in _columns(table, rows[order], keys):
        values = {*column.cells}
        if values <= {NOTHING, ""}:
            continue
        if len(values) == 1 and len(rows) > 1 and column.name != "variant":
            if (column.name, *values) != ("status", OK):
                same[column.title] = f"{column.cells[0]} {column.unit}".strip()
        else:
            columns.append(column)
    status = rows["status"].fillna("").tolist() if "status" in rows else [OK] * len(rows)
    return Layout(columns, same, dict(_marks(rows, columns, keys)), status)


def _rules_as_columns(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the headline rule, with the first number (and its interval) of every other rule beside theirs."""
    metric = next(name for name in rows if pd.api.types.is_float_dtype(rows[name]))
    keys = list(table.key)
    base = rows[rows["selection"] == HEADLINE].drop(columns="selection")
    at = base.columns.get_loc(metric)
    parts = [name for name in (metric, f"{metric}_low", f"{metric}_high") if name in rows]
    for rule in rows["selection"].drop_duplicates():
        if rule != HEADLINE:
            own = rows.loc[rows["selection"] == rule, [*keys, *parts]].drop_duplicates(keys)
            joined = base[keys].merge(own, on=keys, how="left")
            for name in parts:
                base[name.replace(metric, f"{metric}/{rule}", 1)] = joined[name].to_numpy()
    others = [name for name in base if name.startswith(f"{metric}/")]
    rest = [name for name in base if name not in others]
    end = at + len(parts)
    return base[[*rest[:end], *others, *rest[end:]]].reset_index(drop=True)


def _columns(table: Table, rows: pd.DataFrame, keys: list[str]) -> Iterator[Column]:
    for name in rows:
        stem = name.removesuffix("_low").removesuffix("_high")
        if stem != name and {f"{stem}_low", f"{stem}_high"} <= {*rows} and _middle(stem, rows):
            continue
        plain, _, part = name.partition("/")
        decimals = table.decimals.get(name, table.decimals.get(plain, 1))
        number = pd.api.types.is_numeric_dtype(rows[name]) and not pd.api.types.is_bool_dtype(rows[name])
        if name in table.schema.names and pa.types.is_integer(table.schema.field(name).type):
            decimals = 0  # pandas makes floats of integers where one is missing
        grouped = name not in keys and not name.endswith("_id")
        cells = [_text(value, decimals, grouped) for value in rows[name]]
        if name.endswith("_sha256"):
            cells = [cell[:SHORT_DIGEST] for cell in cells]
        for stem in dict.fromkeys((name, name.removesuffix("_ms"))):
            ends = [f"{stem}_low", f"{stem}_high"]
            if {*ends} <= {*rows} and _middle(stem, rows) == name:
                limits = zip(*([_text(value, decimals, grouped) for value in rows[end]] for end in ends), strict=True)
                cells = [
                    cell if NOTHING in (cell, *both) else f"{cell} ({both[0]} to {both[1]})"
                    for cell, both in zip(cells, limits, strict=True)
                ]
        unit = table.units.get(name, table.units.get(plain, ""))
        words = title(plain, unit) + (f" {part}" if part else "")
        if "selection" in table.schema.names and name not in keys and plain.split("_")[0] in WORDS and not part:
            words += f", {HEADLINE}"
        better = (
            "" if table.derived and name in ("difference", "reference_miou") else direction(plain, unit, name in keys)
        )
        yield Column(name, words, unit, cells, not number, name in keys, better)


def _middle(stem: str, rows: pd.DataFrame) -> str:
    """The column that an interval is about."""
    return next((name for name in (stem, f"{stem}_ms") if name in rows), "")


def _text(value: object, decimals: int, grouped: bool = True) -> str:
    """grouped: whether thousands are set apart."""
    if value is None or value is pd.NA or value != value:
        return NOTHING
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if not isinstance(value, (int, float, np.number)):
        return str(value) or NOTHING
    text = f"{value:.{decimals}f}"
    if not float(text):
        return text.lstrip("-")
    return (with_commas(text) if grouped else text).replace("-", "−")


def with_commas(text: str) -> str:
    """`12345.6` -> `12,345.6`; numbers of four digits stay as they are."""
    whole, point, part = text.partition(".")
    return f"{int(whole):,}{point}{part}" if len(whole.lstrip("-")) > 4 else text


def four_digits(value: float) -> str:
    """A number with four significant digits at least, and never with an exponent: `15,623`, `46.21`, `0.01234`."""
    decimals = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return with_commas(f"{value:.{decimals}f}")


def title(name: str, unit: str = "") -> str:
    """What a column is called where people read it: `segany_ms` -> image and box."""
    ending = next((ending for ending in ENDINGS if unit and name.endswith(ending)), "")
    return " ".join(WORDS.get(word, word) for word in name.removesuffix(ending).split("_"))


def direction(name: str, unit: str, key: bool = False) -> str:
    """Whether a column is better when higher or lower; empty where neither is."""
    word = name.partition("_")[0]
    if key:
        return ""
    if word in HIGHER or "img_s" in name:
        return HIGHER_IS_BETTER
    if word in LOWER or unit in LOWER_UNITS:
        return LOWER_IS_BETTER
    return ""


def _marks(rows: pd.DataFrame, columns: list[Column], keys: list[str]) -> Iterator[tuple[tuple[int, int], str]]:
    """Best and second of each column, within rows that have the same data set, prompt and so on."""
    if "variant" not in rows or rows["variant"].nunique() < 3:
        return
    within = [name for name in (*keys, "device") if name in rows and name not in ("variant", "runtime")]
    groups = rows.groupby(within, sort=False, dropna=False).indices.values() if within else [range(len(rows))]
    competitors = [
        [row for row in group if rows["variant"].iat[row] != CEILING and not _is_bound(rows, row)] for group in groups
    ]
    for place, column in enumerate(columns):
        if not column.better:
            continue
        written = [_number(cell) for cell in column.cells]
        for group in competitors:
            ranked = sorted({written[row] for row in group if written[row] is not None})  # type: ignore[type-var]
            if len(ranked) < 2:
                continue
            ranked = ranked[::-1] if column.better == HIGHER_IS_BETTER else ranked
            words = {ranked[0]: FIRST, ranked[1]: SECOND}
            yield from (((row, place), words[written[row]]) for row in group if written[row] in words)


def _is_bound(rows: pd.DataFrame, row: int) -> bool:
    return "sampler" in rows and rows["sampler"].iat[row] == "oracle_boxes"


def _number(cell: str) -> float | None:
    text = cell.partition(" ")[0].replace("−", "-").replace(",", "")
    try:
        return float(text)
    except ValueError:
        return None


def choosable(column: Column) -> bool:
    """Whether a menu can offer the values of a column; nobody chooses by a digest."""
    words = (column.word or column.key) and not column.name.endswith("_sha256")
    return words and 1 < len({*column.cells}) <= CHOOSABLE


def in_words(same: Mapping[str, str]) -> str:
    """What is the same in all rows."""
    return ", ".join(f"{name} {value}" for name, value in same.items())
