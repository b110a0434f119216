"""What a table declares for others: its part of the summary, its score, costs, columns that it lends.

The summary, the figures and the tables that borrow go through the registry and take what is declared there: they know
no table by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

FLOAT = pa.float64()
KEY = ("dataset", "variant", "runtime")
BY_NAME = pa.map_(pa.string(), pa.float64())  # numbers by the name of a detector or sampler
Missing = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that other tables show too.

    order: its place among all columns of the summary, those of one place as they are declared. unit, decimals: as of
    Table. title, digits: of the column on the page that ends a run; without a title it is not there. note: for a column
    BY_NAME, of which the page shows one number: what it is, before the name.
    """

    name: str
    order: int = 0
    type: pa.DataType = FLOAT
    unit: str = ""
    decimals: int | None = None
    title: str = ""
    digits: int = 1
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class InSummary:
    """What a table gives the summary.

    word: what the columns `status` and `not_asked` call it. order: its place among these words. columns: that it
    declares and fills in; of two tables that declare one column the first in the registry counts. Those that several
    tables fill in are declared by the summary, and the later word counts. cells: the rows of one (dataset, variant,
    runtime), at least one -> cells by column, and (what, reason) for numbers that are missing or made of fewer rows.
    chosen: of all rows of the table those that it is made of. asked: whether a study that has the table measures it.
    explanation: of the columns, a sentence or, with a semicolon, the start of one that the next table ends.
    """

    word: str
    order: int
    columns: tuple[Column, ...]
    cells: Callable[[pd.DataFrame], tuple[Mapping[str, Any], list[Missing]]]
    chosen: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    asked: Callable[[Study], bool] = lambda study: True
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The number of a table of accuracy. word: for it. by: the column that names it, such as the prompt set."""

    word: str
    column: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """How published figures are compared with the rows of a table.

    setting: the columns that a figure's setting names. of_data: an accuracy, which belongs to its data set; a time does
    not depend on it. rows: those that figures are about.
    """

    setting: tuple[str, ...] = ()
    of_data: bool = False
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A column of costs that accuracy can stand against.

    order: its place; the first one that was measured is what a reader sees. title: of the axis, with the unit behind
    the last comma. rows: of the table those that count, one per variant and whatever else of KEY they have, with the
    column and, where it is timed, `device`.
    """

    column: str
    order: int
    title: str
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows


@dataclass(frozen=True, kw_only=True)
class Loan:
    """Columns for tables about the same dataset, variant and runtime. cells: rows of the lender -> cells by KEY."""

    columns: tuple[Column, ...]
    cells: Callable[[pd.DataFrame], Mapping[tuple[str, ...], Mapping[str, Any]]]


def not_ok(what: Iterable[str], rows: pd.DataFrame) -> list[Missing]:
    """(what, reason) of the rows whose status is not `ok`. what: a word per row."""
    return [(name, reason) for name, reason in zip(what, rows["status"], strict=True) if reason != OK]


def by_name(rows: pd.DataFrame, name: str, value: str) -> list[tuple[str, float]]:
    """The cell of a column BY_NAME. name, value: columns of the rows."""
    pairs = zip(rows[name], rows[value], strict=True)
    return [(label, float(number)) for label, number in pairs if pd.notna(number)]


def first_of(word: str, columns: Sequence[str]) -> Callable[[pd.DataFrame], tuple[Mapping[str, Any], list[Missing]]]:
    """The `cells` of a part that takes columns over from the first row."""

    def cells(rows: pd.DataFrame) -> tuple[Mapping[str, Any], list[Missing]]:
        return {name: rows[name].iloc[0] for name in columns}, not_ok([word], rows.iloc[:1])

    return cells
