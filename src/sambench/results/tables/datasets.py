"""The table `datasets`: what every number of a dataset is made of, what was left out, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.jobs import boxes_file, notes_file
from sambench.parquet import read_parquet, read_provenance
from sambench.results.table import Table, concat
from sambench.settings import ON_IMAGES

if TYPE_CHECKING:
    from sambench.study import Study

SCHEMA = pa.schema([pa.field("dataset", pa.string()), *records.NOTES])


def selected(study: Study) -> bool:
    """Counting operations needs no images."""
    return bool(study.jobs() or study.everything_jobs() or {*study["measures"]} & {*ON_IMAGES})


def sources(study: Study) -> list[str]:
    files = [notes_file(study.results, dataset) for dataset in study["datasets"]]
    names = settings(study)["detectors"]
    return files + [boxes_file(study.results, dataset, name) for dataset in study["datasets"] for name in names]


def settings(study: Study) -> dict[str, Any]:
    """Detectors: those whose boxes are prompts."""
    detectors = sorted({name for group in study.detector_groups() for name in study.detectors(group)})
    return {"datasets": study["datasets"], "detectors": detectors}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    parts = []
    for dataset in settings["datasets"]:
        notes = read_parquet(Path(notes_file(results, dataset)), records.NOTES).to_pandas()
        boxes = [
            {"kind": "warning", "note": f"{name}: {text}", "count": count}
            for name in settings["detectors"]
            for text, count in _warnings(Path(boxes_file(results, dataset, name))).items()
        ]
        notes = concat([notes, pd.DataFrame(boxes)], records.NOTES)
        notes.insert(0, "dataset", dataset)
        parts.append(notes)
    return concat(parts, SCHEMA)


def _warnings(boxes: Path) -> dict[str, int]:
    """What looked wrong with imported boxes, and how often."""
    found: dict[str, int] = json.loads(read_provenance(boxes).get("warnings", "{}"))
    return found


TABLE = Table(
    name="datasets",
    order=95,
    title="Data sets",
    explanation="What the numbers of each data set are made of: how many images and instances there are, what was left "
    "out or completed, and what looks wrong.",
    schema=SCHEMA,
    key=("dataset", "kind", "note"),
    selected=selected,
    sources=sources,
    settings=settings,
    build=build,
)
