"""The table `suites`: several data sets as one, with the mean and the mean rank of each variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.results.layout import CEILING
from sambench.results.table import Table, all_tables, find_table, read_tables, reasons_in_words, table_files, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

RULE = "argmax"
NOT_MEASURED = "not asked"

# measure: such as `AP grounding_dino_base`. mean: over the data sets, which count alike, where all have a number.
# mean_rank: of the variant's place among those of the runtime that have them all, 1 for the best; equals share theirs.
# values: by data set. datasets: those with a number; of: those of the suite that the study has.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("suite", "measure", "variant", "runtime")],
        *[pa.field(n, pa.float64()) for n in ("mean", "mean_rank")],
        *[pa.field(n, pa.int64()) for n in ("datasets", "of")],
        pa.field("values", pa.map_(pa.string(), pa.float64())),
        pa.field("status", pa.string()),
    ]
)


def members(study: Study) -> dict[str, list[str]]:
    """The suites of which a study has two data sets or more, with those that it has."""
    found = {
        suite: [name for name in names if name in study["datasets"]] for suite, names in study.settings.suites.items()
    }
    return {suite: names for suite, names in found.items() if len(names) > 1}


def tables_needed(study: Study) -> dict[str, str]:
    return table_files(study, [name for name, table in all_tables().items() if table.score and table.selected(study)])


def settings(study: Study) -> dict[str, Any]:
    return {"suites": members(study), "tables": tables_needed(study)}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    return suites(settings["suites"], read_tables(settings["tables"]))


def suites(members: Mapping[str, Sequence[str]], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per suite, measure, variant and runtime, with the columns of SCHEMA.

    members: the data sets of each suite. tables: rows by the table's name.
    """
    lines: list[dict[str, Any]] = []
    for suite, names in members.items():
        for table_name, table in tables.items():
            numbers = table[table["dataset"].isin(names)]
            if "selection" in numbers:
                numbers = numbers[numbers["selection"] == RULE]
            score = find_table(table_name).score
            assert score is not None, f"{table_name} has no score"
            for (name, _), rows in numbers.groupby([score.by, "runtime"], sort=False):
                words = {"suite": suite, "measure": f"{score.word} {name}"}
                lines += [words | row for row in _rows(rows, score.column, names)]
    return typed(lines, SCHEMA)


def _rows(numbers: pd.DataFrame, column: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one measure and runtime: best mean first, those without a mean last."""
    keys = numbers[["variant", "runtime"]].drop_duplicates()
    wide = numbers.pivot(index="variant", columns="dataset", values=column).reindex(
        index=keys["variant"], columns=names
    )
    status = numbers.pivot(index="variant", columns="dataset", values="status").reindex(index=wide.index, columns=names)
    whole = wide.dropna()
    ranks = whole.drop(index=CEILING, errors="ignore").rank(ascending=False, method="average").mean(axis=1)
    means = whole.mean(axis=1)
    order = means.reindex(wide.index).sort_values(ascending=False, kind="stable", na_position="last").index
    runtime = keys["runtime"].iloc[0]
    for variant in order:
        own = wide.loc[variant]
        reasons: dict[str, list[str]] = {}
        for name in names:
            reason = status.at[variant, name]
            reason = NOT_MEASURED if pd.isna(reason) else str(reason)
            if reason != OK:
                reasons.setdefault(reason, []).append(name)
        yield {
            "variant": variant,
            "runtime": runtime,
            "mean": means.get(variant),
            "mean_rank": ranks.get(variant),
            "datasets": int(own.notna().sum()),
            "of": len(names),
            "values": [(name, float(value)) for name, value in own.items() if pd.notna(value)],
            "status": reasons_in_words(reasons, len(names)),
        }


TABLE = Table(
    name="suites",
    order=45,
    title="Suites",
    explanation="Several data sets as one, by what was measured on them: mIoU in per cent by prompt type, AP by "
    "detector, AR@1000 by sampler. mean: over the data sets, each counting alike, where a variant has a number on all "
    "of them. mean_rank: the mean of its places among the variants that have them all, 1 for the best; the ceiling "
    "ground_truth takes no place. values: on each data set.",
    schema=SCHEMA,
    key=("suite", "measure", "variant", "runtime"),
    selected=lambda study: bool(members(study)) and bool(tables_needed(study)),
    sources=lambda study: list(tables_needed(study).values()),
    settings=settings,
    build=build,
    decimals={"mean_rank": 2},
    derived=True,
)
