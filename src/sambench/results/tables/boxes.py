"""The table `boxes`: AP of the boxes that detectors found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sambench import records
from sambench.jobs import box_precision_file
from sambench.parquet import read_parquet
from sambench.results.table import Table

if TYPE_CHECKING:
    from sambench.study import Study


def datasets(study: Study) -> list[str]:
    return [dataset for dataset in study["datasets"] if study.detectors_on(dataset)]


def sources(study: Study) -> list[str]:
    return [box_precision_file(study.results, dataset) for dataset in datasets(study)]


def settings(study: Study) -> dict[str, Any]:
    return {"datasets": datasets(study)}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    files = [Path(box_precision_file(results, dataset)) for dataset in settings["datasets"]]
    return pd.concat([read_parquet(file, records.AVERAGE_PRECISION_BOXES).to_pandas() for file in files])


TABLE = Table(
    name="boxes",
    order=40,
    title="Detectors",
    explanation="Average precision in per cent of the boxes that detectors found.",
    schema=records.AVERAGE_PRECISION_BOXES,
    key=("dataset", "detector"),
    selected=lambda study: bool(study.mask_jobs()),
    sources=sources,
    settings=settings,
    build=build,
    units=dict.fromkeys(records.PRECISION_NAMES, "%"),
    metrics="average_precision",
)
