"""The table `boundary`: mean boundary IoU of the masks that prompts from ground truth give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.jobs import Job
from sambench.results import accuracy
from sambench.results.parts import by_parts
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


def lines(job: Job, prompt: str, rows: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The line of one prompt set with the columns of SCHEMA; the masks are those of the rule `argmax`.

    rows: columns of records.SEGANY; settings: `statistics`.
    """
    if rows.empty:
        return
    scored = rows[rows["status"] == OK]
    line = accuracy.facts_of(job, rows) | {"prompt": prompt, "miou": 100 * scored["iou"].mean()}
    yield line | accuracy.size_means(scored, "boundary_iou", "boundary_iou", **settings["statistics"])


def draw(*tables: Any) -> Any:
    from sambench.results.figures import accuracy_chart

    renamed = tables[0].drop(columns="miou").rename(columns=lambda name: name.replace("boundary_iou", "miou"))
    return accuracy_chart(renamed.assign(selection="argmax"), TITLE, "boundary IoU, %")


TABLE = by_parts(
    name="boundary",
    order=22,
    title=TITLE,
    explanation="Mean boundary IoU in per cent (arXiv 2103.16562): the IoU of the pixels of mask and ground truth that "
    "lie within 2 % of the image's diagonal of their own contour, with the 95 % interval of a bootstrap over images. "
    "It asks as much of the outline of a large object as of a small one; miou beside it is that of the same masks.",
    schema=SCHEMA,
    key=accuracy.KEY,
    selected=selected,
    part=lines,
    units=dict.fromkeys([*NAMES, "miou"], "%"),
    metrics="boundary/{column}/{prompt}",
    drawn_from=("boundary",),
    draw=draw,
)
