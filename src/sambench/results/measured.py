"""Reading the files of measuring jobs: their rows, and what their provenance says of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from sambench.results.schemas import read_parquet, read_provenance

FACTS = ("weights", "first_ms", "others", "busy")


def measured_file(results: Path, stage: str, job: Sequence[str]) -> Path:
    """The file of a job, (dataset, variant, runtime), of `latency`, `throughput` or `agreement`."""
    dataset, variant, runtime = job
    return results / stage / dataset / variant / f"{runtime}.parquet"


def read_measured(
    results: Path, stage: str, jobs: Iterable[Sequence[str]], schema: pa.Schema
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """For each job its coordinates and facts, and its rows.

    The facts are those columns of the tables that are the same for all lines of a job: dataset, variant, runtime,
    device, threads, weights, others, busy, first_ms; of these, those that the run has.
    """
    for job in jobs:
        path = measured_file(results, stage, job)
        origin = read_provenance(path)
        run = json.loads(origin["run"])
        facts: dict[str, Any] = dict(zip(("dataset", "variant", "runtime"), job, strict=True))
        facts |= {name: run[name] for name in FACTS if name in run}
        facts |= {"device": origin["device"], "threads": json.loads(origin["machine"])["torch_threads"]}
        yield facts, read_parquet(path, schema).to_pandas()
