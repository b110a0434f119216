"""From per-instance results to mean IoU: what the tables of box prompts and of point prompts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import prompt_names, records
from sambench.errors import InputError
from sambench.jobs import Job, instances_file
from sambench.parquet import REMAKE, inputs, read_parquet
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import concat, status_of
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

SMALL, LARGE = 32.0**2, 96.0**2  # COCO's bounds of `area` in pixels
IOU_COLUMN = {"argmax": "iou", "single": "iou_single", "oracle": "iou_oracle"}
KEY = ("dataset", "variant", "runtime", "prompt")
UNITS = dict.fromkeys(("miou", "miou_low", "miou_high", "miou_small", "miou_medium", "miou_large"), "%")

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
    return [
        *study.segany_files(),
        *sorted({job.prompts_file(study.results) for job in study.jobs()}),
        *(instances_file(study.results, dataset) for dataset in study["datasets"]),
    ]


def settings(study: Study) -> dict[str, Any]:
    return {
        "jobs": [list(job) for job in study.jobs()],
        "shards": {name: study.shards(name) for name in study["datasets"]},
        "selections": study["selections"],
        "config_digests": config_digests(study),
        "statistics": study.bootstrap,
    }


def config_digests(study: Study) -> dict[str, dict[str, str]]:
    """What the files of the segany stage must have been made under, by variant and runtime."""
    return {
        variant: {runtime: study.segany_digest(variant, runtime) for runtime in study["runtimes"]}
        for variant in study["variants"]
    }


def build(
    wanted: Callable[[str], bool],
    summarize: Callable[..., pd.DataFrame] | None = None,
    schema: pa.Schema = SCHEMA,
) -> Callable[[Path, Mapping[str, Any]], pd.DataFrame]:
    """A table's `build` for the prompt sets whose names `wanted` takes.

    summarize: from the rows of a job to the lines of the table, called as `accuracy` is, which is the default; schema:
    of these lines.

    Raises InputError when a file is not what this study's job wrote for the instances and prompts that are here, or a
    planned prompt was not scored exactly once.
    """

    def table(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
        parts = []

        @cache
        def truth(dataset: str) -> pd.DataFrame:
            return read_parquet(Path(instances_file(results, dataset)), records.INSTANCES).to_pandas()

        for job in (Job(*names) for names in settings["jobs"]):
            prompts, instances = Path(job.prompts_file(results)), Path(instances_file(results, job.dataset))
            made_of = inputs(instances=instances)
            planned = read_parquet(prompts, records.PROMPTS, made_of=made_of).to_pandas()
            planned = planned[planned["prompt"].map(wanted).astype(bool)]
            if planned.empty:
                continue
            files = [Path(file) for file in job.shard_files(results, settings["shards"][job.dataset])]
            made_of |= inputs(prompts=prompts)
            digest = settings["config_digests"][job.variant][job.runtime]
            shards = [read_parquet(file, records.SEGANY, config_digest=digest, made_of=made_of) for file in files]
            rows = pa.concat_tables(shards).to_pandas()
            check_facts(
                rows, np.repeat(np.array(files, dtype=object), [len(shard) for shard in shards]), truth(job.dataset)
            )
            rows = rows[rows["prompt"].map(wanted).astype(bool)]
            check_complete(rows, planned, files[0].parent.as_posix())
            parts.append((summarize or accuracy)(job, rows, settings["selections"], **settings["statistics"]))
        return concat(parts, schema)

    return table


def check_facts(rows: pd.DataFrame, files: np.ndarray, instances: pd.DataFrame) -> None:
    """What rows say of their instances is what the instances say. files: (N,) the file of each row.

    Raises InputError that names the first file where that is not so.
    """
    position = pd.Index(instances["annotation_id"]).get_indexer(rows["annotation_id"])
    wrong = {"annotation_id": position < 0}
    for name in ("image_id", "category_id", "area", "iscrowd"):
        wrong[name] = (instances[name].to_numpy()[position] != rows[name].to_numpy()) & (position >= 0)
    for name, where in wrong.items():
        if where.any():
            row = int(where.argmax())
            raise InputError(
                files[row],
                name,
                expected="what the dataset's instances say",
                found=f"{rows[name].iloc[row]} of annotation {rows['annotation_id'].iloc[row]}",
                remedy=REMAKE,
            )


def check_complete(results: pd.DataFrame, prompts: pd.DataFrame, where: str) -> None:
    """Every planned prompt exactly once.

    Raises InputError that counts what is missing, doubled or not planned.
    """
    keys = ["annotation_id", "prompt"]
    counts = results.groupby(keys).size()
    planned = pd.MultiIndex.from_frame(prompts[keys])
    missing, unplanned = planned.difference(counts.index), counts.index.difference(planned)
    doubled = int((counts > 1).sum())
    if len(missing) or len(unplanned) or doubled:
        raise InputError(
            where,
            expected=f"each of {len(planned)} planned prompts once",
            found=f"{len(missing)} missing, {doubled} more than once, {len(unplanned)} not planned",
            remedy="delete the shards of this job and run again",
        )


def accuracy(job: Job, results: pd.DataFrame, selections: Sequence[str], *, resamples: int, seed: int) -> pd.DataFrame:
    """The mean IoU of every prompt type and selection rule of one job, in per cent.

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
    return pd.DataFrame(lines, columns=SCHEMA.names)


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
