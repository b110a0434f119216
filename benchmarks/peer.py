"""The loop of published evaluation scripts against ours: same images, prompts and weights, in turns, in one process.

    python benchmarks/peer.py --annotations instances_val2017.json --images val2017 --weights weights

The published loop (EfficientViT-SAM's and others'): for each prompt type anew, each image is encoded, then the
predictor of segment-anything is called prompt by prompt, its three masks of full size go to NumPy, and the IoU of the
best is made of logical_and and logical_or, with 1e-7 in the denominator. Ours is what the workflow runs: `evaluate`,
with the fast decoder and once more with the official one. The floor is the model alone: encode each image once, decode
the same chunks with the fast decoder, draw the chosen mask at low resolution, nothing else.

Figures are medians over rounds, of CPU seconds and of wall; ratios are medians of ratios within a round, which hold on
a machine that others use too. IoUs are compared to the last digit with those of the published loop without its 1e-7,
and every one that differs is named: prompts in chunks are rounded otherwise than one by one, and a pixel on the
threshold may flip. Exit status 1 when a mean differs by more than a hundredth of a point.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from sambench import masks
from sambench.datasets import coco
from sambench.evaluate.segany import ChosenIous, ImageTask, evaluate, load, plan
from sambench.parity.models import load_cards
from sambench.prompts import make_prompts
from sambench.script import command
from sambench.variants.base import OFFICIAL, Runtime
from sambench.variants.cards import find_card
from sambench.variants.registry import build
from sambench.variants.sam import SamVariant

PROMPTS = ("box", "tight_box", "box_center", "random_1", "random_3", "random_5")
LIMIT = 0.01  # points of mIoU
EPSILON = 1e-7  # what the published loop adds to the union
MODEL, PEER, OURS, PLAIN = "model alone", "published loop", "ours", "ours, official decoder"
Row = Literal["mobilesam", "sam_vit_b"]


def main(
    *,
    annotations: Path,
    images: Path,
    weights: Path | None = None,
    variant: Sequence[Row] = ("mobilesam", "sam_vit_b"),
    prompts: Sequence[str] = PROMPTS,
    image_limit: int = 1,
    instances: int = 8,
    rounds: int = 3,
    threads: int = 1,
) -> None:
    """Time all on the CPU and print medians and ratios.

    Parameters
    ----------
    annotations
        COCO-format JSON
    images
        folder of the images
    weights
        folder of the checkpoints; a variant whose file is not in it runs with random weights
    variant
        names of variants of SAM 1 that segment-anything's own predictor can run
    prompts
        prompt types
    image_limit
        number of images
    instances
        at most so many instances of each image
    rounds
        rounds, each of which runs all loops
    threads
        CPU threads
    """
    index = coco.index(annotations, images, image_limit=image_limit)
    kept = index.instances.groupby("image_id").head(instances).reset_index(drop=True)
    table = make_prompts("peer", kept, prompts)
    folders = [weights] if weights else []
    bad = 0
    for name in variant:
        card = find_card(load_cards(), name)
        known = card.weights(folders) is not None
        fast = Runtime(device="cpu", threads=threads)
        ours, plain = (
            build(card, runtime, folders, random_weights=not known)
            for runtime in (fast, replace(fast, decoder=OFFICIAL))
        )
        assert isinstance(ours, SamVariant) and isinstance(plain, SamVariant)
        plain.module.load_state_dict(ours.module.state_dict())
        tasks = plan(index.images, kept, table)
        print(
            f"{name} with {'published' if known else 'random'} weights, {threads} threads: {len(tasks)} images, ",
            end="",
        )
        print(f"{len(kept)} instances, {len(table)} prompts of {len(prompts)} types", flush=True)
        bad += compare(ours, plain, tasks, kept, table, rounds)
    sys.exit(int(bad > 0))


def compare(
    ours: SamVariant,
    plain: SamVariant,
    tasks: Sequence[ImageTask],
    instances: pd.DataFrame,
    table: pd.DataFrame,
    rounds: int,
) -> int:
    """Run all loops in turns and print the figures; returns how many means differ by more than LIMIT.

    plain: the same weights in the official modules, which the published loop calls too.
    """
    network: Any = plain.module
    network.image_encoder.img_size = plain.pixel_size  # Sam and its predictor ask for it
    predictor = SamPredictor(Sam(network.image_encoder, network.prompt_encoder, network.mask_decoder).eval())

    def evaluated(variant: SamVariant) -> np.ndarray:
        scores = ChosenIous(len(table))
        evaluate(variant, tasks, scores)
        return scores.iou["argmax"]

    loops: Mapping[str, Callable[[], Any]] = {
        MODEL: lambda: model_alone(ours, tasks),
        PEER: lambda: published(predictor, tasks, instances, table),
        OURS: lambda: evaluated(ours),
        PLAIN: lambda: evaluated(plain),
    }
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    wall: dict[str, list[float]] = {name: [] for name in loops}
    found: dict[str, Any] = {}
    warm_up(ours, predictor, tasks[0])
    for turn in range(rounds):
        for name in list(loops) if turn % 2 == 0 else list(loops)[::-1]:
            start = time.process_time(), time.perf_counter()
            found[name] = loops[name]()
            cpu[name].append(time.process_time() - start[0])
            wall[name].append(time.perf_counter() - start[1])

    def ratio(one: str, other: str, seconds: Mapping[str, list[float]]) -> float:
        return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    for name in loops:
        total, elapsed = statistics.median(cpu[name]), statistics.median(wall[name])
        print(f"  {name:24} {total:9.2f} CPU s {elapsed:9.2f} s wall {1e3 * total / len(table):9.1f} CPU ms per prompt")
    for title, one, other in (
        ("published loop / ours", PEER, OURS),
        ("published loop / ours with the official decoder", PEER, PLAIN),
        ("official / fast decoder, all of our loop", PLAIN, OURS),
        ("model alone / ours (share of the floor)", MODEL, OURS),
    ):
        print(f"  {title:48} {ratio(one, other, cpu):6.2f} by CPU {ratio(one, other, wall):6.2f} by wall")
    shared, union = found[PEER]
    expected = shared / np.maximum(union, 1)
    largest = np.abs(shared / (union + EPSILON) - expected).max()
    print(f"  its 1e-7 in the denominator moves an IoU by at most {largest:.1e}; without it:")
    bad = 0
    for name in (OURS, PLAIN):
        different = np.flatnonzero(found[name] != expected)
        gap = np.abs(found[name] - expected)
        mean = 100 * (found[name].mean() - expected.mean())
        bad += not abs(mean) <= LIMIT
        print(f"  {name}: {len(table) - len(different)} of {len(table)} IoUs equal to the last digit, ", end="")
        print(f"largest difference {gap.max():.1e}, of mIoU {mean:+.6f} points", flush=True)
        for row in different:
            print(f"    {table.prompt[row]} of {table.annotation_id[row]}: {found[name][row]} for {expected[row]}")
    return bad


def warm_up(ours: SamVariant, predictor: SamPredictor, task: ImageTask) -> None:
    """One image and one prompt of each kind: whatever is allocated or imported late, is so before the clock starts."""
    loaded = load(ours, task)
    predictor.set_image(coco.read_image(task.path, task.size[1], task.size[0]))
    predictor.predict(box=np.array([0, 0, 9, 9]))
    (features,) = ours.encode_prepared([loaded.prepared])
    for batch in task.batches:
        ours.decode(features, batch.prompts[:1]).take(torch.zeros(1, dtype=torch.int64))


@torch.inference_mode()
def model_alone(ours: SamVariant, tasks: Sequence[ImageTask]) -> None:
    """Encode each image once, decode its prompts in our chunks and draw the chosen masks at low resolution."""
    for task in tasks:
        loaded = load(ours, replace(task, rles=[]))
        (features,) = ours.encode_prepared([loaded.prepared])
        for batch in task.batches:
            for start in range(0, len(batch.rows), ours.decode_chunk):
                candidates = ours.decode(features, batch.prompts[start : start + ours.decode_chunk])
                candidates.take(candidates.argmax())


def published(
    predictor: SamPredictor, tasks: Sequence[ImageTask], instances: pd.DataFrame, table: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the intersection and in the union of each prompt's best mask and its instance, in rows of `table`."""
    truths = {instance.annotation_id: instance for instance in instances.itertuples(index=False)}
    shared, union = np.zeros(len(table)), np.zeros(len(table))
    names = table["prompt"].to_numpy()
    for name in dict.fromkeys(names):
        for task in tasks:
            rows = [row for batch in task.batches for row in batch.rows if names[row] == name]
            predictor.set_image(coco.read_image(task.path, task.size[1], task.size[0]))
            for row in rows:
                prompt = table.iloc[row]
                truth = truths[prompt.annotation_id]
                mask = masks.decode_rle(truth.rle_size, truth.rle_counts)
                candidates, scores, _ = predictor.predict(
                    point_coords=None if prompt.points is None else prompt.points.reshape(-1, 2),
                    point_labels=prompt.labels,
                    box=prompt.box,
                    multimask_output=True,
                )
                best = candidates[scores.argmax()]
                shared[row] = np.logical_and(best, mask).sum()
                union[row] = np.logical_or(best, mask).sum()
    return shared, union


if __name__ == "__main__":
    command(main)
