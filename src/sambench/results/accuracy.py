"""From per-instance results to mean IoU: what the tables of box prompts and of point prompts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import prompt_names
from sambench.jobs import Job, instances_file
from sambench.results.declared import Column, InSummary, Missing, Published, Score, not_ok
from sambench.results.headlines import headline
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Part, status_of
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

SMALL, LARGE = 32.0**2, 96.0**2  # COCO's bounds of `area` in pixels
IOU_COLUMN = {"argmax": "iou", "single": "iou_single", "oracle": "iou_oracle"}
KEY = ("dataset", "variant", "runtime", "prompt")
UNITS = dict.fromkeys(("miou", "miou_low", "miou_high", "miou_small", "miou_medium", "miou_large"), "%")
SCORE = Score(word="mIoU", column="miou", by="prompt")
PUBLISHED = Published(setting=("prompt", "selection"), of_data=True)

# Means in per cent over `instances` instances of `images` images.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt", "selection")],
        *[
            pa.field(n, pa.float64())
            for n in ("miou", "miou_low", "miou_high", "miou_small", "miou_medium", "miou_large")
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "crowd", "images")],
        pa.field("status", pa.string()),
    ]
)


def is_box(prompt: str) -> bool:
    """Whether a prompt set made from ground truth consists of boxes; all others consist of points."""
    return prompt_names.is_box(prompt)


def selected(study: Study) -> bool:
    return bool(study["prompt_groups"])


def sources(study: Study) -> list[str]:
    """Every file that says something of instances: what tables are made of that compare variants on them."""
    return [
        *study.segany_files(),
        *sorted({job.prompts_file(study.results) for job in study.jobs()}),
        *(instances_file(study.results, dataset) for dataset in study["datasets"]),
    ]


def config_digests(study: Study) -> dict[str, dict[str, str]]:
    """What the files of the segany stage must have been made under, by variant and runtime."""
    return {
        variant: {runtime: study.segany_digest(variant, runtime) for runtime in study["runtimes"]}
        for variant in study["variants"]
    }


def part(wanted: Callable[[str], bool]) -> Part:
    """A table's `part` for the prompt sets whose names `wanted` takes."""

    def lines(job: Job, prompt: str, rows: pd.DataFrame, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not wanted(prompt):
            return []
        return accuracy(job, rows, settings["selections"], **settings["statistics"])

    return lines


def summary(kind: str, order: int) -> InSummary:
    """The part of a table of mean IoU in the summary: of the headline prompt set. kind: box or point."""
    ends = {"": "miou", "_low": "miou_low", "_high": "miou_high"}

    def cells(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
        first = rows.iloc[0]
        found = {f"{kind}_prompt": first["prompt"]} | {f"miou_{kind}{end}": first[name] for end, name in ends.items()}
        counts = {name: first[name] for name in ("instances", "images")} if first["instances"] else {}
        return found | counts, not_ok([kind], rows)

    return InSummary(
        word=kind,
        order=order,
        columns=(
            Column(name=f"{kind}_prompt", order=order, type=pa.string()),
            *(Column(name=f"miou_{kind}{end}", order=order, unit="%") for end in ends),
        ),
        cells=cells,
        chosen=lambda rows: rows[rows["prompt"] == headline(kind, rows["prompt"])],
        asked=lambda study: any(
            is_box(name) == (kind == "box") for group in study["prompt_groups"] for name in study.prompt_types(group)
        ),
    )


def accuracy(
    job: Job, results: pd.DataFrame, selections: Sequence[str], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """The mean IoU of every prompt type and selection rule of one job, in per cent: lines with the columns of SCHEMA.

    results: columns of records.SEGANY. Sizes follow the annotation's area with half-open bounds, [0, 32²), [32², 96²)
    and [96², ∞); the code of EfficientViT-SAM counts an instance that lies on a bound twice. Rows whose status is
    not `ok` are left out of the means, and the status of the row says how many they are.
    """
    lines = []
    for prompt, rows in results.groupby("prompt", sort=False):
        scored = rows[rows["status"] == OK]
        for selection in selections:
            means = size_means(scored, IOU_COLUMN[selection], "miou", resamples, seed)
            lines.append(facts_of(job, rows) | {"prompt": prompt, "selection": selection} | means)
    return lines


def facts_of(job: Job, rows: pd.DataFrame) -> dict[str, Any]:
    """What a line says of its rows besides their means."""
    scored = rows[rows["status"] == OK]
    return {
        "dataset": job.dataset,
        "variant": job.variant,
        "runtime": job.runtime,
        "instances": len(scored),
        "crowd": int(scored["iscrowd"].sum()),
        "images": scored["image_id"].nunique(),
        "status": status_of(rows["status"]),
    }


def size_means(scored: pd.DataFrame, column: str, name: str, resamples: int, seed: int) -> dict[str, float]:
    """The mean of a column in per cent as `name`, its interval, and its mean by size; nothing without rows."""
    if scored.empty:
        return {}
    iou, area = 100 * scored[column], scored["area"]
    low, high = clustered_bootstrap(iou.to_numpy(), scored["image_id"].to_numpy(), resamples=resamples, seed=seed)
    return {
        name: iou.mean(),
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_small": iou[area < SMALL].mean(),
        f"{name}_medium": iou[(area >= SMALL) & (area < LARGE)].mean(),
        f"{name}_large": iou[area >= LARGE].mean(),
    }
