"""What to take: two variants or two studies compared, and the best variant within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sambench.errors import InputError, near_matches
from sambench.results import paired
from sambench.results.finished import Finished
from sambench.results.headlines import HEADLINES
from sambench.results.paired import Scores, System
from sambench.results.statistics import Resampling, together, verdict
from sambench.results.tables.comparison import LEAST
from sambench.results.tables.summary import source_of

MOST = 20  # instances that are listed
SEVERAL = "all"  # the subset that is everything

# Licences that let anybody use, change and sell: by their SPDX names.
PERMISSIVE = frozenset(
    (
        *("Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "ISC", "Zlib", "BSL-1.0"),
        *("Unlicense", "CC0-1.0", "CC-BY-4.0", "PSF-2.0"),
    )
)


@dataclass(frozen=True)
class Pair:
    """The IoU, in per cent, of two things on the same prompts.

    label: what they have in common, such as the variant of two studies. instances: columns of paired.KEYS, of those
    that both scored. first, second: (N,). apart: prompts that only one of them has or answered.
    """

    dataset: str
    label: str
    prompt: str
    instances: pd.DataFrame
    first: np.ndarray
    second: np.ndarray
    apart: int


def matched(dataset: str, label: str, prompt: str, one: Scores, two: Scores) -> Pair:
    """Bring the single systems of two results together, by annotation."""
    sides = [
        scores.instances.assign(iou=scores.iou[:, 0])[lambda rows: rows["iou"].notna()].set_index("annotation_id")
        for scores in (one, two)
    ]
    shared = sides[0].index.intersection(sides[1].index)
    rows = sides[0].loc[shared]
    apart = len(sides[0].index.union(sides[1].index)) - len(shared)
    first, second = (side.loc[shared, "iou"].to_numpy() for side in sides)
    return Pair(dataset, label, prompt, rows.drop(columns="iou").reset_index(), first, second, apart)


def of_studies(one: Finished, two: Finished, selection: str = "argmax") -> Iterator[Pair]:
    """Everything that two studies both have: by data set, variant and runtime, and prompt set."""
    for dataset in paired.datasets(one.plan):
        other = {prompt: group for group, prompt in paired.prompt_sets(two.plan, dataset)}
        for group, prompt in paired.prompt_sets(one.plan, dataset):
            if prompt not in other:
                continue
            theirs = paired.systems_of(two.plan, dataset, other[prompt])
            for system in paired.systems_of(one.plan, dataset, group):
                if system in theirs:
                    sides = (
                        read(one, dataset, group, prompt, system, selection),
                        read(two, dataset, other[prompt], prompt, system, selection),
                    )
                    yield matched(dataset, str(system), prompt, *sides)


def of_variants(study: Finished, one: str, two: str, selection: str = "argmax") -> Iterator[Pair]:
    """Two variants of a study, each as `VARIANT` or `VARIANT@RUNTIME`; without a runtime the first one of the study."""
    systems = [find_system(study, name) for name in (one, two)]
    for dataset in paired.datasets(study.plan):
        for group, prompt in paired.prompt_sets(study.plan, dataset):
            present = paired.systems_of(study.plan, dataset, group)
            if all(system in present for system in systems):
                sides = [read(study, dataset, group, prompt, system, selection) for system in systems]
                yield matched(dataset, "", prompt, sides[0], sides[1])


def find_system(study: Finished, name: str) -> System:
    """`VARIANT` or `VARIANT@RUNTIME` of a study; InputError with near matches otherwise."""
    variant, _, runtime = name.partition("@")
    systems = dict.fromkeys(System(job[1], job[2]) for job in study.plan["jobs"])
    found = next((s for s in systems if s.variant == variant and runtime in ("", s.runtime)), None)
    if found is None:
        known = [s.variant for s in systems] + [f"{s.variant}@{s.runtime}" for s in systems]
        remedy = near_matches(name, dict.fromkeys(known))
        raise InputError(study.name, expected="a variant of the study, or a study", found=name, remedy=remedy)
    return found


def read(study: Finished, dataset: str, group: str, prompt: str, system: System, selection: str) -> Scores:
    return paired.read_scores(study.results, study.plan, dataset, group, prompt, systems=[system], selection=selection)


def differences(pairs: Iterable[Pair], *, resamples: int, seed: int) -> pd.DataFrame:
    """The second against the first, by data set, label, prompt set and subset: mIoU of both, difference with its own
    interval (low, high) and with the corrected one, verdict, instances, images.

    Of each data set and subset all prompt sets and labels are one family of comparisons; so are the sizes, and crowd
    and not crowd. Nothing is said of fewer than ten images.
    """
    families: dict[tuple[str, int], list[tuple[dict[str, Any], Pair, np.ndarray]]] = {}
    for pair in pairs:
        for subset, mask in paired.subsets(pair.instances).items():
            if mask.any():
                kind = 0 if subset == SEVERAL else 2 if "crowd" in subset else 1
                line = {"dataset": pair.dataset, "label": pair.label, "prompt": pair.prompt, "subset": subset}
                families.setdefault((pair.dataset, kind), []).append((line, pair, mask))
    lines: list[dict[str, Any]] = []
    for _, family in sorted(families.items(), key=lambda item: item[0][1]):
        lines += _family(family, resamples=resamples, seed=seed)
    return pd.DataFrame(lines)


def by_category(
    pairs: Iterable[Pair], names: Mapping[str, Mapping[int, str]], *, resamples: int, seed: int
) -> pd.DataFrame:
    """The same by category; of each data set, label and prompt set all categories are one family. names: of the
    categories, by data set."""
    lines: list[dict[str, Any]] = []
    for pair in pairs:
        categories = pair.instances["category_id"].to_numpy()
        fixed = {"dataset": pair.dataset, "label": pair.label, "prompt": pair.prompt}
        known = names.get(pair.dataset, {})
        family = [
            (fixed | {"category": known.get(int(number), str(number))}, pair, categories == number)
            for number in np.unique(categories)
        ]
        lines += _family(family, resamples=resamples, seed=seed)
    return pd.DataFrame(lines)


def _family(
    family: Sequence[tuple[dict[str, Any], Pair, np.ndarray]], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """The lines of comparisons that are corrected together."""
    if not family:
        return []
    draws = Resampling(
        np.concatenate([np.unique(pair.instances["image_id"].to_numpy()) for _, pair, _ in family]),
        resamples=resamples,
        seed=seed,
    )
    # One by one: together, the columns of a large study would not fit into memory.
    found = together(
        draws.means((pair.second - pair.first)[mask], pair.instances["image_id"].to_numpy()[mask], least=LEAST)
        for _, pair, mask in family
    )
    ends = np.stack([*found.interval(), *found.simultaneous()], axis=1)
    lines = []
    for (line, pair, mask), value, interval in zip(family, found.values, ends, strict=True):
        low, high, corrected_low, corrected_high = map(float, interval)
        lines.append(
            line
            | {"first": pair.first[mask].mean(), "second": pair.second[mask].mean(), "difference": float(value)}
            | {"low": low, "high": high, "corrected_low": corrected_low, "corrected_high": corrected_high}
            | {"verdict": verdict(corrected_low, corrected_high), "instances": int(mask.sum())}
            | {"images": pair.instances["image_id"][mask].nunique()}
        )
    return lines


def most_different(pairs: Iterable[Pair], names: Mapping[str, Mapping[int, str]], count: int = MOST) -> pd.DataFrame:
    """The instances whose IoU differs most, the largest difference first, each with the prompt set in which it does."""
    parts = []
    for pair in pairs:
        rows = pair.instances.assign(first=pair.first, second=pair.second, difference=pair.second - pair.first)
        rows.insert(0, "prompt", pair.prompt)
        rows.insert(0, "label", pair.label)
        rows.insert(0, "dataset", pair.dataset)
        parts.append(_largest_first(rows)[:count])
    if not parts:
        return pd.DataFrame()
    table = _largest_first(pd.concat(parts, ignore_index=True))
    table = table.drop_duplicates(["dataset", "label", "annotation_id"])[:count].reset_index(drop=True)
    known = [names.get(dataset, {}) for dataset in table["dataset"]]
    labels = [own.get(int(number), str(number)) for own, number in zip(known, table["category_id"], strict=True)]
    return table.assign(category=labels).drop(columns="category_id")


def _largest_first(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index]


@dataclass(frozen=True)
class Budget:
    """What a variant may cost; None: no limit. ms: of one image with one box. licence: `any` or `permissive`."""

    ms: float | None = None
    memory_mib: float | None = None
    licence: str = "any"


@dataclass(frozen=True)
class Recommendation:
    """best: the row of the summary, None where nothing is within the budget. within: all that is, best first, with the
    difference of the best from each (difference, low, high: corrected for all of them; verdict on the best). left_out:
    how many rows each reason took."""

    dataset: str
    prompt: str
    best: pd.Series | None
    within: pd.DataFrame
    left_out: dict[str, int]


def recommend(study: Finished, budget: Budget, prompt: str = "", runtime: str = "") -> Iterator[Recommendation]:
    """For each data set the variant with the highest mIoU within the budget, against all others that are within it.

    prompt: a prompt set; by default that of boxes in the summary, else that of points. Baselines that are given the
    ground truth are left out.

    Raises InputError where the study did not measure what the budget limits, or has no such prompt set.
    """
    summary = study.table("summary")
    for limit, column in ((budget.ms, "segany_ms"), (budget.memory_mib, "peak_memory_mib")):
        if limit is not None and summary[column].isna().all():
            remedy = f"add `{source_of(column)}` to study.measures and run it again"
            raise InputError(study.name, column, expected="measured values", found="none", remedy=remedy)
    ceilings = paired.ceilings(study.plan)
    for dataset in paired.datasets(study.plan):
        sets = paired.prompt_sets(study.plan, dataset)
        if not sets:
            continue
        group, name = _prompt_set(study, sets, prompt)
        rows = summary[(summary["dataset"] == dataset) & ((runtime == "") | (summary["runtime"] == runtime))]
        scores = paired.read_scores(study.results, study.plan, dataset, group, name)
        yield _choose(dataset, name, rows, scores, budget, ceilings, study.plan["bootstrap"])


def _prompt_set(study: Finished, sets: Sequence[tuple[str, str]], prompt: str) -> tuple[str, str]:
    of_prompt = {name: group for group, name in sets}
    if prompt:
        if prompt not in of_prompt:
            remedy = near_matches(prompt, of_prompt)
            raise InputError(study.name, "prompt", expected="a prompt set of the study", found=prompt, remedy=remedy)
        return of_prompt[prompt], prompt
    usual = [name for names in HEADLINES.values() for name in names if name in of_prompt]
    name = usual[0] if usual else next(iter(of_prompt))
    return of_prompt[name], name


def _choose(
    dataset: str,
    prompt: str,
    rows: pd.DataFrame,
    scores: Scores,
    budget: Budget,
    ceilings: set[str],
    bootstrap: Mapping[str, int],
) -> Recommendation:
    kept, left_out = [], dict[str, int]()
    scored = set(scores.scored())
    for place, row in enumerate(rows.to_dict("records")):
        reason = _too_much(row, budget)
        if row["variant"] in ceilings:
            reason = "is given the ground truth"
        elif System(row["variant"], row["runtime"]) not in scored:
            reason = "no accuracy"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            kept.append(place)
    within = rows.iloc[kept].copy()
    if within.empty:
        return Recommendation(dataset, prompt, None, within, left_out)
    systems = [System(*names) for names in zip(within["variant"], within["runtime"], strict=True)]
    columns = scores.iou[:, [scores.systems.index(system) for system in systems]]
    shared = ~np.isnan(columns).any(axis=1)
    columns, images = columns[shared], scores.images[shared]
    means = columns.mean(axis=0) if shared.any() else np.nanmean(columns, axis=0)
    first = int(np.argmax(means))
    within = within.assign(miou=means, difference=0.0, low=np.nan, high=np.nan, verdict="")
    others = [k for k in range(len(systems)) if k != first]
    if others and shared.any():
        draws = Resampling(images, **bootstrap)
        found = draws.means(columns[:, [first]] - columns[:, others], images, least=LEAST)
        low, high = found.simultaneous()
        at = [within.columns.get_loc(name) for name in ("difference", "low", "high")]
        within.iloc[others, at] = np.stack([found.values, low, high], axis=1)
        verdicts = [verdict(*ends) for ends in zip(low, high, strict=True)]
        within.iloc[others, within.columns.get_loc("verdict")] = verdicts
    order = [first, *sorted(others, key=lambda k: -means[k])]
    within = within.iloc[order].reset_index(drop=True)
    return Recommendation(dataset, prompt, within.iloc[0], within, left_out)


def _too_much(row: Mapping[str, Any], budget: Budget) -> str:
    """Why a row of the summary is not within the budget; empty where it is."""
    for limit, value, words in (
        (budget.ms, row["segany_ms"], "too slow"),
        (budget.memory_mib, row["peak_memory_mib"], "too much memory"),
    ):
        if limit is not None and not (pd.notna(value) and value <= limit):
            return words if pd.notna(value) else "not measured"
    if budget.licence == "permissive" and not is_permissive(row):
        return "licence"
    return ""


def is_permissive(row: Mapping[str, Any]) -> bool:
    """Whether the licences of code and weights are permissive; one that is unknown is not. row: of the summary."""
    has_weights = bool(row["weights"]) or pd.notna(row["checkpoint_mb"])
    return row["licence_code"] in PERMISSIVE and (not has_weights or row["licence_weights"] in PERMISSIVE)
