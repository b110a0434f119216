"""Gather average precision into the tables `instances` and `detectors`."""

import json
from pathlib import Path

import pandas as pd

from sambench.jobs import Job
from sambench.provenance import provenance
from sambench.results.instances_table import instances_table
from sambench.results.schemas import DETECTORS, INSTANCE_SEGMENTATION, MASK_PRECISION, read_parquet
from sambench.results.tables import write_table
from sambench.script import run


def main(*, jobs: str, detectors: str, results: Path) -> None:
    """Write tables/instances.* and tables/detectors.*.

    Parameters
    ----------
    jobs
        JSON list of [dataset, variant, runtime, prompt group]
    detectors
        JSON list of the Parquet files with the average precision of boxes, one a dataset
    results
        the results folder
    """
    boxes = pd.concat([read_parquet(Path(file), DETECTORS).to_pandas() for file in json.loads(detectors)])
    parts = [
        (job, read_parquet(Path(job.precision_file(results)), MASK_PRECISION).to_pandas())
        for job in (Job(*names) for names in json.loads(jobs))
    ]
    origin = provenance([jobs, detectors])
    write_table(results / "tables", "detectors", boxes, DETECTORS, origin)
    write_table(results / "tables", "instances", instances_table(parts, boxes), INSTANCE_SEGMENTATION, origin)


if __name__ == "__main__":
    run(main)
