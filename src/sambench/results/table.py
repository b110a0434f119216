"""A table of results as one object: what it is called, what its columns mean, what it is made of and how.

Each module of the package `sambench.results.tables` holds one, under the name TABLE. Rules, report, figures, MLflow and
docs only go through the registry `TABLES`: a new table is a new module there and touches no other file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.errors import InputError, near_matches
from sambench.parquet import read_parquet
from sambench.results import tables as modules
from sambench.results.declared import Cost, InSummary, Loan, Published, Score
from sambench.status import OK, summary

if TYPE_CHECKING:
    from sambench.jobs import Job
    from sambench.study import Study

Part = Callable[["Job", str, pd.DataFrame, Mapping[str, Any]], Iterable[Mapping[str, Any]]]
SUFFIXES = (".parquet", ".csv", ".md", ".tex")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    name: of its files, results/{study}/tables/{name}.*, and of its page everywhere.
    order: its place in report and lists.
    title, explanation: for people; units, decimals: of columns, one decimal where nothing is said.
    schema: of the Parquet file. key: the columns that name a row, apart from the selection rule.
    selected: whether a study has the table.
    sources: the files it is made of, relative to the working directory.
    settings: what else decides about its content, as plain values; an edit makes the table again.
    build: (results folder, settings) -> the rows, with the columns of `schema`. A table that is made of other tables
    finds their files in its settings: `table_files`, `read_tables`.
    metrics: how its numbers are called in MLflow, `{column}` and columns of `key` in braces; empty: not logged there.
    series: columns that are one curve each in MLflow, and the column of `key` that they go by.
    drawn_from: the tables that its figure takes, in the order of the arguments of `draw`; empty: no figure.
    large: it reads all results of a study and is a job of its own on a cluster.
    page: its rows as Markdown for the overview that ends a run; none: it is not there.
    part: its lines about one prompt set of one job, where it comes in parts: (job, prompt set, rows with the columns of
        records.SEGANY, what else decides, see `parts.part_settings`).
    derived: it is made of other tables, and no published figure is about it.
    summary, score, published, costs, lends: what it declares for other tables and figures.
    completed: (itself, all tables) -> itself, for a table with columns that others declare; only the registry's table
    has them, not the TABLE of its module. declared_in: the modules of these others.
    """

    name: str
    order: int
    title: str
    explanation: str
    schema: pa.Schema
    key: tuple[str, ...]
    selected: Callable[[Study], bool]
    sources: Callable[[Study], list[str]]
    settings: Callable[[Study], dict[str, Any]]
    build: Callable[[Path, Mapping[str, Any]], pd.DataFrame]
    units: Mapping[str, str] = field(default_factory=dict)
    decimals: Mapping[str, int] = field(default_factory=dict)
    metrics: str = ""
    series: Mapping[str, str] = field(default_factory=dict)
    drawn_from: tuple[str, ...] = ()
    draw: Callable[..., Any] | None = None
    large: bool = False
    page: Callable[[pd.DataFrame], str] | None = None
    part: Part | None = None
    derived: bool = False
    summary: InSummary | None = None
    score: Score | None = None
    published: Published = Published()  # noqa: RUF009
    costs: tuple[Cost, ...] = ()
    lends: Loan | None = None
    completed: Callable[[Table, Sequence[Table]], Table] | None = None
    declared_in: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The module that defines it: the code that a change of the table comes from."""
        return f"{modules.__name__}.{self.name}"

    @property
    def modules(self) -> list[str]:
        """All modules that a change of the table comes from."""
        return [self.module, *self.declared_in]

    def file(self, folder: str | Path) -> str:
        """Its Parquet file. folder: of the study, `Study.folder`."""
        return f"{folder}/tables/{self.name}.parquet"

    def read(self, folder: str | Path) -> pd.DataFrame:
        """Its rows, from the Parquet file. folder: of the study."""
        return read_parquet(Path(self.file(folder)), self.schema).to_pandas()


@cache
def all_tables() -> dict[str, Table]:
    """Every table by name, in the order of the report."""
    names = [module.name for module in iter_modules(modules.__path__) if not module.name.startswith("_")]
    found = [import_module(f"{modules.__name__}.{name}").TABLE for name in names]
    found.sort(key=lambda table: (table.order, table.name))
    return {table.name: table.completed(table, found) if table.completed else table for table in found}


def find_table(name: str) -> Table:
    """The table of that name; InputError with near matches otherwise."""
    tables = all_tables()
    if name not in tables:
        raise InputError("tables", name, expected="a table of the registry", remedy=near_matches(name, tables))
    return tables[name]


def expanded(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns of numbers by name as one column per name, in their place: `ap` as `ap/yolov8n` and so on."""
    columns = {}
    for name in rows:
        if not rows[name].map(pd.api.types.is_list_like).any():
            columns[name] = rows[name]
            continue
        cells = [dict(cell) if pd.api.types.is_list_like(cell) else {} for cell in rows[name]]
        for key in dict.fromkeys(key for cell in cells for key in cell):
            columns[f"{name}/{key}"] = pd.Series([cell.get(key) for cell in cells], index=rows.index, dtype="float64")
    return pd.DataFrame(columns, index=rows.index)


def reasons_in_words(reasons: Mapping[str, Sequence[str]], everything: int = 0) -> str:
    """{reason: what it is about} -> one phrase, `ok` without a reason.

    everything: how many things there are; a reason that is about all of them needs no list.
    """
    words = [
        reason if len(about) == everything else f"{reason} ({', '.join(about)})" for reason, about in reasons.items()
    ]
    return "; ".join(words) or OK


def selected_tables(study: Study) -> list[Table]:
    """The tables of a study, in the order of the report."""
    return [table for table in all_tables().values() if table.selected(study)]


def table_files(study: Study, names: Iterable[str]) -> dict[str, str]:
    """The Parquet files of tables of a study by name: sources, and a setting, of a table that is made of tables."""
    return {name: find_table(name).file(study.folder) for name in names}


def read_tables(files: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The rows of tables by name. files: by name, as `table_files` gives them."""
    return {name: read_parquet(Path(file), find_table(name).schema).to_pandas() for name, file in files.items()}


def status_of(statuses: pd.Series) -> str:
    """The status of a row that is made of many rows."""
    return summary(statuses.value_counts().to_dict())


def concat(tables: Iterable[pd.DataFrame], schema: pa.Schema) -> pd.DataFrame:
    """Stack tables that may be empty, keeping the columns of the schema, with its types where there is no row."""
    filled = [table for table in tables if not table.empty]
    return pd.concat(filled, ignore_index=True) if filled else typed((), schema)


PANDAS_TYPES = {pa.int32(): "Int32", pa.int64(): "Int64", pa.float64(): "float64", pa.bool_(): "boolean"}


def typed(lines: Iterable[Mapping[str, object]], schema: pa.Schema) -> pd.DataFrame:
    """Lines as a table with the types of the schema: a number that is missing makes no other one a float."""
    types = {field.name: PANDAS_TYPES.get(field.type, "object") for field in schema}
    return pd.DataFrame(list(lines), columns=schema.names).astype(types)
