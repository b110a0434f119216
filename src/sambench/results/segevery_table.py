"""From the per-image records of segment everything to the table `segevery`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sambench.errors import InputError
from sambench.jobs import EverythingJob
from sambench.results.schemas import EVERYTHING
from sambench.results.tables import status_of
from sambench.status import OK

STAGES = ("detect", "encode", "decode", "postprocess")
LIMITS = (100, 1000)


def line(job: EverythingJob, quality: pd.DataFrame, time: pd.DataFrame, device: str) -> pd.DataFrame:
    """The one line of a job: times and memory of `time`, everything else of `quality` (columns of schemas.SEGEVERY).

    Images whose status is not `ok` are in no mean; the status of the line counts them.

    Raises InputError when the two were not measured on the same images.
    """
    if set(quality["image_id"]) != set(time["image_id"]) or len(quality) != len(time):
        raise InputError(
            job.file("results", "time"),
            "image_id",
            expected=f"the {len(quality)} images of quality.parquet",
            found=f"{len(time)} images, not the same",
            remedy="delete both files and run again",
        )
    judged, timed = quality[quality["status"] == OK], time[time["status"] == OK]
    cells: dict[str, object] = {
        **job._asdict(),
        "device": device,
        "images": len(judged),
        "instances": int(judged["instances"].sum()),
        "status": status_of(pd.concat([quality, time])["status"] if len(judged) != len(timed) else quality["status"]),
    }
    if len(timed):
        total = timed["total_ms"]
        cells |= {"ms_per_image": total.mean(), "median_ms": total.median(), "p90_ms": total.quantile(0.9)}
        cells |= {f"{stage}_ms": timed[f"{stage}_ms"].mean() for stage in STAGES}
        cells["peak_memory_mib"] = timed["peak_memory_mib"].max()
    if len(judged):
        cells |= {"prompts_per_image": judged["prompts"].mean(), "masks_per_image": judged["masks"].mean()}
        cells |= {f"ar_{limit}": average_recall(judged, limit) for limit in LIMITS}
    return pd.DataFrame([cells], columns=EVERYTHING.names)


def average_recall(records: pd.DataFrame, limit: int) -> float:
    """AR@limit in per cent: instances found over instances, averaged over the IoU thresholds; NaN without instances."""
    instances = int(records["instances"].sum())
    if not instances:
        return float("nan")
    matched = np.stack(records[f"matched_{limit}"].to_numpy()).sum(axis=0)
    return 100 * float(matched.mean()) / instances
