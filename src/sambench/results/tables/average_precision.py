"""The table `average_precision`: AP of the masks that variants give for the boxes of detectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.jobs import Job
from sambench.parquet import read_parquet
from sambench.results.declared import BY_NAME, Column, InSummary, Missing, Published, Score, by_name, not_ok
from sambench.results.table import Table
from sambench.results.tables import boxes

if TYPE_CHECKING:
    from sambench.study import Study

# AP of masks in per cent, by the rules of COCO or LVIS; boundary_ap: with the IoU of boundaries (COCO's rules only);
# box_ap: AP of the boxes that prompted them.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "detector", "variant", "runtime", "selection")],
        *records.PRECISION,
        *[pa.field(n, pa.float64()) for n in ("boundary_ap", "box_ap")],
        *records.OF_PRECISION,
    ]
)


def sources(study: Study) -> list[str]:
    return [*boxes.sources(study), *(job.precision_file(study.results) for job in study.mask_jobs())]


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": [list(job) for job in study.mask_jobs()], **boxes.settings(study)}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    jobs = [Job(*names) for names in settings["jobs"]]
    parts = [
        (job, read_parquet(Path(job.precision_file(results)), records.AVERAGE_PRECISION_MASKS).to_pandas())
        for job in jobs
    ]
    return boxes.say_why(results, beside_boxes(parts, boxes.build(results, settings)))


def beside_boxes(jobs: Iterable[tuple[Job, pd.DataFrame]], detectors: pd.DataFrame) -> pd.DataFrame:
    """AP of masks, beside the AP of the boxes that they were prompted with.

    jobs: with the columns of records.AVERAGE_PRECISION_MASKS. detectors: the rows of the table `boxes`. Rows of one
    detector stand together, so that its variants can be compared.
    """
    box_ap = detectors.set_index(["dataset", "detector"])["ap"].rename("box_ap")
    parts = [part.assign(variant=job.variant, runtime=job.runtime) for job, part in jobs]
    table = pd.concat(parts, ignore_index=True).join(box_ap, on=["dataset", "detector"])
    order = {key: at for at, key in enumerate(box_ap.index)}
    place = [order[key] for key in zip(table["dataset"], table["detector"], strict=True)]
    table = table.iloc[pd.Series(place).argsort(kind="stable")]
    return table.reindex(columns=SCHEMA.names).reset_index(drop=True)


def in_summary(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
    cells = {name: by_name(rows, "detector", name) for name in ("ap", "boundary_ap")}
    return cells, not_ok([f"AP {name}" for name in rows["detector"]], rows)


def draw(*tables: Any) -> Any:
    from sambench.results.figures import precision_chart

    return precision_chart(tables[0])


TABLE = Table(
    name="average_precision",
    order=30,
    title="Instance segmentation",
    explanation="Average precision in per cent of the masks that boxes of a detector give, by the rules of COCO or "
    "LVIS; category and score are the detector's. boundary_ap asks for the outline too (arXiv 2103.16562; COCO's rules "
    "only); box_ap is the AP of the boxes themselves. The variant ground_truth answers each box with the mask of the "
    "instance that it overlaps most: the ceiling for these boxes.",
    schema=SCHEMA,
    key=("dataset", "detector", "variant", "runtime"),
    selected=lambda study: bool(study.mask_jobs()),
    sources=sources,
    settings=settings,
    build=build,
    units=dict.fromkeys([*records.PRECISION_NAMES, "boundary_ap", "box_ap"], "%"),
    metrics="{column}/{detector}",
    score=Score(word="AP", column="ap", by="detector"),
    published=Published(setting=("detector", "selection"), of_data=True),
    summary=InSummary(
        word="AP",
        order=30,
        columns=(
            Column(name="ap", order=40, type=BY_NAME, unit="%", title="AP", note="AP with the boxes of"),
            Column(name="boundary_ap", order=40, type=BY_NAME, unit="%"),
        ),
        cells=in_summary,
        explanation="ap: average precision with the boxes of each detector;",
    ),
    drawn_from=("average_precision",),
    draw=draw,
)
