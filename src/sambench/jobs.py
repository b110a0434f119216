"""The jobs of a study and the names of their files, in one place for rules and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """One segany job, but for its shard."""

    dataset: str
    variant: str
    runtime: str
    group: str

    def prompts_file(self, results: str | Path) -> str:
        return f"{results}/prompts/{self.dataset}/{self.group}.parquet"

    def shard_files(self, results: str | Path, shards: int) -> list[str]:
        """One file a shard; other names when their number changes, so that none is mistaken for another."""
        folder = f"{results}/segany/{self.dataset}/{self.variant}/{self.runtime}/{self.group}"
        return [f"{folder}/{shard}-of-{shards}.parquet" for shard in range(shards)]


class EverythingJob(NamedTuple):
    """One segevery job, of which quality and time are measured apart."""

    dataset: str
    variant: str
    runtime: str
    sampler: str

    def file(self, results: str | Path, kind: str) -> str:
        """The records of `quality` or of `time`, or the `masks` themselves."""
        return f"{results}/segevery/{self.dataset}/{self.variant}/{self.runtime}/{self.sampler}/{kind}.parquet"


def parse_shard(name: str) -> tuple[int, int]:
    """`0-of-4` -> (0, 4)."""
    shard, _, shards = name.partition("-of-")
    return int(shard), int(shards)
