"""What evaluating an instance costs apart from the model: ours against the loop that evaluation scripts usually have.

    python benchmarks/evaluation.py --annotations instances_val2017.json --images val2017

Both get the same masks for nothing (the ground truth shifted by a few pixels, made beforehand) and do all the rest on
one core: read the image, get the ground truth, compute the IoU of every instance. The usual loop opens the image with
Pillow, rasterizes the annotation with pycocotools and takes numpy's logical_and and logical_or. Rounds alternate; the
figures are medians, and the IoUs of both must be equal.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO

from sambench.datasets import coco, scenes
from sambench.evaluate.segany import ChosenIous, evaluate, plan
from sambench.prompts import make_prompts
from sambench.script import command
from sambench.variants.base import MaskCandidates, Prompts, Upsampling, Variant

SHIFT = (3, 5)  # rows, columns


class Shifted(Variant):
    """Answers with the ground truth, shifted, which was made before the clock starts: a model that costs nothing."""

    def __init__(self, masks: Sequence[torch.Tensor]) -> None:
        self.masks = masks
        self.turn = 0
        self.done = 0

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        self.done = 0
        features = self.masks[self.turn]
        self.turn += 1
        return [features]

    def decode(self, features: torch.Tensor, prompts: Prompts) -> MaskCandidates:
        found = features[self.done : self.done + len(prompts)]
        self.done += len(prompts)
        return MaskCandidates(
            found[:, None],
            torch.zeros(len(found), 1),
            multimask=(0,),
            single=torch.zeros(len(found), dtype=torch.int64),
            upsampling=Upsampling(tuple(found.shape[-2:])),
        )


def main(*, annotations: Path | None = None, images: Path | None = None, rounds: int = 5) -> None:
    """Time both on one core and print the cost of an instance and the ratio.

    Parameters
    ----------
    annotations
        COCO-format JSON; the embedded scenes when absent
    images
        folder of the images
    rounds
        alternating rounds
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if annotations is None or images is None:
            scenes.generate(Path(folder))
            annotations, images = Path(folder) / "annotations.json", Path(folder) / "images"
        compare(annotations, images, rounds)


def compare(annotations: Path, images: Path, rounds: int) -> None:
    index = coco.index(annotations, images)
    prompts = make_prompts("benchmark", index.instances, ["box"])
    tasks = plan(index.images, index.instances, prompts)
    reference = COCO(str(annotations))
    order = index.instances["annotation_id"].tolist()
    masks, at = [], 0
    for task in tasks:
        count = len(task.rles)
        truth = np.stack([reference.annToMask(reference.anns[i]) for i in order[at : at + count]]).astype(bool)
        masks.append(torch.from_numpy(np.roll(truth, SHIFT, axis=(1, 2))))
        at += count

    def ours() -> np.ndarray:
        scores = ChosenIous(len(prompts))
        evaluate(Shifted(masks), tasks, scores, title="ours")
        return scores.iou["argmax"]

    def usual() -> np.ndarray:
        ious, at = [], 0
        for task, found in zip(tasks, masks, strict=True):
            np.asarray(Image.open(task.path).convert("RGB"))
            for mask in found.numpy():
                truth = reference.annToMask(reference.anns[order[at]]).astype(bool)
                ious.append(np.logical_and(mask, truth).sum() / np.logical_or(mask, truth).sum())
                at += 1
        return np.array(ious)

    times: dict[str, list[float]] = {"ours": [], "usual": []}
    for _ in range(rounds):
        results = {}
        for name, function in (("ours", ours), ("usual", usual)):
            start = time.process_time()
            results[name] = function()
            times[name].append(1000 * (time.process_time() - start) / len(prompts))
        np.testing.assert_array_equal(results["ours"], results["usual"])
    sizes = index.images["width"] * index.images["height"]
    print(f"{len(prompts)} instances of {len(tasks)} images, median image {int(sizes.median())} pixels, one core")
    for name, values in times.items():
        low, high = min(values), max(values)
        print(f"{name:5} {statistics.median(values):6.3f} CPU ms per instance ({low:.3f} to {high:.3f})")
    ratios = [usual / ours for ours, usual in zip(*times.values(), strict=True)]
    print(f"usual / ours: {statistics.median(ratios):.2f}, median of {rounds} alternating rounds")


if __name__ == "__main__":
    command(main)
