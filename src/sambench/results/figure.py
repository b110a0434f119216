"""A figure as one object: what it shows and which tables it is drawn from.

A table may bring a figure of its own (`Table.draw`), which bears its name. Figures that join tables are modules of the
package `sambench.results.plots`, each with an object FIGURE. Rules and report go through `all_figures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from sambench.errors import InputError, near_matches
from sambench.results import plots
from sambench.results.table import Table, all_tables

if TYPE_CHECKING:
    import pandas as pd

    from sambench.results.drawing import Drawing


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure.

    name: of its files, figures/{name}.svg and .png. order: its place among the tables in the report. title, alt: for
    people; alt says in words what is drawn, for those who cannot see it. takes: the tables that it is drawn from, where
    a study has them. enough: whether these tables are enough for it. draw: rows by table -> a chart or a Drawing.
    table: the table whose own figure it is. module: the code that a change of the figure comes from.
    """

    name: str
    order: int
    title: str
    alt: str
    takes: tuple[str, ...]
    draw: Callable[[Mapping[str, pd.DataFrame]], Any]
    enough: Callable[[frozenset[str]], bool] | None = None
    table: str = ""
    module: str = ""

    def tables(self, present: Iterable[str]) -> list[str]:
        """Those of the tables that are there which it is drawn from; none when they are not enough."""
        there = frozenset(present) & {*self.takes}
        fits = self.enough(there) if self.enough else there == {*self.takes}
        return [name for name in self.takes if name in there] if fits else []

    def drawn(self, tables: Mapping[str, pd.DataFrame]) -> Drawing:
        from sambench.results.drawing import drawing

        return drawing(self.draw(tables))


def _of_table(table: Table) -> Figure:
    draw = table.draw
    assert draw is not None
    return Figure(
        name=table.name,
        order=table.order,
        title=table.title,
        alt=f"{table.title}: the numbers of the table below, drawn.",
        takes=table.drawn_from,
        draw=lambda tables: draw(*(tables[name] for name in table.drawn_from)),
        table=table.name,
        module=table.module,
    )


@cache
def all_figures() -> dict[str, Figure]:
    """Every figure by name, in the order of the report."""
    found = [_of_table(table) for table in all_tables().values() if table.draw]
    names = [module.name for module in iter_modules(plots.__path__) if not module.name.startswith("_")]
    found += [import_module(f"{plots.__name__}.{name}").FIGURE for name in names]
    return {figure.name: figure for figure in sorted(found, key=lambda figure: (figure.order, figure.name))}


def find_figure(name: str) -> Figure:
    """The figure of that name; InputError with near matches otherwise."""
    figures = all_figures()
    if name not in figures:
        raise InputError("figures", name, expected="a figure of the registry", remedy=near_matches(name, figures))
    return figures[name]


def selected_figures(tables: Iterable[str]) -> dict[str, list[str]]:
    """The figures that can be drawn from these tables, each with those that it takes."""
    present = list(tables)
    drawn = {name: figure.tables(present) for name, figure in all_figures().items()}
    return {name: taken for name, taken in drawn.items() if taken}


def read_tables_of(figure: Figure, names: Iterable[str], folder: Path) -> dict[str, pd.DataFrame]:
    """The rows of these tables by name. folder: of the study."""
    return {name: all_tables()[name].read(folder) for name in names}
