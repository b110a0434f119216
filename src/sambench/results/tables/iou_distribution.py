"""The table `iou_distribution`: how the IoU of single masks is spread, which a mean does not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.jobs import Job
from sambench.results.parts import by_parts
from sambench.results.table import status_of
from sambench.results.tables.calibration import place
from sambench.status import OK

BINS = tuple(range(0, 100, 10))  # per cent; half-open, but the last one holds 100 too
QUANTILES = (10, 25, 50, 75, 90)

# p10 to p90: percentiles of the IoU in per cent. from_0 to from_90: instances in per cent whose IoU is in that tenth.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt")],
        *[pa.field(f"p{quantile}", pa.float64()) for quantile in QUANTILES],
        *[pa.field(f"from_{start}", pa.float64()) for start in BINS],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def part(job: Job, prompt: str, rows: pd.DataFrame, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The line of one prompt set."""
    return [place(job, prompt) | line(rows)]


def line(rows: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one variant and prompt set. rows: image_id, iou, status."""
    good = rows[rows["status"] == OK]
    cells: dict[str, Any] = {
        "instances": len(good),
        "images": good["image_id"].nunique(),
        "status": status_of(rows["status"]),
    }
    if good.empty:
        return cells
    iou = 100 * good["iou"].to_numpy()
    cells |= {f"p{quantile}": value for quantile, value in zip(QUANTILES, np.percentile(iou, QUANTILES), strict=True)}
    # 100 * 0.7 is 70.0 by luck, 100 * 0.29 is not 29: the tenth is found from the IoU itself.
    tenths = np.minimum(np.floor(np.round(10 * good["iou"].to_numpy(), 9)), len(BINS) - 1).astype(int)
    shares = 100 * np.bincount(tenths, minlength=len(BINS)) / len(good)
    return cells | {f"from_{start}": share for start, share in zip(BINS, shares, strict=True)}


def draw(*tables: Any) -> Any:
    from sambench.results.heatmap import distribution_chart

    return distribution_chart(tables[0])


TABLE = by_parts(
    name="iou_distribution",
    order=23,
    title="IoU of single masks",
    explanation="How the IoU of masks by argmax is spread: percentiles (p50 is the median) and, in from_0 to from_90, "
    "how many instances in per cent have an IoU in each tenth.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "prompt"),
    selected=lambda study: any(study.prompt_types(group) for group in study["prompt_groups"]),
    part=part,
    by_prompt=True,
    units={name: "%" for name in SCHEMA.names if name.startswith(("p1", "p2", "p5", "p7", "p9", "from_"))},
    drawn_from=("iou_distribution",),
    draw=draw,
)
