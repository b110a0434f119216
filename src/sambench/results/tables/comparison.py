"""The table `comparison`: every variant against a reference on the same prompts, and ranks that say what is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.results import accuracy, paired
from sambench.results.paired import Scores, System
from sambench.results.statistics import Resampling, ranks, verdict
from sambench.results.table import Table, concat, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

REFERENCE = "reference"  # the verdict on the reference itself
NO_REFERENCE = "no reference"  # the status where nothing has a number that others could be compared with
LEAST = 10  # images; of fewer a bootstrap makes intervals that are too narrow, so there are none
FEW_IMAGES = f"fewer than {LEAST} images"

# mIoU and differences in per cent (points). difference: that of the variant from the reference, on the prompts that
# both answered, with its own 95 % interval and with the ends of the one that is corrected for many comparisons.
SCHEMA = pa.schema(
    [
        *[
            pa.field(n, pa.string())
            for n in ("dataset", "variant", "runtime", "prompt", "subset", "reference", "reference_runtime")
        ],
        *[
            pa.field(n, pa.float64())
            for n in (
                *("miou", "reference_miou", "difference", "difference_low", "difference_high"),
                *("corrected_low", "corrected_high"),
            )
        ],
        pa.field("verdict", pa.string()),
        *[pa.field(n, pa.int64()) for n in ("rank", "rank_best", "rank_worst", "instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def settings(study: Study) -> dict[str, Any]:
    return {"plan": paired.plan(study), "references": references(study)}


def references(study: Study) -> list[str]:
    """The variants that may be the reference; the first one that has numbers is."""
    wanted = study.settings.statistics.reference
    if wanted:
        return [wanted]
    networks = [name for name in study["variants"] if study.cards[name].checkpoints]
    usual = study.settings.efficiency.reference
    return list(dict.fromkeys([*([usual] if usual in study["variants"] else []), *networks, *study["variants"]]))


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    plan = settings["plan"]
    ceilings = paired.ceilings(plan)
    parts = []
    for dataset in paired.datasets(plan):
        for group, prompt in paired.prompt_sets(plan, dataset):
            scores = paired.read_scores(results, plan, dataset, group, prompt)
            lines = compare(scores, settings["references"], ceilings, **plan["bootstrap"])
            parts.append(typed(({"dataset": dataset, "prompt": prompt} | line for line in lines), SCHEMA))
    return concat(parts, SCHEMA)


def reference_of(scores: Scores, candidates: Sequence[str], ceilings: set[str]) -> System | None:
    """The first candidate that has numbers, in the first runtime in which it has."""
    scored = scores.scored()
    return next((s for name in candidates for s in scored if s.variant == name and name not in ceilings), None)


def compare(
    scores: Scores, candidates: Sequence[str], ceilings: set[str], *, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The lines of one prompt set: every system on all instances, and on each subset of them.

    candidates: names of variants, of which the first one with numbers is the reference. ceilings: variants that have
    no rank. The comparisons of one subset with the reference are corrected as one family; so are those of the subsets
    by size, and by crowd. Ranks are of all instances that every ranked system answered.
    """
    reference = reference_of(scores, candidates, ceilings)
    draws = Resampling(scores.images, resamples=resamples, seed=seed)
    parts = paired.subsets(scores.instances)
    placed = _ranked(scores, ceilings, draws)
    for family in (["all"], ["small", "medium", "large"], ["not crowd", "crowd"]):
        masks = {name: parts[name] for name in family if name in parts}
        found = _differences(scores, reference, masks, draws) if reference and masks else {}
        for subset in masks:
            for place, system in enumerate(scores.systems):
                iou = scores.iou[masks[subset], place]
                line: dict[str, Any] = {**system._asdict(), "subset": subset, "status": scores.statuses[place]}
                line |= {"miou": np.nanmean(iou)} if not np.isnan(iou).all() else {}
                line |= found.get((subset, system), {})
                if subset == "all":
                    line |= placed.get(system, {})
                if reference is not None:
                    line |= {"reference": reference.variant, "reference_runtime": reference.runtime}
                elif line["status"] == OK:
                    line["status"] = NO_REFERENCE
                if line["status"] == OK and line.get("images", LEAST) < LEAST:
                    line["status"] = FEW_IMAGES
                yield line


def _differences(
    scores: Scores, reference: System, masks: Mapping[str, np.ndarray], draws: Resampling
) -> dict[tuple[str, System], dict[str, Any]]:
    """For each subset and system the columns of its difference; all of them are one family."""
    against = scores.of(reference)
    differences = scores.iou - against[:, None]
    columns = np.concatenate([np.where(mask[:, None], differences, np.nan) for mask in masks.values()], axis=1)
    keys = [(subset, system) for subset in masks for system in scores.systems]
    # The difference of the reference from itself is no comparison, and what has no number is none either.
    compared = [k for k, key in enumerate(keys) if key[1] != reference and not np.isnan(columns[:, k]).all()]
    estimates = draws.means(columns[:, compared], scores.images, least=LEAST)
    intervals = np.stack([*estimates.interval(), *estimates.simultaneous()], axis=1)
    found: dict[tuple[str, System], dict[str, Any]] = {}
    for (subset, system), value, ends, column in zip(
        [keys[k] for k in compared], estimates.values, intervals, columns[:, compared].T, strict=True
    ):
        both = ~np.isnan(column)
        found[subset, system] = {
            "reference_miou": against[both].mean(),
            "difference": value,
            **dict(zip(("difference_low", "difference_high", "corrected_low", "corrected_high"), ends, strict=True)),
            "verdict": verdict(*ends[2:]),
            **counted(scores, both),
        }
    for subset, mask in masks.items():
        own = mask & ~np.isnan(against)
        found[subset, reference] = {"verdict": REFERENCE, **counted(scores, own)}
    return found


def counted(scores: Scores, rows: np.ndarray) -> dict[str, int]:
    """How many instances and images the rows (N,) bool are."""
    return {"instances": int(rows.sum()), "images": len(np.unique(scores.images[rows]))}


def _ranked(scores: Scores, ceilings: set[str], draws: Resampling) -> dict[System, dict[str, int]]:
    """The ranks of all systems that have numbers, on the instances that all of them answered."""
    systems = [system for system in scores.scored() if system.variant not in ceilings]
    columns = scores.iou[:, [scores.systems.index(system) for system in systems]]
    shared = ~np.isnan(columns).any(axis=1)
    if not systems or not shared.any():
        return {}
    found = ranks(draws.means(columns[shared], scores.images[shared], least=LEAST))
    return {
        system: {"rank": int(group), "rank_best": int(best), "rank_worst": int(worst)}
        for system, group, best, worst in zip(systems, found.group, found.best, found.worst, strict=True)
    }


TABLE = Table(
    name="comparison",
    order=5,
    title="Comparison",
    explanation="Every variant against the reference on the same prompts, by argmax: the difference in points of mIoU "
    "with its 95 % interval, clustered by image. corrected_low and corrected_high hold for all variants of the table "
    "and prompt at once (max-T); the verdict goes by them. Two ranks are apart only where every difference across them "
    "is shown; rank_best and rank_worst are how far a variant may stand up or down.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "prompt", "subset"),
    selected=lambda study: any(study.prompt_types(group) for group in study["prompt_groups"]),
    sources=accuracy.sources,
    settings=settings,
    build=build,
    units=dict.fromkeys(
        (
            *("miou", "reference_miou", "difference", "difference_low", "difference_high"),
            *("corrected_low", "corrected_high"),
        ),
        "%",
    ),
    decimals=dict.fromkeys(("difference", "difference_low", "difference_high", "corrected_low", "corrected_high"), 2),
    large=True,
    derived=True,
)
