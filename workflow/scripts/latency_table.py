"""Condense the times of a study into the table `segany_time`."""

import json
from pathlib import Path

import pandas as pd

from sambench.provenance import provenance
from sambench.results import throughput_table
from sambench.results.latency_table import lines
from sambench.results.measured import read_measured
from sambench.results.schemas import LATENCY, SEGANY_TIME, THROUGHPUT, read_parquet
from sambench.results.tables import concat, write_table
from sambench.script import run


def main(*, jobs: str, resamples: int, seed: int, results: Path, throughput: Path | None = None) -> None:
    """Write tables/segany_time.*.

    Parameters
    ----------
    jobs
        JSON list of [dataset, variant, runtime]
    resamples
        resamples of the bootstrap
    seed
        seed of the bootstrap
    results
        the results folder
    throughput
        Parquet file of the table `throughput`, when that was measured too
    """
    rates = read_parquet(throughput, THROUGHPUT).to_pandas() if throughput else pd.DataFrame({"best": []}, dtype=bool)
    best = throughput_table.best(rates)
    tables = []
    for facts, times in read_measured(results, "latency", json.loads(jobs), LATENCY):
        key = (facts["dataset"], facts["variant"], facts["runtime"])
        tables.append(lines(facts | best.get(key, {}), times, resamples=resamples, seed=seed))
    write_table(
        results / "tables", "segany_time", concat(tables, SEGANY_TIME), SEGANY_TIME, provenance([jobs, resamples, seed])
    )


if __name__ == "__main__":
    run(main)
