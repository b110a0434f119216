"""`sambench quick`: a first comparison on the user's own data, in so many minutes and without a file of settings.

It times the variants on the first images of a random sample, takes as many images as fit, writes a study of them and
runs it. What it writes is a study like any other, to go on from.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sambench.config import CONFIG_FOLDER, merge, read_registries, read_study
from sambench.datasets import checks
from sambench.errors import InputError, near_matches
from sambench.files import write_text
from sambench.status import NO_WEIGHTS, OK
from sambench.variants.cards import Card, read_cards

PROMPTS = ("box", "mask_center")
FLOOR = "box_fill"
FEWEST = 10  # images that a comparison should have at least
TRIED = 3  # images that are timed, after one that warms up
# Seconds that are not measured: processes that start, costs, latency, tables, figures and the report.
STUDY_SECONDS, VARIANT_SECONDS, LATENCY_SECONDS = 60.0, 30.0, 10.0


@dataclass(frozen=True)
class Question:
    """What the user wants to know. annotations, images: of a COCO-format data set. seed: of the sample of images."""

    annotations: Path
    images: Path
    minutes: float = 15.0
    variants: Sequence[str] = ()
    results: Path = Path("results")
    weights: Sequence[Path] = (Path("weights"),)
    seed: int = 0
    name: str = "quick"
    config: Mapping[str, Any] = field(default_factory=read_registries)


Timer = Callable[[Card, Path], float]
Fetcher = Callable[[Card], bool]


def run(question: Question) -> None:
    """Answer: choose, write the study and run it. Prints the summary at the end.

    Raises InputError for unreadable annotations, unknown variants, or when not a single variant can be measured.
    """
    start = time.monotonic()
    document = checks.read_annotations(question.annotations)
    order = sampled_order(document, question.annotations, question.seed)
    folder = question.results / question.name
    sample = folder / "annotations.json"
    chosen = candidates(question)
    write_text(sample, dumps(part(document, order[: TRIED + 1])))
    kept, count = choose(question, chosen, len(order), sample, start)
    write_text(sample, dumps(part(document, order[:count])))
    study = folder / f"{question.name}.yaml"
    write_text(study, study_text(question, sample, count, len(order), kept))
    print(f"{count} of {len(order)} images, {', '.join(kept)}; the study is {study}", flush=True)
    start_study(study)
    print((folder / "tables" / "overview.md").read_text(encoding="utf-8"))
    print(f"report: {folder / 'report' / 'index.html'}   go on from {study}")


def dumps(document: Mapping[str, Any]) -> str:
    """A part of what `checks.read_annotations` gives, as JSON."""
    return json.dumps(document, default=np.ndarray.tolist)


def sampled_order(document: Mapping[str, Any], path: Path, seed: int) -> list[int]:
    """The ids of all images with annotations in random order: a longer sample begins with a shorter one."""
    try:
        ids = sorted({annotation["image_id"] for annotation in document["annotations"]})
    except (KeyError, TypeError):
        raise InputError(path, "annotations", expected="an `image_id` in each") from None
    if not ids:
        raise InputError(path, "annotations", expected="at least one", found="none")
    return [ids[i] for i in np.random.RandomState(seed).permutation(len(ids))]


def part(document: Mapping[str, Any], ids: Iterable[int]) -> dict[str, Any]:
    """The document with these images only."""
    wanted = set(ids)
    return {
        **document,
        "images": [image for image in document["images"] if image.get("id") in wanted],
        "annotations": [entry for entry in document["annotations"] if entry["image_id"] in wanted],
    }


def candidates(question: Question) -> list[Card]:
    """The variants to try, cheapest first: those that were named, else all with permissive licences that take boxes."""
    from sambench.downloads.catalogue import fetchable
    from sambench.downloads.store import default_offline
    from sambench.resources import flops

    cards = read_cards(question.config["variants"])
    for name in question.variants:
        if name not in cards:
            remedy = near_matches(name, cards)
            raise InputError("variants", expected="variants of the registry", found=name, remedy=remedy)
    if question.variants:
        return [cards[name] for name in question.variants]
    found = []
    for card in cards.values():
        state = card.availability(question.weights)
        ready = state == OK or (state == NO_WEIGHTS and fetchable(card.checkpoints) and not default_offline())
        if ready and card.checkpoints and card.permissive and "box" in card.prompts:
            found.append(card)
    return [cards[FLOOR], *sorted(found, key=flops)]


def choose(
    question: Question,
    cards: Sequence[Card],
    images: int,
    sample: Path,
    start: float,
    seconds_of: Timer | None = None,
    fetch: Fetcher | None = None,
) -> tuple[list[str], int]:
    """Which variants, and how many images of `images`: a variant that would leave too few images to all is left out.

    Variants that were named are all kept. start: what the clock showed when the minutes began.
    """
    timer = seconds_of or (lambda card, sample: seconds_per_image(question, card, sample))
    fetcher = fetch or (lambda card: fetched(card, question.weights))
    fewest = min(FEWEST, images)
    kept: list[str] = []
    costs: list[float] = []

    def left(more: int = 0) -> float:
        spent = time.monotonic() - start + STUDY_SECONDS
        return 60 * question.minutes - spent - (len(costs) + more) * (VARIANT_SECONDS + LATENCY_SECONDS)

    for card in cards:
        named = card.name in question.variants
        if not named and kept and left(1) < fewest * (sum(costs) + expected_seconds(card)):
            print(f"{card.name}: takes too long for {question.minutes:g} minutes", file=sys.stderr, flush=True)
            break  # and so do all after it
        if card.availability(question.weights) == NO_WEIGHTS and not fetcher(card):
            print(f"{card.name}: {card.explain(question.weights)}", file=sys.stderr, flush=True)
            continue
        if (state := card.availability(question.weights)) != OK:
            print(f"{card.name}: {state}: {card.explain(question.weights)}", file=sys.stderr, flush=True)
            continue
        seconds = timer(card, sample)
        print(f"{card.name}: {seconds:.2f} s per image", file=sys.stderr, flush=True)
        if not named and kept and left(1) < fewest * (sum(costs) + seconds):
            continue
        kept.append(card.name)
        costs.append(seconds)
    if not kept:
        raise InputError("variants", expected="one that can run here", found="none", remedy="see `sambench variants`")
    return kept, max(fewest, min(images, int(left() / max(sum(costs), 1e-3))))


def expected_seconds(card: Card) -> float:
    """Before it is measured: seconds per image by the size of the network."""
    import torch

    from sambench.resources import CPU_FLOPS, GPU_FLOPS, flops

    return flops(card) / (GPU_FLOPS if torch.cuda.is_available() else CPU_FLOPS) if card.checkpoints else 0.0


def fetched(card: Card, folders: Sequence[Path]) -> bool:
    """Fetch what is missing; whether the weights of a variant are here now."""
    from sambench.downloads.catalogue import from_card
    from sambench.downloads.store import Store, download_all
    from sambench.downloads.transfer import RetryPolicy

    try:
        download_all(from_card(card, folders), Store(policy=RetryPolicy(connections=1)))
    except InputError as error:
        print(f"{card.name}: {error}", file=sys.stderr)
        return False
    return True


def seconds_per_image(question: Question, card: Card, sample: Path) -> float:
    """Encoding, decoding and scoring on the first images of the sample, after one that warms up."""
    from sambench.datasets import coco
    from sambench.evaluate.segany import ChosenIous, evaluate, plan
    from sambench.prompts import make_prompts
    from sambench.variants.base import Runtime
    from sambench.variants.registry import build

    index = coco.index(sample, question.images)
    prompts = make_prompts(question.name, index.instances, PROMPTS)
    variant = build(card, Runtime(), question.weights)
    tasks = plan(index.images, index.instances, prompts)
    scores = ChosenIous(len(prompts))
    if len(tasks) > 1:
        evaluate(variant, tasks[:1], scores)
    begin = time.perf_counter()
    evaluate(variant, tasks[1:] or tasks, scores)
    return (time.perf_counter() - begin) / len(tasks[1:] or tasks)


def study_text(question: Question, sample: Path, count: int, images: int, variants: Sequence[str]) -> str:
    """The study as YAML, with a line on how to go on; it has been checked.

    Only what differs from the defaults is in it.
    """
    stem = re.sub(r"[^A-Za-z0-9_.+-]+", "_", question.annotations.stem).strip("_.+-") or "data"
    own: dict[str, Any] = {
        "results": str(question.results),
        "weights": [str(folder) for folder in question.weights],
        "datasets": {
            stem: {
                "annotations": str(sample),
                "images": str(question.images),
                "image_count": count,
                "title": f"{count} of {images} images of {question.annotations.name}",
            }
        },
        "prompt_groups": {"quick": list(PROMPTS)},
        "latency": {"images": 5, "boxes": 10, "min_seconds": 5},
        "study": {
            "name": question.name,
            "datasets": [stem],
            "variants": list(variants),
            "prompt_groups": ["quick"],
            "measures": ["efficiency", "latency"],
        },
    }
    shipped = read_registries(["variants"])["variants"]
    entries = {name: question.config["variants"].get(name) for name in variants}
    if added := {name: entry for name, entry in entries.items() if entry is not None and entry != shipped.get(name)}:
        own["variants"] = added
    read_study(merge(dict(question.config), own))
    again = sample.with_name(f"{question.name}.yaml")
    head = (
        f"# {count} of {images} images, a random sample (seed {question.seed}). For all: annotations: "
        f"{question.annotations}\n# Run it again, or with changes: snakemake --configfile {again}\n"
    )
    return head + yaml.safe_dump(own, sort_keys=False)


def start_study(study: Path) -> None:
    """Run Snakemake on a study in the working directory. Raises InputError when it fails; its log said why."""
    from sambench.graph import CONFIG_FILES, snakefile

    files = [*(CONFIG_FOLDER / name for name in CONFIG_FILES), study.absolute()]
    profile = CONFIG_FOLDER.parent / "profiles" / "default"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), "--directory", "."]
    command += ["--workflow-profile", str(profile), "--configfile", *map(str, files)]
    if subprocess.run(command, check=False).returncode != 0:
        raise InputError(
            study, expected="a study that runs", found="a failure, told above", remedy=f"--configfile {study}"
        )
