"""What one dataset, variant, runtime and prompt group have to say in every table that comes in parts."""

from pathlib import Path
from typing import Any

from sambench.jobs import Job
from sambench.results.parts import write_parts
from sambench.script import run


def main(
    *,
    dataset: str,
    variant: str,
    runtime: str,
    group: str,
    results: Path,
    tables: list[str],
    shards: list[Path],
    prompts: Path,
    instances: Path,
    settings: dict[str, Any],
) -> None:
    """Write parts/{dataset}/{variant}/{runtime}/{group}/{table}.parquet in the folder of results, one per table.

    shards: files of segany, in their order. settings: what else decides (`sambench.results.parts.part_settings`).
    """
    write_parts(Job(dataset, variant, runtime, group), tables, results, shards, prompts, instances, settings)


if __name__ == "__main__":
    run(main)
