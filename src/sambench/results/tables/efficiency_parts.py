"""The table `efficiency_parts`: the counts of the table `efficiency` by part of the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.jobs import efficiency_file
from sambench.results.table import Table, typed
from sambench.results.tables import efficiency
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("variant", "part")],
        *[pa.field(n, pa.float64()) for n in ("params_m", "flops_g", "macs_g", "products_g")],
    ]
)


def sources(study: Study) -> list[str]:
    return [efficiency_file(study.results, name) for name in study["variants"]]


def settings(study: Study) -> dict[str, Any]:
    return {"variants": study["variants"]}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    return by_part([efficiency.read_counts(results, name) for name in settings["variants"]])


def by_part(costs: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One line per variant and part, with the columns of SCHEMA; none for a variant without a count."""
    units = {"parameters": ("params_m", 1e6), "flops": ("flops_g", 1e9), "macs": ("macs_g", 1e9)}
    units["products"] = ("products_g", 1e9)
    lines = [
        {"variant": row["variant"], "part": row["part"]} | {to: row[name] / unit for name, (to, unit) in units.items()}
        for cost in costs
        for row in cost[cost["status"] == OK].to_dict("records")
    ]
    return typed(lines, SCHEMA)


TABLE = Table(
    name="efficiency_parts",
    order=70,
    title="Efficiency by part",
    explanation="The same by part of the network.",
    schema=SCHEMA,
    key=("variant", "part"),
    selected=efficiency.selected,
    sources=sources,
    settings=settings,
    build=build,
    units={"params_m": "M", "flops_g": "G", "macs_g": "G", "products_g": "G"},
    decimals={"params_m": 3, "flops_g": 3, "macs_g": 3, "products_g": 3},
)
