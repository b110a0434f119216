"""Tables for people: as Markdown and LaTeX beside the Parquet file and the CSV, and as an overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sambench.files import write_text
from sambench.parquet import write_parquet
from sambench.results.latex import latex
from sambench.results.table import Table, expanded, reasons_in_words
from sambench.status import OK


def write_table(folder: Path, table: Table, rows: pd.DataFrame, provenance: Mapping[str, str]) -> None:
    """Write a table as Parquet (the truth), CSV, Markdown and LaTeX."""
    write_parquet(folder / f"{table.name}.parquet", rows, table.schema, provenance)
    flat = expanded(rows)
    write_text(folder / f"{table.name}.csv", flat.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    shown = presentable(flat, table.decimals)
    write_text(folder / f"{table.name}.md", _markdown(shown) + "\n")
    write_text(folder / f"{table.name}.tex", latex(table, rows))


def presentable(table: pd.DataFrame, decimals: Mapping[str, int] | None = None) -> pd.DataFrame:
    """A table for people: one decimal or as many as `decimals` says of a column, intervals in one column, a dash where
    there is no number, digests cut short, and no columns of AP that are empty throughout.

    Why there is no number is said once per row, in the column `status`.
    """
    table = expanded(table)
    shown = table.copy()
    if "ap" in table and table["ap"].notna().any():  # AP by frequency is LVIS's, and a size may not occur
        shown = shown.drop(columns=[name for name in table if name.startswith("ap_") and table[name].isna().all()])
    for name in (name for name in shown if name.endswith("_sha256")):
        shown[name] = shown[name].str[:12]
    floats = [name for name in shown.columns if pd.api.types.is_float_dtype(table[name])]
    for name in floats:
        digits = (decimals or {}).get(name, (decimals or {}).get(name.partition("/")[0], 1))
        shown[name] = [f"{value:.{digits}f}" if pd.notna(value) else "–" for value in table[name]]
    shown = shown.astype(object).where(shown.notna(), "–")
    for name in [name for name in shown if {f"{name}_low", f"{name}_high"} <= {*shown}]:
        ends = [f"{name}_low", f"{name}_high"]
        pairs = zip(*(shown[end] for end in ends), strict=True)
        interval = ["–" if "–" in pair else f"{pair[0]} to {pair[1]}" for pair in pairs]
        title = "95 % interval" if name == "miou" else f"{name}, 95 % interval"
        shown.insert(shown.columns.get_loc(name) + 1, title, interval)
        shown = shown.drop(columns=ends)
    return shown


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """The headline of an accuracy table: one line per variant, one column per prompt set, by `argmax`.

    table: the columns of results.accuracy.SCHEMA, whose mIoU it shows, or of the table `average_precision`, whose AP it
    shows. Where a number is missing, a last column `status` says why, once per line.
    """
    column, value = ("prompt", "miou") if "miou" in table else ("detector", "ap")
    lines = table[table["selection"] == "argmax"].copy()
    lines["cell"] = [f"{number:.1f}" if pd.notna(number) else "–" for number in lines[value]]
    keys = ["dataset", "variant", "runtime"]
    wide = lines.pivot(index=keys, columns=column, values="cell")
    ordered = wide.reindex(
        index=pd.MultiIndex.from_frame(lines[keys].drop_duplicates()), columns=lines[column].unique()
    ).rename_axis(columns=None)
    statuses = []
    for _, cells in lines.groupby(keys, sort=False):
        missing = cells[cells[value].isna() & (cells["status"] != OK)]
        reasons = {str(reason): rows[column].tolist() for reason, rows in missing.groupby("status", sort=False)}
        statuses.append(reasons_in_words(reasons, len(cells)))
    if {*statuses} - {OK}:
        ordered["status"] = statuses
    return ordered.reset_index()


def overview_page(tables: Sequence[tuple[Table, pd.DataFrame]], reasons: Sequence[str] = ()) -> str:
    """What ends a run, as Markdown: tables with a page of their own, then the overviews of accuracy tables.

    Empty tables are left out. reasons: a line each on why numbers are missing.
    """
    parts = [table.page(rows) for table, rows in tables if table.page and not rows.empty]
    headed = [(table, rows) for table, rows in tables if "selection" in rows and "prompt" in rows and not rows.empty]
    if headed:
        parts.append("mIoU, %, of the mask with the highest predicted IoU (argmax)")
        parts += [part for table, rows in headed for part in (f"**{table.name}**", _markdown(overview(rows)))]
    if reasons:
        parts.append("\n".join(["why numbers are missing:", *(f"- {line}" for line in reasons)]))
    return "\n\n".join(parts) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(index=False, disable_numparse=True)
