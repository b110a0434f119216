"""Condense the per-instance results of a study into the tables `points` and `boxes`."""

import json
from pathlib import Path

import pandas as pd

from sambench.files import write_text
from sambench.jobs import Job
from sambench.provenance import provenance
from sambench.results.schemas import ACCURACY, PROMPTS, SEGANY, read_parquet
from sambench.results.tables import (
    accuracy,
    check_complete,
    concat,
    overview_page,
    split_by_prompt,
    write_table,
)
from sambench.script import run


def main(*, jobs: str, shards: str, selections: str, resamples: int, seed: int, results: Path) -> None:
    """Check that every planned prompt was scored once, then write tables/points.*, boxes.* and overview.md.

    Parameters
    ----------
    jobs
        JSON list of [dataset, variant, runtime, prompt group]
    shards
        JSON, the number of shards of each dataset
    selections
        JSON list of selection rules
    resamples
        resamples of the bootstrap
    seed
        seed of the bootstrap
    results
        the results folder
    """
    rules, split = json.loads(selections), json.loads(shards)
    tables = []
    for job in (Job(*names) for names in json.loads(jobs)):
        planned = read_parquet(Path(job.prompts_file(results)), PROMPTS).to_pandas()
        files = [Path(file) for file in job.shard_files(results, split[job.dataset])]
        rows = pd.concat([read_parquet(file, SEGANY).to_pandas() for file in files], ignore_index=True)
        check_complete(rows, planned, files[0].parent.as_posix())
        tables.append(accuracy(job, rows, rules, resamples=resamples, seed=seed))
    origin = provenance([jobs, rules, resamples, seed])
    parts = split_by_prompt(concat(tables, ACCURACY))
    for name, table in parts.items():
        write_table(results / "tables", name, table, ACCURACY, origin)
    write_text(results / "tables" / "overview.md", overview_page(parts))


if __name__ == "__main__":
    run(main)
