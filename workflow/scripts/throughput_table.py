"""Condense the throughput of a study into the table `throughput`."""

import json
from pathlib import Path

from sambench.provenance import provenance
from sambench.results.measured import read_measured
from sambench.results.schemas import THROUGHPUT, THROUGHPUT_RUN
from sambench.results.tables import concat, write_table
from sambench.results.throughput_table import DECIMALS, lines
from sambench.script import run


def main(*, jobs: str, results: Path) -> None:
    """Write tables/throughput.*.

    Parameters
    ----------
    jobs
        JSON list of [dataset, variant, runtime]
    results
        the results folder
    """
    tables = [
        lines(facts, runs) for facts, runs in read_measured(results, "throughput", json.loads(jobs), THROUGHPUT_RUN)
    ]
    table = concat(tables, THROUGHPUT)
    write_table(results / "tables", "throughput", table, THROUGHPUT, provenance([jobs]), DECIMALS)


if __name__ == "__main__":
    run(main)
