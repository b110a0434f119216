"""The table `boxes`: AP of the boxes that detectors found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sambench import records
from sambench.jobs import box_precision_file, instances_file
from sambench.parquet import read_parquet
from sambench.results.table import Table
from sambench.status import ALL_CROWDS, OK

if TYPE_CHECKING:
    from sambench.study import Study


def datasets(study: Study) -> list[str]:
    return [dataset for dataset in study["datasets"] if study.detectors_on(dataset)]


def sources(study: Study) -> list[str]:
    on = datasets(study)
    return [file(study.results, dataset) for file in (box_precision_file, instances_file) for dataset in on]


def settings(study: Study) -> dict[str, Any]:
    return {"datasets": datasets(study)}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    files = [Path(box_precision_file(results, dataset)) for dataset in settings["datasets"]]
    rows = pd.concat([read_parquet(file, records.AVERAGE_PRECISION_BOXES).to_pandas() for file in files])
    return say_why(results, rows)


def say_why(results: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a status where an AP does not exist although everything ran: a crowd is nothing to be found."""
    unsaid = rows["ap"].isna() & (rows["status"] == OK)
    for dataset in rows.loc[unsaid, "dataset"].unique():
        instances = read_parquet(Path(instances_file(results, dataset)), records.INSTANCES, columns=["iscrowd"])
        if instances.to_pandas()["iscrowd"].all():
            rows = rows.assign(status=rows["status"].mask(unsaid & (rows["dataset"] == dataset), ALL_CROWDS))
    return rows


TABLE = Table(
    name="boxes",
    order=40,
    title="Detectors",
    explanation="Average precision in per cent of the boxes that detectors found. A dash: no object of that kind.",
    schema=records.AVERAGE_PRECISION_BOXES,
    key=("dataset", "detector"),
    selected=lambda study: bool(study.mask_jobs()),
    sources=sources,
    settings=settings,
    build=build,
    units=dict.fromkeys(records.PRECISION_NAMES, "%"),
)
