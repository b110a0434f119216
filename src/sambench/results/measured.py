"""Reading the files of measuring jobs: their rows, and what their provenance says of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.jobs import measured_file
from sambench.parquet import read_parquet, read_provenance

if TYPE_CHECKING:
    from sambench.study import Study

FACTS = ("weights", "decoder", "encodes", "first_ms", "others", "busy")


def jobs_of(study: Study, measure: str) -> list[list[str]]:
    """The jobs of a measure, as (dataset, variant, runtime)."""
    return [list(job) for job in study.measuring_jobs(measure)]


def read_measured(
    results: Path, stage: str, jobs: Iterable[Sequence[str]], schema: pa.Schema
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """For each job its coordinates and facts, and its rows.

    The facts are those columns of the tables that are the same for all lines of a job: dataset, variant, runtime,
    device, threads, weights, decoder, encodes, others, busy, first_ms; of these, those that the run has.
    """
    for job in jobs:
        path = Path(measured_file(results, stage, *job))
        origin = read_provenance(path)
        run = json.loads(origin["run"])
        facts: dict[str, Any] = dict(zip(("dataset", "variant", "runtime"), job, strict=True))
        facts |= {name: run[name] for name in FACTS if name in run}
        facts |= {"device": origin["device"], "threads": json.loads(origin["machine"])["torch_threads"]}
        yield facts, read_parquet(path, schema).to_pandas()
