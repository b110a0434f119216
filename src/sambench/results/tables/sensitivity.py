"""The table `sensitivity`: how much the IoU of a mask depends on where exactly its prompt lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.jobs import Job
from sambench.parquet import read_parquet
from sambench.prompt_names import counted
from sambench.results import accuracy, paired
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Table, status_of, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

# What is changed, and the prompt type that it is changed from: the curve's point at strength 0.
CHANGES = {"box_pad": "box", "box_jitter": "box", "box_shift": "box", "point_shift": "mask_center"}
SAMPLES = "sample"
WORST = 10  # per cent of the instances
COLUMNS = ["annotation_id", "image_id", "iou", "status"]

# All in per cent. strength: of the change, in per cent; of `sample` the number of points. worst_decile: mean of the
# lowest tenth of all IoUs. drop: from the IoU at strength 0. area: under the curve up to the largest strength, as a
# mean IoU. spread: highest less lowest IoU of one instance over its points, mean over instances; lowest: mean of the
# latter.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "change")],
        pa.field("strength", pa.int32()),
        *[
            pa.field(n, pa.float64())
            for n in ("miou", "miou_low", "miou_high", "worst_decile", "drop", "area", "spread", "lowest")
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def selected(study: Study) -> bool:
    sets = [name for group in study["prompt_groups"] for name in study.prompt_types(group)]
    return any(counted(name)[0] in (*CHANGES, SAMPLES) for name in sets)


def settings(study: Study) -> dict[str, Any]:
    return {"plan": paired.plan(study)}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    plan = settings["plan"]
    table: list[dict[str, Any]] = []
    for key, sets in prompt_sets(plan):
        rows = {
            prompt: pd.concat(
                [
                    read_parquet(Path(file), records.SEGANY, columns=COLUMNS, where=("prompt", prompt)).to_pandas()
                    for file in Job(*key, group).shard_files(results, plan["shards"][key[0]])
                ],
                ignore_index=True,
            )
            for prompt, group in sets.items()
        }
        fixed = dict(zip(("dataset", "variant", "runtime"), key, strict=True))
        table += [fixed | line for line in lines(rows, **plan["bootstrap"])]
    return typed(table, SCHEMA)


def prompt_sets(plan: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], dict[str, str]]]:
    """For each (dataset, variant, runtime) the prompt sets that the table is made of, and the group of each."""
    wanted: dict[tuple[str, str, str], dict[str, str]] = {}
    for dataset, variant, runtime, group in plan["jobs"]:
        for prompt in plan["groups"][group]:
            if prompt in CHANGES.values() or counted(prompt)[0] in (*CHANGES, SAMPLES):
                wanted.setdefault((dataset, variant, runtime), {})[prompt] = group
    yield from wanted.items()


def lines(rows: Mapping[str, pd.DataFrame], *, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """The lines of one variant and runtime: one per change and strength, one for the samples.

    rows: of each prompt type its annotation_id, image_id, iou and status.
    """
    bootstrap = {"resamples": resamples, "seed": seed}
    for change, start in CHANGES.items():
        strengths = sorted(number for kind, number in map(counted, rows) if kind == change)
        if not strengths:
            continue
        sets = {strength: rows[f"{change}_{strength}"] for strength in strengths}
        if start in rows:
            sets = {0: rows[start]} | sets
        cells = {strength: means(part, **bootstrap) for strength, part in sets.items()}
        curve = [cells[strength].get("miou", np.nan) for strength in sets]
        area = np.trapezoid(curve, list(sets)) / (max(sets) - min(sets)) if len(sets) > 1 else np.nan
        for strength, cell in cells.items():
            drop = cells[0].get("miou", np.nan) - cell.get("miou", np.nan) if 0 in cells else np.nan
            yield {"change": change, "strength": strength, "area": area, "drop": drop} | cell
    samples = [prompt for prompt in rows if counted(prompt)[0] == SAMPLES]
    if samples:
        every = pd.concat([rows[prompt] for prompt in samples], ignore_index=True)
        cell = {"change": SAMPLES, "strength": len(samples)} | means(every, **bootstrap)
        good = every[every["status"] == OK]
        ious = 100 * good.groupby("annotation_id")["iou"].agg(["min", "max"])
        if len(ious):
            cell |= {"instances": len(ious), "lowest": ious["min"].mean()}
            cell["spread"] = (ious["max"] - ious["min"]).mean()
        yield cell


def means(rows: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Of one prompt type: its mean IoU with the interval of a bootstrap over images, and that of its worst tenth."""
    good = rows[rows["status"] == OK]
    cell: dict[str, Any] = {
        "instances": len(good),
        "images": good["image_id"].nunique(),
        "status": status_of(rows["status"]),
    }
    if good.empty:
        return cell
    iou = 100 * good["iou"].to_numpy(float)
    low, high = clustered_bootstrap(iou, good["image_id"].to_numpy(), resamples=resamples, seed=seed)
    worst = np.sort(iou)[: max(1, round(len(iou) * WORST / 100))]
    return cell | {"miou": iou.mean(), "miou_low": low, "miou_high": high, "worst_decile": worst.mean()}


def draw(*tables: Any) -> Any:
    from sambench.results.figures import curve_chart

    return curve_chart(
        tables[0][tables[0]["change"] != SAMPLES],
        x=("strength", "change, %"),
        y=("miou", "mIoU, %"),
        panel="change",
        title="Prompt sensitivity",
        band=("miou_low", "miou_high"),
    )


TABLE = Table(
    name="sensitivity",
    order=24,
    title="Prompt sensitivity",
    explanation="Mean IoU in per cent when a prompt is not exactly where it should be. box_pad: all sides of the box "
    "outwards, box_jitter: each side on its own, box_shift: the whole box, by so many per cent of its extent; "
    "point_shift: the point so far from the deepest pixel towards a random one. drop: from the unchanged prompt "
    "(strength 0); area: the mean IoU along the curve; worst_decile: the mean of the lowest tenth. sample: single "
    "random points, as many as strength says; spread: highest less lowest IoU of an instance over its points.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "change", "strength"),
    selected=selected,
    sources=accuracy.sources,
    settings=settings,
    build=build,
    units=dict.fromkeys(("miou", "miou_low", "miou_high", "worst_decile", "drop", "area", "spread", "lowest"), "%"),
    metrics="sensitivity/{column}/{change}",
    series=dict.fromkeys(("miou", "miou_low", "miou_high", "worst_decile", "drop", "spread", "lowest"), "strength"),
    drawn_from=("sensitivity",),
    draw=draw,
    large=True,
)
