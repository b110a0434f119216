"""The table `boundary`: mean boundary IoU of the masks that prompts from ground truth give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.jobs import Job
from sambench.results import accuracy
from sambench.results.table import Table
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

TITLE = "Boundary quality"
NAMES = [f"boundary_iou{part}" for part in ("", "_low", "_high", "_small", "_medium", "_large")]

# Means in per cent; miou is that of the same masks.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt")],
        *[pa.field(n, pa.float64()) for n in (*NAMES, "miou")],
        *[pa.field(n, pa.int64()) for n in ("instances", "crowd", "images")],
        pa.field("status", pa.string()),
    ]
)


def selected(study: Study) -> bool:
    return accuracy.selected(study) and study.settings.segany.boundary


def lines(job: Job, results: pd.DataFrame, selections: Sequence[str], *, resamples: int, seed: int) -> pd.DataFrame:
    """One line per prompt type of one job, with the columns of SCHEMA; the masks are those of the rule `argmax`.

    results: columns of records.SEGANY. Takes what `accuracy.accuracy` takes; the selections do not matter.
    """
    table = []
    for prompt, rows in results.groupby("prompt", sort=False):
        scored = rows[rows["status"] == OK]
        line = accuracy.facts_of(job, rows) | {"prompt": prompt, "miou": 100 * scored["iou"].mean()}
        table.append(line | accuracy.size_means(scored, "boundary_iou", "boundary_iou", resamples, seed))
    return pd.DataFrame(table, columns=SCHEMA.names)


def draw(*tables: Any) -> Any:
    from sambench.results.figures import accuracy_chart

    renamed = tables[0].drop(columns="miou").rename(columns=lambda name: name.replace("boundary_iou", "miou"))
    return accuracy_chart(renamed.assign(selection="argmax"), TITLE, "boundary IoU, %")


TABLE = Table(
    name="boundary",
    order=22,
    title=TITLE,
    explanation="Mean boundary IoU in per cent (arXiv 2103.16562): the IoU of the pixels of mask and ground truth that "
    "lie within 2 % of the image's diagonal of their own contour, with the 95 % interval of a bootstrap over images. "
    "It asks as much of the outline of a large object as of a small one; miou beside it is that of the same masks.",
    schema=SCHEMA,
    key=accuracy.KEY,
    selected=selected,
    sources=accuracy.sources,
    settings=accuracy.settings,
    build=accuracy.build(lambda prompt: True, lines, SCHEMA),
    units=dict.fromkeys([*NAMES, "miou"], "%"),
    metrics="boundary/{column}/{prompt}",
    drawn_from=("boundary",),
    draw=draw,
    large=True,
)
