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


def parse_shard(name: str) -> tuple[int, int]:
    """`0-of-4` -> (0, 4)."""
    shard, _, shards = name.partition("-of-")
    return int(shard), int(shards)
