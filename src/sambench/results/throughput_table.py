"""From the runs of single batch sizes to the table `throughput`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sambench.results.schemas import THROUGHPUT
from sambench.results.tables import typed
from sambench.status import OK

DECIMALS = {"throughput_img_s": 3, "encode_img_s": 3}


def lines(facts: Mapping[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """One line a batch size of one variant and runtime, with the columns of schemas.THROUGHPUT.

    runs: columns of schemas.THROUGHPUT_RUN. facts: columns of the same name. `best` marks the batch with the most
    images a second, the smaller one of equals.
    """
    rows = []
    for run in runs.to_dict("records"):
        line = {name: value for name, value in {**facts, **run}.items() if name in THROUGHPUT.names}
        if run["status"] == OK:
            line |= {
                "n": run["images"],
                "throughput_img_s": run["images"] / run["seconds"],
                "encode_img_s": run["images"] / run["encode_seconds"],
                "boxes_per_image": run["boxes"] / run["images"],
                "data_wait": 100 * run["wait_seconds"] / run["seconds"],
            }
        rows.append({"best": False, "n": 0, **line})
    rates = [row.get("throughput_img_s", 0.0) for row in rows]
    if max(rates) > 0:
        rows[rates.index(max(rates))]["best"] = True
    return typed(rows, THROUGHPUT)


def best(table: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, Any]]:
    """For each (dataset, variant, runtime) the columns of segany_time: throughput_img_s and best_batch."""
    return {
        (row["dataset"], row["variant"], row["runtime"]): {
            "throughput_img_s": row["throughput_img_s"],
            "best_batch": row["batch"],
        }
        for row in table[table["best"]].to_dict("records")
    }
