"""All variants on the same prompts: what paired comparisons are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sambench import records
from sambench.jobs import Job, instances_file
from sambench.parquet import inputs, read_parquet
from sambench.results.accuracy import IOU_COLUMN, LARGE, SMALL, config_digests
from sambench.results.table import status_of
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

KEYS = ["annotation_id", "image_id", "category_id", "area", "iscrowd"]


class System(NamedTuple):
    """A variant as a runtime executes it: what is compared."""

    variant: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.variant} @ {self.runtime}"


@dataclass(frozen=True)
class Scores:
    """The IoU of several systems on the same prompts, in per cent.

    instances: columns KEYS, one row per prompt. iou: (N, systems) float64, NaN where there is no number. statuses: of
    each system, `ok` or why numbers are missing.
    """

    instances: pd.DataFrame
    systems: tuple[System, ...]
    iou: np.ndarray
    statuses: tuple[str, ...]

    @property
    def images(self) -> np.ndarray:
        return self.instances["image_id"].to_numpy()

    def of(self, system: System) -> np.ndarray:
        """(N,): the IoU of one system."""
        return np.asarray(self.iou[:, self.systems.index(system)])

    def scored(self) -> list[System]:
        """The systems that have a number at all."""
        known = ~np.isnan(self.iou).all(axis=0)
        return [system for system, has in zip(self.systems, known, strict=True) if has]


def subsets(instances: pd.DataFrame) -> dict[str, np.ndarray]:
    """Masks (N,) of the rows: all, by size of the annotation (half-open bounds, as in the tables), and by crowd.

    One that holds nothing, or all, is left out.
    """
    area, crowd = instances["area"].to_numpy(), instances["iscrowd"].to_numpy(dtype=bool)
    parts = {
        "small": area < SMALL,
        "medium": (area >= SMALL) & (area < LARGE),
        "large": area >= LARGE,
        "not crowd": ~crowd,
        "crowd": crowd,
    }
    return {"all": np.ones(len(instances), dtype=bool)} | {
        name: mask for name, mask in parts.items() if mask.any() and not mask.all()
    }


def plan(study: Study) -> dict[str, Any]:
    """What `read_scores` needs of a study, as plain values: settings of tables."""
    return {
        "shards": {name: study.shards(name) for name in study["datasets"]},
        "groups": {group: study.prompt_types(group) for group in study["prompt_groups"]},
        "jobs": [list(job) for job in study.jobs()],
        "untrained": {
            name: study.cards[name].builder for name in study["variants"] if not study.cards[name].checkpoints
        },
        "bootstrap": study.bootstrap,
        "config_digests": config_digests(study),
    }


def ceilings(plan: Mapping[str, Any]) -> set[str]:
    """The variants of a plan that are given the ground truth: they cannot be chosen, so they have no rank."""
    found = set()
    for name, builder in plan["untrained"].items():
        module, _, attribute = builder.partition(":")
        if module and getattr(getattr(import_module(module), attribute), "uses_ground_truth", False):
            found.add(name)
    return found


def datasets(plan: Mapping[str, Any]) -> list[str]:
    """The data sets of a plan."""
    return list(dict.fromkeys(job[0] for job in plan["jobs"]))


def prompt_sets(plan: Mapping[str, Any], dataset: str) -> list[tuple[str, str]]:
    """(group, prompt) of every prompt set that is scored by IoU on a data set."""
    groups = dict.fromkeys(job[3] for job in plan["jobs"] if job[0] == dataset)
    return [(group, prompt) for group in groups for prompt in plan["groups"][group]]


def systems_of(plan: Mapping[str, Any], dataset: str, group: str) -> list[System]:
    """The systems that a plan runs on a prompt group of a data set."""
    return [System(job[1], job[2]) for job in plan["jobs"] if job[0] == dataset and job[3] == group]


def first_runtimes(plan: Mapping[str, Any], dataset: str, group: str) -> list[System]:
    """Each variant in the first runtime that it has on a prompt group, where all would be too many to look at."""
    first: dict[str, System] = {}
    for system in systems_of(plan, dataset, group):
        first.setdefault(system.variant, system)
    return list(first.values())


def read_scores(
    results: Path,
    plan: Mapping[str, Any],
    dataset: str,
    group: str,
    prompt: str,
    *,
    systems: Iterable[Sequence[str]] | None = None,
    selection: str = "argmax",
) -> Scores:
    """One prompt set of a data set, for all systems of a plan or for some."""
    wanted = tuple(System(*names) for names in (systems_of(plan, dataset, group) if systems is None else systems))
    column = IOU_COLUMN[selection]
    instances = pd.DataFrame(columns=KEYS)
    columns, statuses = [], []
    truth = Path(instances_file(results, dataset))
    made_of = inputs(instances=truth) if truth.is_file() else {}
    for number, system in enumerate(wanted):
        files = Job(dataset, *system, group).shard_files(results, plan["shards"][dataset])
        digest = plan.get("config_digests", {}).get(system.variant, {}).get(system.runtime, "")
        rows = pd.concat([_rows(Path(file), prompt, column, digest, made_of) for file in files], ignore_index=True)
        if number == 0:
            instances = rows[KEYS]
        columns.append(_aligned(rows, column, instances["annotation_id"].to_numpy()))
        statuses.append(status_of(rows["status"]))
    iou = 100 * np.stack(columns, axis=1) if columns else np.empty((0, 0))
    return Scores(instances, wanted, iou, tuple(statuses))


def _rows(file: Path, prompt: str, column: str, config_digest: str, made_of: Mapping[str, str]) -> pd.DataFrame:
    columns, where = [*KEYS, column, "status"], ("prompt", prompt)
    table = read_parquet(
        file, records.SEGANY, columns=columns, where=where, config_digest=config_digest, made_of=made_of
    )
    return pd.DataFrame(table.to_pandas())


def _aligned(rows: pd.DataFrame, column: str, annotations: np.ndarray) -> np.ndarray:
    """The column in the order of the annotations; NaN where the status is not `ok`."""
    iou = rows[column].where(rows["status"] == OK).to_numpy(dtype=np.float64)
    own = rows["annotation_id"].to_numpy()
    if np.array_equal(own, annotations):
        return iou
    return pd.Series(iou, index=own).reindex(annotations).to_numpy()
