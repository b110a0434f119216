"""Tables for people: as Markdown and LaTeX beside the Parquet file and the CSV, and as an overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sambench.files import write_text
from sambench.parquet import write_parquet
from sambench.results.table import Table


def write_table(folder: Path, table: Table, rows: pd.DataFrame, provenance: Mapping[str, str]) -> None:
    """Write a table as Parquet (the truth), CSV, Markdown and LaTeX."""
    write_parquet(folder / f"{table.name}.parquet", rows, table.schema, provenance)
    write_text(folder / f"{table.name}.csv", rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    shown = presentable(rows, table.decimals)
    write_text(folder / f"{table.name}.md", _markdown(shown) + "\n")
    write_text(folder / f"{table.name}.tex", shown.to_latex(index=False, escape=True))


def presentable(table: pd.DataFrame, decimals: Mapping[str, int] | None = None) -> pd.DataFrame:
    """A table for people: one decimal or as many as `decimals` says of a column, interval in one column, a dash and the
    status where there is no number, digests cut short, and no columns of AP that are empty throughout."""
    shown = table.copy()
    if "ap" in table and table["ap"].notna().any():  # AP by frequency is LVIS's, and a size may not occur
        shown = shown.drop(columns=[name for name in table if name.startswith("ap_") and table[name].isna().all()])
    for name in (name for name in shown if name.endswith("_sha256")):
        shown[name] = shown[name].str[:12]
    floats = [name for name in shown.columns if pd.api.types.is_float_dtype(table[name])]
    for name in floats:
        digits = (decimals or {}).get(name, 1)
        shown[name] = [f"{value:.{digits}f}" if pd.notna(value) else "–" for value in table[name]]
    shown = shown.astype(object).where(shown.notna(), "–")
    if {"miou_low", "miou_high"} <= set(shown.columns):
        pairs = zip(shown["miou_low"], shown["miou_high"], strict=True)
        interval = ["–" if "–" in pair else f"{pair[0]} to {pair[1]}" for pair in pairs]
        shown.insert(shown.columns.get_loc("miou") + 1, "95 % interval", interval)
        shown = shown.drop(columns=["miou_low", "miou_high"])
        missing = table["miou"].isna()
        shown.loc[missing, "miou"] = table.loc[missing, "status"]
    return shown


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """The headline of an accuracy table: one line a variant, one column a prompt set, by `argmax`.

    table: the columns of results.accuracy.SCHEMA, whose mIoU it shows, or of the table `average_precision`, whose AP it
    shows; a status where there is no number.
    """
    column, value = ("prompt", "miou") if "miou" in table else ("detector", "ap")
    lines = table[table["selection"] == "argmax"].copy()
    lines["cell"] = [
        f"{number:.1f}" if pd.notna(number) else status
        for number, status in zip(lines[value], lines["status"], strict=True)
    ]
    keys = ["dataset", "variant", "runtime"]
    wide = lines.pivot(index=keys, columns=column, values="cell")
    ordered = wide.reindex(
        index=pd.MultiIndex.from_frame(lines[keys].drop_duplicates()), columns=lines[column].unique()
    )
    return ordered.rename_axis(columns=None).reset_index()


def overview_page(tables: Sequence[tuple[Table, pd.DataFrame]]) -> str:
    """What ends a run, as Markdown: the overviews of accuracy tables, else the first table as it is.

    Empty tables are left out.
    """
    headed = [(table, rows) for table, rows in tables if "selection" in rows and "prompt" in rows and not rows.empty]
    if headed:
        parts = ["mIoU, %, of the mask with the highest predicted IoU (argmax)"]
        parts += [part for table, rows in headed for part in (f"**{table.name}**", _markdown(overview(rows)))]
    else:
        parts = []
        for table, rows in tables[:1]:
            parts += [f"**{table.name}**", table.explanation, _markdown(presentable(rows, table.decimals))]
    return "\n\n".join(parts) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(index=False, disable_numparse=True)
