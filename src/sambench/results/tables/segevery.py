"""The table `segevery`: segment everything, from its records per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.errors import InputError
from sambench.jobs import EverythingJob
from sambench.parquet import read_parquet, read_provenance
from sambench.results.declared import BY_NAME, Column, InSummary, Missing, Published, Score, by_name, not_ok
from sambench.results.table import Table, concat, status_of
from sambench.status import ALL_CROWDS, OK

if TYPE_CHECKING:
    from sambench.study import Study

STAGES = ("detect", "encode", "decode", "postprocess")
LIMITS = (100, 1000)
KINDS = ("quality", "time")

# Times in ms per image (means, and median and p90 of the whole), counts per image, AR in per cent.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "sampler")],
        *[
            pa.field(n, pa.float64())
            for n in (
                *("ms_per_image", "median_ms", "p90_ms", "detect_ms", "encode_ms", "decode_ms", "postprocess_ms"),
                *("peak_memory_mib", "prompts_per_image", "masks_per_image", "ar_100", "ar_1000"),
            )
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def sources(study: Study) -> list[str]:
    return [job.file(study.results, kind) for job in study.everything_jobs() for kind in KINDS]


def settings(study: Study) -> dict[str, Any]:
    return {"jobs": [list(job) for job in study.everything_jobs()]}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for job in (EverythingJob(*names) for names in settings["jobs"]):
        quality, time = (Path(job.file(results, kind)) for kind in KINDS)
        judged, timed = (read_parquet(path, records.SEGEVERY).to_pandas() for path in (quality, time))
        rows.append(line(job, judged, timed, read_provenance(time)["device"]))
    return concat(rows, SCHEMA)


def line(job: EverythingJob, quality: pd.DataFrame, time: pd.DataFrame, device: str) -> pd.DataFrame:
    """The one line of a job: times and memory of `time`, everything else of `quality` (columns of records.SEGEVERY).

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
        if not cells["instances"] and cells["status"] == OK:  # images without any annotation are not taken
            cells["status"] = ALL_CROWDS
    return pd.DataFrame([cells], columns=SCHEMA.names)


def average_recall(images: pd.DataFrame, limit: int) -> float:
    """AR@limit in per cent: instances found over instances, averaged over the IoU thresholds; NaN without instances."""
    instances = int(images["instances"].sum())
    if not instances:
        return float("nan")
    matched = np.stack(images[f"matched_{limit}"].to_numpy()).sum(axis=0)
    return 100 * float(matched.mean()) / instances


def in_summary(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
    cells = {"ar_1000": by_name(rows, "sampler", "ar_1000"), "everything_ms": by_name(rows, "sampler", "ms_per_image")}
    return cells | {"device": rows["device"].iloc[0]}, not_ok(rows["sampler"], rows)


TABLE = Table(
    name="segevery",
    order=50,
    title="Segment everything",
    explanation="All masks of an image without a prompt: milliseconds per image, masks per image, and AR, the average "
    "recall in per cent of the ground truth by the best 100 or 1,000 masks, whatever their class.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "sampler"),
    selected=lambda study: bool(study["samplers"]),
    sources=sources,
    settings=settings,
    build=build,
    units={name: "ms" for name in SCHEMA.names if name.endswith("_ms") or name == "ms_per_image"}
    | {"peak_memory_mib": "MiB", "ar_100": "%", "ar_1000": "%"},
    metrics="{column}/{sampler}",
    score=Score(word="AR@1000", column="ar_1000", by="sampler"),
    published=Published(setting=("sampler",)),
    summary=InSummary(
        word="everything",
        order=40,
        columns=(
            Column(name="ar_1000", order=50, type=BY_NAME, unit="%", title="AR", note="AR@1000 of"),
            Column(name="everything_ms", order=50, type=BY_NAME, unit="ms"),
        ),
        cells=in_summary,
        explanation="ar_1000: average recall of segment everything by sampler.",
    ),
)
