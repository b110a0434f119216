"""The table `calibration_bins`: mean IoU by predicted IoU, what reliability curves are drawn from.

Predictions crowd between 0.8 and 1, so bins hold equally many masks each; those of the table `calibration` are of equal
width, as its error is defined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.jobs import Job
from sambench.results.parts import by_parts
from sambench.results.statistics import Resampling
from sambench.results.tables import calibration
from sambench.results.tables.calibration import BINS, place, usable

# bin: 1 has the lowest predictions. predicted: the mean predicted IoU of a bin, in per cent as all numbers here.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt")],
        pa.field("bin", pa.int32()),
        *[
            pa.field(n, pa.float64())
            for n in ("predicted_from", "predicted_to", "predicted", "miou", "miou_low", "miou_high")
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
    ]
)


def part(job: Job, prompt: str, rows: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of one prompt set. settings: `statistics`."""
    return (place(job, prompt) | line for line in bin_lines(rows, **settings["statistics"]))


def bin_lines(rows: pd.DataFrame, *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """One line per bin that holds a mask. rows: image_id, iou, predicted_iou, status."""
    good = usable(rows)
    if good.empty:
        return
    predicted = 100 * good["predicted_iou"].to_numpy()
    bins = np.empty(len(good), dtype=np.int64)
    bins[np.argsort(predicted, kind="stable")] = np.arange(len(good)) * BINS // len(good)
    iou = np.where(bins[:, None] == np.arange(BINS), 100 * good["iou"].to_numpy()[:, None], np.nan)
    images = good["image_id"].to_numpy()
    found = Resampling(images, resamples=resamples, seed=seed).means(iou, images)
    low, high = found.interval()
    for number in np.unique(bins):
        inside = predicted[bins == number].clip(0, 100)  # networks may say 102
        yield {
            "bin": number + 1,
            "predicted_from": inside.min(),
            "predicted_to": inside.max(),
            "predicted": inside.mean(),
            "miou": found.values[number],
            "miou_low": low[number],
            "miou_high": high[number],
            "instances": len(inside),
            "images": len(np.unique(images[bins == number])),
        }


def draw(*tables: Any) -> Any:
    from sambench.results.reliability import reliability_chart

    return reliability_chart(*tables)


TABLE = by_parts(
    name="calibration_bins",
    order=36,
    title="Reliability",
    explanation="Mean IoU in per cent of each tenth of the masks by predicted IoU, with the 95 % interval of a "
    "bootstrap over images. On the diagonal a prediction can be taken at its word; below it masks are worse than said.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "prompt", "bin"),
    selected=calibration.TABLE.selected,
    part=part,
    by_prompt=True,
    units=dict.fromkeys(("predicted_from", "predicted_to", "predicted", "miou", "miou_low", "miou_high"), "%"),
    drawn_from=("calibration_bins",),
    draw=draw,
)
