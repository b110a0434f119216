"""What clicks, boundaries and calibration add to an accuracy study, in turns with the study without, in one process.

    python benchmarks/extras.py --annotations instances.json --images val2017 --weights weights --boxes boxes.json

A study is what jobs do after they have started: encode, decode and score the prompts of the group `ground_truth` by the
rules of the default study, and the boxes of a file of results where one is given; then AP and the tables of accuracy.
Three things come on top:

    boundary       boundary IoU of every mask, boundary AP, the table `boundary`
    calibration    the table `calibration`
    interactive    the measure with its settings (20 clicks, with and without the box first) and its table

The trajectory's own decoding, from prompts to masks of full size, is counted apart: it is what was asked for. Reading
and encoding the images once more, placing the clicks and scoring the answers are not. Figures are medians over rounds,
ratios medians of ratios within a round. Exit status 1 where the ratio by CPU seconds is above LIMIT.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sambench.config import read_registries
from sambench.datasets import coco
from sambench.datasets.annotations import read_document
from sambench.detectors.boxes import Limits, import_boxes
from sambench.detectors.classes import Category
from sambench.evaluate import trajectory
from sambench.evaluate.average_precision import SEGM
from sambench.evaluate.boundary_precision import boundary_precision
from sambench.evaluate.detections import DetectedMasks, box_prompts
from sambench.evaluate.instances import mask_precision, truth_of
from sambench.evaluate.judged import indexed_truth, judged
from sambench.evaluate.segany import ChosenIous, evaluate, plan, result_table
from sambench.jobs import Job
from sambench.measure import interactive
from sambench.parity.models import load_cards
from sambench.prompts import make_prompts
from sambench.results.table import all_tables
from sambench.results.tables import interactive as table_of_clicks
from sambench.script import command
from sambench.variants.base import Runtime, Variant
from sambench.variants.cards import find_card
from sambench.variants.registry import build

LIMIT = 1.5
TABLES = ("accuracy_boxes", "accuracy_points", "iou_distribution")
JOB = Job("photographs", "variant", "eager", "ground_truth")
APART = "decoding of the trajectory"
Seconds = np.ndarray  # (2,): of the CPU, and of the clock on the wall


def now() -> Seconds:
    return np.array([time.process_time(), time.perf_counter()])


class OwnClock:
    """In the place of the measure's clock, which times the decoding: of its thread alone, others read images ahead."""

    @staticmethod
    def perf_counter() -> Seconds:
        return np.array([time.thread_time(), time.perf_counter()])


def main(
    *,
    annotations: Path,
    images: Path,
    weights: Path | None = None,
    boxes: Path | None = None,
    variant: str = "mobilesam",
    image_limit: int = 5,
    rounds: int = 3,
) -> None:
    """Time both on one thread of the CPU and print what each part takes, and the ratio.

    Parameters
    ----------
    annotations
        COCO-format JSON
    images
        folder of the images
    weights
        folder of the checkpoint; without it weights are random
    boxes
        results of a detector in the COCO format
    variant
        name of a variant
    image_limit
        number of images
    rounds
        rounds, each of which runs both"""
    folders = [weights] if weights else []
    card = find_card(load_cards(), variant)
    known = card.weights(folders) is not None
    torch.manual_seed(0)
    network = build(card, Runtime(device="cpu", threads=1), folders, random_weights=not known)
    vars(interactive)["time"] = vars(trajectory)["time"] = OwnClock
    study = Study(network, annotations, images, boxes, image_limit)
    print(f"{variant} with {'published' if known else 'random'} weights, one thread: ", end="")
    print(f"{len(study.index.images)} images, {len(study.index.instances)} instances, ", end="")
    print(f"{len(study.prompts)} prompts, {len(study.boxes)} boxes", flush=True)
    study.run(extras=False)  # whatever is imported or allocated late
    found: dict[bool, list[dict[str, Seconds]]] = {False: [], True: []}
    for turn in range(rounds):
        for extras in (False, True) if turn % 2 == 0 else (True, False):
            found[extras].append(study.run(extras=extras))
    sys.exit(int(not report(found[False], found[True]) <= LIMIT))


class Study:
    """An accuracy study of one variant on a few images, in memory."""

    def __init__(self, network: Variant, annotations: Path, images: Path, boxes: Path | None, limit: int) -> None:
        config = read_registries(["config"])
        self.network, self.clicks = network, config["interactive"]
        self.selections, self.statistics = config["study"]["selections"], config["statistics"]
        self.index = coco.index(annotations, images, image_limit=limit)
        self.prompts = make_prompts("extras", self.index.instances, config["prompt_groups"]["ground_truth"])
        self.truth = truth_of(annotations, SEGM, self.index.images)
        found = self.read_boxes(annotations, boxes) if boxes else {}
        self.boxes = box_prompts(found) if found else pd.DataFrame()
        planned = [self.prompts.assign(detected=False), self.boxes] if found else [self.prompts]
        self.tasks = plan(self.index.images, self.index.instances, pd.concat(planned).reset_index(drop=True))

    def read_boxes(self, annotations: Path, file: Path) -> dict[str, pd.DataFrame]:
        document = read_document(annotations, segmentations=False)
        categories = [Category(entry["id"], "") for entry in document["categories"]]
        found = import_boxes(file, document, annotations, categories, self.index.images, Limits(0.0, 100), {})
        return {"boxes": found[judged(indexed_truth(self.index.images), found)].reset_index(drop=True)}

    def run(self, *, extras: bool) -> dict[str, Seconds]:
        """Seconds of each part."""
        spent: dict[str, Seconds] = {}

        @contextmanager
        def clock(part: str) -> Iterator[None]:
            start = now()
            yield
            spent[part] = spent.get(part, np.zeros(2)) + now() - start

        scores = ChosenIous(len(self.prompts), self.selections, boundary=extras)
        kept = DetectedMasks(len(self.boxes), len(self.prompts), self.selections) if len(self.boxes) else None
        with clock("masks"):
            evaluate(self.network, self.tasks, scores, kept)
            rows = result_table(self.prompts, self.index.instances, scores)
        if kept:
            masks = kept.table(self.boxes, self.index.images)
            shards = [(self.index.images["image_id"].tolist(), masks)]
            keys = [("boxes", rule) for rule in sorted(set(masks["selection"]))]
            with clock("average precision"):
                mask_precision(self.truth, keys, shards)
            if extras:
                with clock("boundary AP"):
                    boundary_precision(self.truth, keys, lambda: [masks])
        settings = {"statistics": self.statistics, "selections": self.selections}
        for name in (*TABLES, *(("boundary", "calibration") if extras else ())):
            with clock("tables" if name in TABLES else f"table {name}"):
                for prompt, own in rows.groupby("prompt", sort=False):
                    list(all_tables()[name].part(JOB, prompt, own, settings))  # type: ignore[misc]
        if extras:
            with clock("interactive"):
                wanted = {key: self.clicks[key] for key in ("clicks", "protocols")}
                clicked = interactive.measure(self.network, self.index.images, self.index.instances, **wanted)
            decoding = np.sum([np.sum(row, axis=0) for row in clicked["seconds"]], axis=0)
            spent["interactive"] -= decoding
            spent[APART] = decoding
            with clock("table interactive"):
                table_of_clicks.lines(JOB._asdict(), clicked, **wanted, **self.statistics)
        return spent


def report(without: Sequence[dict[str, Seconds]], extra: Sequence[dict[str, Seconds]]) -> float:
    """Print the seconds of each part and the ratios; returns the ratio by CPU seconds."""
    print(f"  {'':28}{'without: CPU s':>15}{'wall s':>10}{'with: CPU s':>15}{'wall s':>10}")
    for part in extra[0]:
        figures = []
        for runs in (without, extra):
            middle = np.median([run[part] for run in runs], axis=0) if part in runs[0] else None
            figures += ["", ""] if middle is None else [f"{value:.2f}" for value in middle]
        print("  {:28}{:>15}{:>10}{:>15}{:>10}".format(part, *figures))

    def total(run: dict[str, Seconds]) -> Seconds:
        return np.sum([seconds for part, seconds in run.items() if part != APART], axis=0)

    ratios = np.median([total(b) / total(a) for a, b in zip(without, extra, strict=True)], axis=0)
    print(f"  with / without, without {APART}: {ratios[0]:.2f} by CPU, {ratios[1]:.2f} by wall; at most {LIMIT}")
    return float(ratios[0])


if __name__ == "__main__":
    command(main)
