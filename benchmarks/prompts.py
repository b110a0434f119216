"""What prompts cost per instance: ours against the plain definition, which draws every mask at the size of its image.

    python benchmarks/prompts.py --annotations instances_val2017.json --images val2017

The plain definition decodes each mask, lists all its pixels for each random type, and takes the distance transform of
the whole image. Rounds alternate on one thread, CPU milliseconds are medians, and all random points must be equal.
First clicks may differ where the float32 distances of the plain definition hide which of two depths is larger.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from sambench.datasets import coco
from sambench.masks import decode_rle
from sambench.prompts import Instance, Prompt, make_prompts, prompt_function
from sambench.script import command

TYPES = ("box", "tight_box", "noisy_box", "box_center", "mask_center", "random_1", "random_3", "random_5")


def plain_random(instance: Instance, count: int) -> np.ndarray:
    """(count, 2) x, y; zeros where the mask has no more pixels."""
    rows, columns = np.nonzero(instance.mask)
    random = instance.random(f"random_{count}")
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        pixel = int(random.randint(len(rows)))
        if pixel not in chosen:
            chosen.append(pixel)
    points = np.zeros((count, 2))
    points[: len(chosen)] = np.stack([columns[chosen], rows[chosen]], axis=1)
    return points


def plain_center(instance: Instance) -> np.ndarray:
    padded = np.pad(instance.mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return np.array([[column, row]], dtype=float)


def plain(instances: pd.DataFrame, types: Sequence[str]) -> list[Prompt]:
    """The prompts of `make_prompts`, without its table."""
    found = []
    for row in instances.itertuples(index=False):
        edges = np.array([row.x, row.y, row.x + row.w, row.y + row.h])
        instance = Instance("benchmark", row.annotation_id, edges, decode_rle(row.rle_size, row.rle_counts))
        for name in types:
            kind, _, count = name.partition("_")
            if kind == "random":
                found.append(Prompt(points=plain_random(instance, int(count))))
            elif name == "mask_center":
                found.append(Prompt(points=plain_center(instance)))
            else:
                found.append(prompt_function(name)(instance))
    return found


def main(*, annotations: Path, images: Path, limit: int = 300, rounds: int = 3) -> None:
    """Print CPU milliseconds per instance and their ratio, over all types and for each of the costly ones.

    Parameters
    ----------
    annotations
        COCO or LVIS annotation file
    images
        its image folder
    limit
        at most so many instances, spread over the file
    rounds
        alternations
    """
    cv2.setNumThreads(1)
    table = coco.index(annotations, images).instances
    table = table.iloc[:: max(1, len(table) // limit)]
    print(f"{len(table)} instances, CPU ms per instance: plain, ours, ratio")
    for types in (TYPES, ("random_1", "random_3", "random_5"), ("mask_center",), ("tight_box",)):
        seconds: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(rounds):
            start = time.process_time()
            expected = plain(table, types)
            middle = time.process_time()
            made = make_prompts("benchmark", table, types)
            seconds["plain"].append(middle - start)
            seconds["ours"].append(time.process_time() - middle)
        old, new = (1000 * statistics.median(values) / len(table) for values in seconds.values())
        differ = 0
        for wanted, row in zip(expected, made.itertuples(), strict=True):
            values, field = (wanted.box, row.box) if wanted.points is None else (wanted.points, row.points)
            same = np.array_equal(np.float32(values).ravel(), field)
            assert same or row.prompt == "mask_center", row
            differ += not same
        print(f"{old:8.2f} {new:8.2f} {old / new:8.1f}  {differ} first clicks differ  {' '.join(types)}", flush=True)


if __name__ == "__main__":
    command(main)
