"""The table `accuracy_categories`: mean IoU of each category, and its difference from the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.jobs import instances_file
from sambench.results import accuracy, paired
from sambench.results.finished import category_names
from sambench.results.headlines import HEADLINES
from sambench.results.paired import Scores
from sambench.results.statistics import Resampling, together, verdict
from sambench.results.table import Table, concat, typed
from sambench.results.tables import comparison
from sambench.results.tables.comparison import FEW_IMAGES, LEAST, NO_REFERENCE, REFERENCE, reference_of
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

# mIoU and differences in per cent (points), as in the table `comparison`.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt")],
        pa.field("category_id", pa.int64()),
        pa.field("category", pa.string()),
        *[
            pa.field(n, pa.float64())
            for n in ("miou", "miou_low", "miou_high", "difference", "corrected_low", "corrected_high")
        ],
        *[pa.field(n, pa.string()) for n in ("verdict", "reference")],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def sources(study: Study) -> list[str]:
    return [*accuracy.sources(study), *(instances_file(study.results, name) for name in study["datasets"])]


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    plan = settings["plan"]
    ceilings = paired.ceilings(plan)
    parts = []
    for dataset in paired.datasets(plan):
        names = category_names(results, dataset)
        sets = {prompt: group for group, prompt in paired.prompt_sets(plan, dataset)}
        shown = [next((name for name in usual if name in sets), "") for usual in HEADLINES.values()]
        for prompt in filter(None, shown):
            scores = paired.read_scores(
                results, plan, dataset, sets[prompt], prompt, systems=paired.first_runtimes(plan, dataset, sets[prompt])
            )
            lines = of_categories(scores, names, settings["references"], ceilings, **plan["bootstrap"])
            parts.append(typed(({"dataset": dataset, "prompt": prompt} | line for line in lines), SCHEMA))
    return concat(parts, SCHEMA)


def of_categories(
    scores: Scores,
    names: Mapping[int, str],
    candidates: list[str],
    ceilings: set[str],
    *,
    resamples: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """One line per system that has numbers and category, systems in order and categories by id; one for a system that
    has none. All differences, of all systems and categories, are corrected as one family."""
    reference = reference_of(scores, candidates, ceilings)
    draws = Resampling(scores.images, resamples=resamples, seed=seed)
    scored = scores.scored()
    at = [scores.systems.index(system) for system in scored]
    categories = scores.instances["category_id"].to_numpy()
    of_category = {int(number): np.flatnonzero(categories == number) for number in np.unique(categories)}
    own, against = [], []
    for rows in of_category.values():
        iou, ids = scores.iou[rows][:, at], scores.images[rows]
        own.append(draws.means(iou, ids, least=LEAST).interval())
        if reference is not None:
            difference = iou - iou[:, [scored.index(reference)]]
            difference[:, scored.index(reference)] = np.nan  # no comparison
            against.append(draws.means(difference, ids, least=LEAST))
    ends = differences = None
    if against:
        found = together(against)
        ends = np.stack(found.simultaneous(), axis=1).reshape(len(of_category), len(at), 2)
        differences = found.values.reshape(len(of_category), len(at))
    for place, system in enumerate(scores.systems):
        line = {**system._asdict(), "status": scores.statuses[place]}
        if reference is not None:
            line["reference"] = reference.variant
        elif line["status"] == OK:
            line["status"] = NO_REFERENCE
        if system not in scored:
            yield line | {"instances": 0, "images": 0}
            continue
        column = scored.index(system)
        for number, (category, rows) in enumerate(of_category.items()):
            iou = scores.iou[rows, place]
            there = ~np.isnan(iou)
            images = len(np.unique(scores.images[rows][there]))
            cells: dict[str, Any] = {"category_id": category, "category": names.get(category, str(category))}
            cells |= {"instances": int(there.sum()), "images": images}
            if there.any():
                low, high = own[number]
                cells |= {"miou": iou[there].mean(), "miou_low": low[column], "miou_high": high[column]}
            if system == reference:
                cells["verdict"] = REFERENCE
            elif ends is not None and differences is not None and not np.isnan(differences[number, column]):
                low, high = ends[number, column]
                cells |= {"difference": differences[number, column], "corrected_low": low, "corrected_high": high}
                cells["verdict"] = verdict(low, high)
            if line["status"] == OK and images < LEAST:
                cells["status"] = FEW_IMAGES
            yield line | cells


TABLE = Table(
    name="accuracy_categories",
    order=25,
    title="Categories",
    explanation="Mean IoU in per cent of each category with the headline prompts of the summary, by argmax, each "
    "variant in its first runtime, and its difference from the reference with an interval that is corrected for all "
    "variants and categories at once. A category of fewer than ten images has no interval.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "prompt", "category_id"),
    selected=comparison.TABLE.selected,
    sources=sources,
    settings=comparison.settings,
    build=build,
    units=dict.fromkeys(
        ("miou", "miou_low", "miou_high", "difference", "corrected_low", "corrected_high"),
        "%",
    ),
    decimals=dict.fromkeys(("difference", "corrected_low", "corrected_high"), 2),
    large=True,
    derived=True,
)
