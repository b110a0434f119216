"""The table `corruptions`: how much accuracy is left on spoilt images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.results.declared import Column, InSummary, Missing, not_ok
from sambench.results.measured import jobs_of, read_measured
from sambench.results.statistics import clustered_bootstrap
from sambench.results.table import Table, concat, status_of, typed
from sambench.settings import COMMON_CORRUPTIONS
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

ALL = "all"
CLEAN, JPEG_QUALITY, SCALE = "clean", "jpeg_quality", "scale"
# Means of several common corruptions, of those that the study has.
GROUPS: Mapping[str, Sequence[str]] = {
    ALL: COMMON_CORRUPTIONS,
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}

# level: severity, JPEG quality or factor; 0 of `clean`, and of a group for the mean of all severities. miou in per
# cent. drop: of the mIoU from that of the clean images, in per cent of the latter, on the same instances. worst_decile:
# mean of the lowest tenth.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "prompt", "corruption")],
        pa.field("level", pa.float64()),
        *[pa.field(n, pa.float64()) for n in ("miou", "miou_low", "miou_high", "drop", "worst_decile")],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def settings(study: Study) -> dict[str, Any]:
    wanted = {"jobs": jobs_of(study, "corruptions"), "statistics": study.bootstrap}
    return wanted | {"prompts": study.plain["corruptions"]["prompts"]}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    runs = read_measured(results, "corruptions", settings["jobs"], records.CORRUPTIONS)
    statistics = settings["statistics"]
    return concat([lines(facts, rows, settings["prompts"], **statistics) for facts, rows in runs], SCHEMA)


def lines(
    facts: Mapping[str, Any], rows: pd.DataFrame, prompts: Iterable[str], *, resamples: int, seed: int
) -> pd.DataFrame:
    """The lines of one variant and runtime, with the columns of SCHEMA.

    rows: columns of records.CORRUPTIONS. facts: columns of the same name. Per prompt type: the clean images, each
    change and level, and for each of GROUPS the mean for each severity and for all of them.
    """
    fixed = {name: value for name, value in facts.items() if name in SCHEMA.names}
    bootstrap = {"resamples": resamples, "seed": seed}
    table: list[dict[str, Any]] = []
    for prompt in prompts:
        own = rows[(rows["prompt"] == prompt) | rows["prompt"].isna()]
        start = fixed | {"prompt": prompt}
        if own["corruption"].isna().any():
            table.append(start | {"status": status_of(own["status"]), "instances": 0, "images": 0})
            continue
        clean = own[own["corruption"] == CLEAN].set_index("annotation_id")["iou"]
        table += [start | cell for cell in _cells(own, clean, bootstrap)]
    return typed(table, SCHEMA)


def _cells(rows: pd.DataFrame, clean: pd.Series, bootstrap: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for group, names in GROUPS.items():
        own = rows[rows["corruption"].isin(names)]
        if own["corruption"].nunique() > 1:
            yield {"corruption": group, "level": 0.0} | _cell(own, clean, bootstrap)
            for level, part in own.groupby("level"):
                yield {"corruption": group, "level": level} | _cell(part, clean, bootstrap)
    for (name, level), part in rows.groupby(["corruption", "level"], sort=False):
        yield {"corruption": name, "level": level} | _cell(part, clean, bootstrap)


def _cell(rows: pd.DataFrame, clean: pd.Series, bootstrap: Mapping[str, int]) -> dict[str, Any]:
    """Of instances under one or several changes; of several, each instance counts with its mean."""
    cell: dict[str, Any] = {"status": status_of(rows["status"])}
    good = rows[rows["status"] == OK]
    means = good.groupby("annotation_id", sort=False).agg(iou=("iou", "mean"), image_id=("image_id", "first"))
    cell |= {"instances": len(means), "images": means["image_id"].nunique()}
    if means.empty:
        return cell
    iou = 100 * means["iou"].to_numpy(float)
    low, high = clustered_bootstrap(iou, means["image_id"].to_numpy(), **bootstrap)
    worst = np.sort(iou)[: max(1, round(len(iou) / 10))]
    before = 100 * clean.reindex(means.index).to_numpy(float)
    both = np.isfinite(before)
    drop = 100 * (1 - iou[both].mean() / before[both].mean()) if both.any() and before[both].any() else np.nan
    return cell | {"miou": iou.mean(), "miou_low": low, "miou_high": high, "worst_decile": worst.mean(), "drop": drop}


def in_summary(rows: pd.DataFrame) -> tuple[dict[str, Any], list[Missing]]:
    """Of all common corruptions and severities."""
    every = rows[(rows["corruption"] == ALL) & (rows["level"] == 0)]
    return ({"corruption_drop": every["drop"].iloc[0]} if len(every) else {}), not_ok(["spoilt images"], rows.iloc[:1])


def draw(*tables: Any) -> Any:
    from sambench.results.figures import curve_chart

    return curve_chart(
        curves(tables[0]),
        x=("level", "severity, JPEG quality or factor"),
        y=("miou", "mIoU, %"),
        panel="change",
        title="Spoilt images",
        band=("miou_low", "miou_high"),
    )


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of every curve, in a column `change`: groups, JPEG quality and scale; without a group, single ones.

    Clean images are at severity 0 and factor 1.
    """
    several = table["prompt"].nunique() > 1
    clean, rest = table[table["corruption"] == CLEAN], table[table["level"] > 0]
    if rest["corruption"].isin(GROUPS).any():
        rest = rest[rest["corruption"].isin([*GROUPS, JPEG_QUALITY, SCALE])]
    parts = []
    for name, part in rest.groupby("corruption", sort=False):
        ends = {SCALE: [1.0], JPEG_QUALITY: []}.get(str(name), [0.0])
        starts = [clean.assign(corruption=name, level=level) for level in ends if level not in set(part["level"])]
        parts.append(pd.concat([*starts, part]).sort_values("level", kind="stable"))
    every = pd.concat(parts, ignore_index=True) if parts else rest
    names = every["corruption"] + (", " + every["prompt"] if several else "")
    return every.assign(change=names)


TABLE = Table(
    name="corruptions",
    order=26,
    title="Spoilt images",
    explanation="Mean IoU in per cent on images as cameras, weather and files spoil them: the common corruptions of "
    "ImageNet-C by severity, JPEG quality, and scale. clean: the images as they are. all, noise, blur, weather, "
    "digital: the mean of several corruptions, at one severity or over all of them (level 0). drop: how much of the "
    "clean mIoU is lost, in per cent of it and on the same instances. worst_decile: the mean of the lowest tenth.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "prompt", "corruption", "level"),
    selected=lambda study: "corruptions" in study["measures"],
    sources=lambda study: study.measured_files("corruptions"),
    settings=settings,
    build=build,
    units=dict.fromkeys(("miou", "miou_low", "miou_high", "drop", "worst_decile"), "%"),
    decimals={"level": 2},
    metrics="corruptions/{column}/{prompt}/{corruption}/{level}",
    summary=InSummary(
        word="spoilt images",
        order=90,
        columns=(Column(name="corruption_drop", order=70, unit="%"),),
        cells=in_summary,
        explanation="corruption_drop: how much of the mIoU the common corruptions cost on average.",
    ),
    drawn_from=("corruptions",),
    draw=draw,
)
