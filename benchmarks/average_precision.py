"""What average precision costs: `sambench score` against pycocotools, and a set of LVIS's size streamed.

    python benchmarks/average_precision.py                      # 5,000 images, 500,000 masks, COCO: about 10 minutes
    python benchmarks/average_precision.py --images 500 --rounds 3
    python benchmarks/average_precision.py --rules lvis --images 20000 --detections 300     # 6 million masks

COCO: both evaluators read the same generated JSON files, each in a process of its own, in alternating rounds; their
figures must be equal to the bit. LVIS: images are made, scored and forgotten one by one in four shards, whose states
are then merged; how long the making took is told apart.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from sambench.evaluate.average_precision import Evaluator
from sambench.evaluate.rules import LVIS
from sambench.script import command

SIZE = (480, 640)  # height, width
OBJECTS, VARIANTS, SHARDS = 400, 16, 4
INSTANCES = 7  # an image

Image = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]


def main(
    *, rules: Literal["coco", "lvis"] = "coco", images: int = 5000, detections: int = 100, rounds: int = 1
) -> None:
    """Print wall time, CPU time and peak memory of every process, and the median ratio.

    Parameters
    ----------
    rules
        coco compares with pycocotools; lvis streams
    images
        how many
    detections
        of every image
    rounds
        alternating rounds (coco)
    """
    if rules == "lvis":
        report("stream", *in_process(stream, images, detections))
        return
    with tempfile.TemporaryDirectory() as folder:
        truth, results = Path(folder) / "truth.json", Path(folder) / "results.json"
        in_process(write, truth, results, images, detections)
        print(f"{images * detections} masks of {images} images, {results.stat().st_size / 2**20:.0f} MiB of JSON")
        ratios = []
        for _ in range(rounds):
            ours, *our_cost = in_process(ours_of, truth, results)
            theirs, *their_cost = in_process(pycocotools_of, truth, results)
            report("sambench", len(ours), *our_cost)
            report("pycocotools", len(theirs), *their_cost)
            if ours != theirs:
                raise SystemExit(f"the figures differ: {ours} and {theirs}")
            ratios.append([their_cost[i] / our_cost[i] for i in range(3)])
        wall, processor, memory = map(statistics.median, zip(*ratios, strict=True))
        print(f"pycocotools / sambench: {wall:.1f} in wall time, {processor:.1f} in CPU time, {memory:.1f} in memory")


def report(name: str, value: Any, wall: float, processor: float, memory: float) -> None:
    print(f"{name:12} {wall:7.1f} s wall {processor:7.1f} s CPU {memory:5.2f} GiB peak   {value}", flush=True)


def in_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float, float]:
    """What a function returns in a new process; wall and CPU seconds, without start and imports; peak GiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result: tuple[Any, float, float, float] = pool.apply(_measured, (function, arguments))
    return result


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    value = function(*arguments)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return value, wall, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours_of(truth: Path, results: Path) -> list[float]:
    from sambench.evaluate.score import score

    return list(score(truth, results, "segm").values())[:12]


def pycocotools_of(truth: Path, results: Path) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(truth))
        evaluation = COCOeval(reference, reference.loadRes(str(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def stream(images: int, detections: int) -> str:
    """Score a generated LVIS-like set, one image at a time."""
    categories = [{"id": i + 1, "name": str(i + 1), "frequency": "rcf"[i % 3]} for i in range(1203)]
    shards = [Evaluator(categories, "segm", LVIS) for _ in range(SHARDS)]
    making = 0.0
    source = generate(images, detections, 1203, federated=True)
    for number in range(images):
        start = time.process_time()
        made = next(source)
        making += time.process_time() - start
        shards[number % SHARDS].add(*made)
    first, *others = shards
    first.absorb(shard.state() for shard in others)
    ap = first.finish().statistics["ap"]
    return f"AP {ap:.4f} of {images * detections} masks; {making:.1f} s of the CPU time made them"


def write(truth: Path, results: Path, images: int, detections: int) -> None:
    """A generated COCO set as files."""
    document: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": str(i + 1)} for i in range(80)],
    }
    with results.open("w") as file:
        opening = "["
        for image, annotations, found in generate(images, detections, 80):
            document["images"].append(image)
            document["annotations"] += annotations
            for each in found:
                file.write(opening + json.dumps(each))
                opening = ", "
        file.write("]")
    truth.write_text(json.dumps(document))


def generate(images: int, detections: int, categories: int, federated: bool = False) -> Iterator[Image]:
    """Images with seven objects; half of the detections are near one of them."""
    rng = np.random.default_rng(0)
    shapes = [draw_object(rng) for _ in range(OBJECTS)]
    number = 0
    for image_id in range(1, images + 1):
        image: dict[str, Any] = {"id": image_id, "height": SIZE[0], "width": SIZE[1]}
        there, kinds = rng.integers(OBJECTS, size=INSTANCES), rng.integers(1, categories + 1, size=INSTANCES)
        if federated:
            image["neg_category_ids"] = rng.integers(1, categories + 1, size=5).tolist()
            image["not_exhaustive_category_ids"] = kinds[:1].tolist()
        annotations = []
        for shape, kind in zip(there, kinds, strict=True):
            number += 1
            rle, area = shapes[shape][0]
            annotations.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": int(kind),
                    "iscrowd": 0,
                    "area": area,
                    "segmentation": rle,
                }
            )
        near = rng.integers(INSTANCES, size=detections)
        hit = rng.random(detections) < 0.5
        chosen = np.where(hit, there[near], rng.integers(OBJECTS, size=detections))
        labels = np.where(hit, kinds[near], rng.integers(1, categories + 1, size=detections))
        variants, scores = rng.integers(1, VARIANTS, size=detections), rng.random(detections).round(5)
        yield (
            image,
            annotations,
            [
                {
                    "image_id": image_id,
                    "category_id": int(label),
                    "score": float(confidence),
                    "segmentation": shapes[shape][variant][0],
                }
                for shape, label, variant, confidence in zip(chosen, labels, variants, scores, strict=True)
            ],
        )


def draw_object(rng: np.random.Generator) -> list[tuple[dict[str, Any], int]]:
    """RLE and area of a blob, then of others like it, moved and stretched by about a tenth."""
    height, width = SIZE
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    centre = rng.uniform((30, 30), (width - 30, height - 30))
    radii = np.exp(rng.uniform(np.log(6), np.log(160), 2))
    outline = (1 + 0.15 * rng.normal(size=40)) * np.stack([np.cos(angles), np.sin(angles)])
    drawn = []
    for variant in range(VARIANTS):
        shift, stretch = (rng.normal(0, 0.1, (2, 2)) if variant else np.zeros((2, 2)))[:, :, None]
        corners = centre[:, None] + radii[:, None] * (shift + (1 + stretch) * outline)
        polygon = corners.T.clip(0, (width, height)).ravel().tolist()
        rle = coco_mask.merge(coco_mask.frPyObjects([polygon], height, width))
        drawn.append(({"size": [height, width], "counts": rle["counts"].decode()}, int(coco_mask.area(rle))))
    return drawn


if __name__ == "__main__":
    command(main)
