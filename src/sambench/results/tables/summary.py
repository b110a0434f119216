"""The table `summary`: all that a study found of each variant, one row per data set, variant and runtime.

What it shows is declared by the tables that have it, `Table.summary`; here is only what comes from none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.parquet import read_provenance
from sambench.results.declared import BY_NAME, KEY, Column, InSummary
from sambench.results.headlines import HEADLINES
from sambench.results.table import Table, all_tables, expanded, read_tables, reasons_in_words, table_files, typed
from sambench.status import OK
from sambench.variants.cards import Card
from sambench.variants.origin import OFFICIAL

if TYPE_CHECKING:
    from sambench.study import Study

RULE = "argmax"
NOT_ASKED = "not asked"  # of this row, though of others

# What comes from no table or from several ones; the places between are those of the tables' columns. checkpoint_mb in
# 10^6 bytes. weights: what the checkpoint files are, see variants/origin.py.
OWN = (
    *(Column(name=name, order=0, type=pa.string()) for name in (*KEY, "family")),
    *(Column(name=name, order=30, type=pa.int64()) for name in ("instances", "images")),
    Column(name="device", order=80, type=pa.string()),
    Column(name="checkpoint_mb", order=130, unit="MB"),
    Column(name="busy", order=130, type=pa.bool_()),
    *(
        Column(name=name, order=140, type=pa.string())
        for name in ("licence_code", "licence_weights", "weights", "weights_sha256", "status", "not_asked")
    ),
)


def declared(tables: Iterable[Table]) -> dict[str, InSummary]:
    """What tables give, by their names, in the order of the words for it; of two with a column in common, the first."""
    found: dict[str, InSummary] = {}
    taken: set[str] = set()
    for table in tables:
        names = {column.name for column in table.summary.columns} if table.summary else set()
        if table.summary and not names & taken:
            found[table.name] = table.summary
            taken |= names
    return dict(sorted(found.items(), key=lambda entry: entry[1].order))


def columns(tables: Iterable[Table]) -> list[Column]:
    """All columns in their order."""
    given = [column for part in declared(tables).values() for column in part.columns]
    return sorted([*OWN, *given], key=lambda column: column.order)


def source_of(column: str) -> str:
    """The name of the table that gives a column."""
    return next(
        name for name, part in declared(all_tables().values()).items() if column in {c.name for c in part.columns}
    )


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.name, column.type) for column in columns])


def with_columns(table: Table, others: Sequence[Table]) -> Table:
    """The table with the columns that others declare, and with their words."""
    whole = columns(others)
    parts = sorted(declared(others).values(), key=lambda part: part.columns[0].order)
    return replace(
        table,
        schema=schema_of(whole),
        units={column.name: column.unit for column in whole if column.unit},
        decimals={column.name: column.decimals for column in whole if column.decimals is not None},
        explanation=table.explanation.format(columns=" ".join(filter(None, (part.explanation for part in parts)))),
        declared_in=tuple(other.module for other in others if other.summary),
    )


def tables_needed(study: Study) -> dict[str, str]:
    tables = all_tables()
    parts = declared(tables.values()).items()
    asked = [name for name, part in parts if tables[name].selected(study) and part.asked(study)]
    return table_files(study, asked)


def sources(study: Study) -> list[str]:
    return list(tables_needed(study).values())


def settings(study: Study) -> dict[str, Any]:
    return {
        "jobs": [list(job) for job in study.places()],
        "segany": [[job.variant, job.shard_files(study.results, study.shards(job.dataset))[0]] for job in study.jobs()],
        "tables": tables_needed(study),
        "cards": {name: card_entry(study.cards[name]) for name in study["variants"]},
        "folders": [str(folder) for folder in study.weights_folders],
    }


def card_entry(card: Card) -> dict[str, Any]:
    """What the summary says of a variant itself, and what its files are known by."""
    return {
        "family": card.family,
        "licence_code": card.licence_code,
        "licence_weights": card.licence_weights,
        "checkpoints": [dict(checkpoint) for checkpoint in card.checkpoints],
        "like": card.like,
    }


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    folders = [Path(folder) for folder in settings["folders"]]
    digests = dict(weights_used(settings["segany"]))
    facts = {}
    for name, entry in settings["cards"].items():
        card = Card(name=name, **entry)
        size = card.checkpoint_bytes(folders)
        facts[name] = {
            "family": card.family,
            "licence_code": card.licence_code,
            "licence_weights": card.licence_weights,
            "weights": card.origin(folders),
            "weights_sha256": digests.get(name, ""),
            "checkpoint_mb": None if size is None else size / 1e6,
        }
    return summary([tuple(job) for job in settings["jobs"]], read_tables(settings["tables"]), facts)


def weights_used(files: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """(variant, SHA-256 of its weights) as segany recorded them when it ran. files: (variant, file)."""
    for variant, file in files:
        digest = read_provenance(Path(file)).get("weights_sha256", "")
        if digest:
            yield variant, digest


def summary(
    jobs: Sequence[tuple[str, ...]], tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """One row per (dataset, variant, runtime), with the columns of the registry's table.

    jobs: these coordinates, in order. tables: rows by the table's name; what is not there was not asked. facts: columns
    that hold for a variant everywhere.

    `status` is `ok`, or the reasons why numbers are missing, each with the parts that it is about.
    """
    registry = all_tables().values()
    parts, whole = declared(registry), columns(registry)
    found = {}
    for name in parts.keys() & tables.keys():
        rows = tables[name]
        found[name] = parts[name].chosen(rows[rows["selection"] == RULE] if "selection" in rows else rows)
    not_asked = ", ".join(part.word for name, part in parts.items() if name not in found)
    lines = []
    for job in jobs:
        line: dict[str, Any] = {column.name: [] for column in whole if column.type == BY_NAME}
        line |= dict(zip(KEY, job, strict=True))
        line |= {**facts.get(job[1], {}), "not_asked": not_asked}
        reasons: dict[str, list[str]] = {}
        for name, part in parts.items():
            if name not in found:
                continue
            rows = _of(found[name], line)
            cells, missing = ({}, [(part.word, NOT_ASKED)]) if rows.empty else part.cells(rows)
            line |= {
                name: value for name, value in cells.items() if pd.api.types.is_list_like(value) or pd.notna(value)
            }
            for what, reason in missing:
                reasons.setdefault(reason, []).append(what)
        line["status"] = reasons_in_words(reasons)
        lines.append(line)
    return typed(lines, schema_of(whole))


def _of(table: pd.DataFrame, line: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table that are about a row of the summary; a cost has neither data set nor runtime."""
    for name in KEY:
        if name in table:
            table = table[table[name] == line[name]]
    return table


def page(rows: pd.DataFrame) -> str:
    """The summary for a terminal: as Markdown, best mIoU first, one table per data set, what is the same for all above
    it, and below it why numbers are missing."""
    parts = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        ranked = of_dataset.sort_values(["miou_box", "miou_point"], ascending=False, na_position="last", kind="stable")
        shown, notes = _narrow(ranked)
        caption = f"**{dataset}**: {'; '.join(notes)}"
        parts += [caption, shown.to_markdown(index=False, disable_numparse=True)]
        reasons = ranked.loc[ranked["status"] != OK].groupby("status", sort=False)
        parts += ["\n".join(f"- {', '.join(names)}: {reason}" for reason, names in _names(ranked, reasons))]
    return "\n\n".join(part for part in parts if part)


def _narrow(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The columns that fit a terminal, and what is to be known of them and of all rows.

    Of several detectors and samplers the first one is shown; columns that are empty throughout are left out.
    """
    runtimes, devices = rows["runtime"].unique(), rows["device"].dropna().unique()
    notes = [*(runtimes if len(runtimes) == 1 else []), *(devices if len(devices) == 1 else [])]
    shown = pd.DataFrame({"variant": rows["variant"]})
    if len(runtimes) > 1:
        shown["runtime"] = rows["runtime"]
    for part in HEADLINES:
        names = rows[f"{part}_prompt"].dropna().unique()
        if len(names):
            notes.append(f"mIoU {part}, %: of {names[0]}, ± half its 95 % interval")
            half = (rows[f"miou_{part}_high"] - rows[f"miou_{part}_low"]) / 2
            shown[f"mIoU {part}"] = [
                "–" if pd.isna(mean) else f"{mean:.1f}" if pd.isna(width) else f"{mean:.1f} ± {width:.1f}"
                for mean, width in zip(rows[f"miou_{part}"], half, strict=True)
            ]
    wide = expanded(rows)
    named: list[str] = []
    for column in columns(all_tables().values()):
        name = column.name
        if column.type == BY_NAME:
            name = next((each for each in wide if each.startswith(f"{name}/")), name)
            if name in wide and column.title:
                named.append(f"{column.note} {name.removeprefix(f'{column.name}/')}")
        if column.title and name in wide and wide[name].notna().any():
            shown[column.title] = ["–" if pd.isna(value) else f"{value:.{column.digits}f}" for value in wide[name]]
    notes += reversed(named)
    licences = [
        " / ".join(dict.fromkeys(filter(None, pair))) for pair in _pairs(rows, "licence_code", "licence_weights")
    ]
    if any(licences):
        shown["licence"] = [licence or "–" for licence in licences]
    weights = rows["weights"].fillna("")
    if {*weights} - {"", OFFICIAL}:
        shown["weights"] = [word or "–" for word in weights]
    return shown, notes


def _pairs(rows: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].fillna("") for name in names), strict=True)


def _names(rows: pd.DataFrame, reasons: Any) -> Iterator[tuple[str, list[str]]]:
    """(reason, names of the rows that it is about)."""
    several = rows["runtime"].nunique() > 1
    for reason, lines in reasons:
        names = lines["variant"] + " @ " + lines["runtime"] if several else lines["variant"]
        yield reason, names.tolist()


TABLE = Table(
    name="summary",
    order=0,
    title="Summary",
    explanation="All that was found of each variant. box_prompt and point_prompt say which prompts the mean IoU is of; "
    "the mask is that with the highest predicted IoU. {columns} weights: whether the checkpoint is the official file, "
    "by its digest. status says which numbers are missing and why, not_asked what the study did not measure.",
    schema=schema_of(OWN),
    key=KEY,
    selected=lambda study: True,
    sources=sources,
    settings=settings,
    build=build,
    completed=with_columns,
    page=page,
    derived=True,
)
