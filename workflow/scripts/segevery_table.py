"""Condense the per-image records of segment everything into the table `segevery`."""

import json
from pathlib import Path

from sambench.jobs import EverythingJob
from sambench.provenance import provenance
from sambench.results.schemas import EVERYTHING, SEGEVERY, read_parquet, read_provenance
from sambench.results.segevery_table import line
from sambench.results.tables import concat, write_table
from sambench.script import run


def main(*, jobs: str, results: Path) -> None:
    """Write tables/segevery.*, one line a job.

    Parameters
    ----------
    jobs
        JSON list of [dataset, variant, runtime, sampler]
    results
        the results folder
    """
    lines = []
    for job in (EverythingJob(*names) for names in json.loads(jobs)):
        quality, time = (Path(job.file(results, kind)) for kind in ("quality", "time"))
        records = [read_parquet(path, SEGEVERY).to_pandas() for path in (quality, time)]
        lines.append(line(job, *records, device=read_provenance(time)["device"]))
    write_table(results / "tables", "segevery", concat(lines, EVERYTHING), EVERYTHING, provenance(jobs))


if __name__ == "__main__":
    run(main)
