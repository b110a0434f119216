"""Condense how far runtimes agree with eager float32 into the table `agreement`."""

import json
from pathlib import Path

from sambench.provenance import provenance
from sambench.results.agreement_table import DECIMALS, line
from sambench.results.measured import read_measured
from sambench.results.schemas import AGREEMENT, AGREEMENT_RUN
from sambench.results.tables import concat, write_table
from sambench.script import run


def main(*, jobs: str, resamples: int, seed: int, results: Path) -> None:
    """Write tables/agreement.*.

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
    """
    tables = [
        line(facts, rows, resamples=resamples, seed=seed)
        for facts, rows in read_measured(results, "agreement", json.loads(jobs), AGREEMENT_RUN)
    ]
    table, origin = concat(tables, AGREEMENT), provenance([jobs, resamples, seed])
    write_table(results / "tables", "agreement", table, AGREEMENT, origin, DECIMALS)


if __name__ == "__main__":
    run(main)
