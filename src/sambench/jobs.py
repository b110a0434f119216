"""The jobs of a study and the names of their files, in one place for rules and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sambench.settings import ON_IMAGES

if TYPE_CHECKING:
    import pandas as pd


# One job of `shards: auto` covers so many images: minutes even for the fastest variant, so that the seconds that
# Snakemake and the loading of a network cost disappear in it, and not hours for the slowest.
IMAGES_PER_SHARD = 1250


class Job(NamedTuple):
    """One segany job, apart from its shard."""

    dataset: str
    variant: str
    runtime: str
    group: str

    def prompts_file(self, results: str | Path) -> str:
        return f"{results}/prompts/{self.dataset}/{self.group}.parquet"

    def shard_files(self, results: str | Path, shards: int) -> list[str]:
        """One file per shard; other names when their number changes, so that none is mistaken for another."""
        return self._files(results, "segany", shards)

    def mask_files(self, results: str | Path, shards: int) -> list[str]:
        """The masks of detector boxes, one file per shard."""
        return self._files(results, "masks", shards)

    def precision_file(self, results: str | Path) -> str:
        """The average precision of these masks."""
        return f"{results}/average_precision/{self.dataset}/{self.variant}/{self.runtime}/{self.group}.parquet"

    def part_file(self, results: str | Path, table: str) -> str:
        """What this job has to say in a table that comes in parts."""
        return f"{results}/parts/{self.dataset}/{self.variant}/{self.runtime}/{self.group}/{table}.parquet"

    def _files(self, results: str | Path, kind: str, shards: int) -> list[str]:
        folder = f"{results}/{kind}/{self.dataset}/{self.variant}/{self.runtime}/{self.group}"
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


def instances_file(results: str | Path, dataset: str) -> str:
    """The instances of an indexed dataset."""
    return f"{results}/datasets/{dataset}/instances.parquet"


def notes_file(results: str | Path, dataset: str) -> str:
    """What the index notes about a dataset."""
    return f"{results}/datasets/{dataset}/notes.parquet"


def boxes_file(results: str | Path, dataset: str, detector: str) -> str:
    """The boxes of a detector in all images of a dataset."""
    return f"{results}/boxes/{dataset}/{detector}.parquet"


def box_precision_file(results: str | Path, dataset: str) -> str:
    """The average precision of the boxes of all detectors on a dataset."""
    return f"{results}/average_precision/{dataset}/boxes.parquet"


def measured_file(results: str | Path, stage: str, dataset: str, variant: str, runtime: str) -> str:
    """What one job of a measure with a data set and a runtime measured."""
    return f"{results}/{stage}/{dataset}/{variant}/{runtime}.parquet"


def picks_file(folder: str | Path, dataset: str) -> str:
    """What the gallery of a study shows of a data set. folder: of the study."""
    return f"{folder}/gallery/{dataset}.parquet"


def gallery_file(folder: str | Path, dataset: str, variant: str, runtime: str) -> str:
    """The masks of one variant in the gallery of a study."""
    return f"{folder}/gallery/{dataset}/{variant}/{runtime}.parquet"


def efficiency_file(results: str | Path, variant: str) -> str:
    """The counts of one variant."""
    return f"{results}/efficiency/{variant}.parquet"


# What the parts of a path below the folder of a stage are, the last one without `.parquet`. Of two layouts that a path
# has, the one with more parts is meant, unless a stage's word would be a variant or runtime: then the folder of all
# results stands in one that has the name of a stage.
LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("segany", ("dataset", "variant", "runtime", "group", "shard")),
    ("masks", ("dataset", "variant", "runtime", "group", "shard")),
    ("parts", ("dataset", "variant", "runtime", "group", "table")),
    ("segevery", ("dataset", "variant", "runtime", "sampler", "kind")),
    ("average_precision", ("dataset", "variant", "runtime", "group")),
    *((measure, ("dataset", "variant", "runtime")) for measure in ON_IMAGES),
    ("volumes", ("dataset", "variant", "runtime")),
    ("gallery", ("dataset", "variant", "runtime")),
    ("boxes", ("dataset", "detector", "shard")),
    ("boxes", ("dataset", "detector")),
    ("average_precision", ("dataset", "kind")),
    ("gallery", ("dataset",)),
    ("prompts", ("dataset", "group")),
    ("datasets", ("dataset", "kind")),
    ("efficiency", ("variant",)),
    ("tables", ("table",)),
)
STAGES = frozenset(stage for stage, _ in LAYOUTS)


def identity(path: Path) -> dict[str, str]:
    """What a result is by its path: the stage, and its dataset, variant, runtime, group, shard, as far as it has them.

    Empty for a path that is not laid out like results.
    """
    parts = [*path.parts[:-1], path.stem]
    for stage, names in LAYOUTS:
        if len(parts) > len(names) and parts[-len(names) - 1] == stage:
            found = dict(zip(names, parts[-len(names) :], strict=True))
            if "-of-" in found.get("shard", "-of-") and not STAGES & {found.get("variant"), found.get("runtime")}:
                return {"stage": stage, **found}
    return {}


def parse_shard(name: str) -> tuple[int, int]:
    """`0-of-4` -> (0, 4)."""
    shard, _, shards = name.partition("-of-")
    return int(shard), int(shards)


def shard_images(images: pd.DataFrame, shard: int, shards: int) -> pd.DataFrame:
    """The images of one shard: every `shards`-th one, so that shards are equal whatever the order of the images."""
    return images.iloc[shard::shards]


def mask_selections(selections: Sequence[str]) -> list[str]:
    """The selection rules that choose a mask without the ground truth."""
    return [rule for rule in selections if rule != "oracle"]
