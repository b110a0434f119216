"""Condense the times of a study into the table `segany_time`."""

import json
from pathlib import Path

from sambench.provenance import provenance
from sambench.results.latency_table import lines
from sambench.results.schemas import LATENCY, SEGANY_TIME, read_parquet, read_provenance
from sambench.results.tables import concat, write_table
from sambench.script import run


def main(*, jobs: str, resamples: int, seed: int, results: Path) -> None:
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
    """
    tables = []
    for dataset, variant, runtime in json.loads(jobs):
        path = results / "latency" / dataset / variant / f"{runtime}.parquet"
        origin = read_provenance(path)
        facts = json.loads(origin["run"])
        facts = {name: facts[name] for name in ("weights", "first_ms", "others", "busy") if name in facts}
        facts |= {"device": origin["device"], "threads": json.loads(origin["machine"])["torch_threads"]}
        coordinates = {"dataset": dataset, "variant": variant, "runtime": runtime}
        times = read_parquet(path, LATENCY).to_pandas()
        tables.append(lines(coordinates, times, facts, resamples=resamples, seed=seed))
    write_table(
        results / "tables", "segany_time", concat(tables, SEGANY_TIME), SEGANY_TIME, provenance([jobs, resamples, seed])
    )


if __name__ == "__main__":
    run(main)
