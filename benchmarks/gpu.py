"""What a GPU gives: all figures that docs estimate without one, in one command of at most ten minutes.

    make bench-gpu                                    (or: python benchmarks/gpu.py --device cuda)
    python benchmarks/gpu.py --device cpu --quick     to see that it runs, where there is no GPU

On generated scenes and with random weights, since neither changes a time: images per second of SAM-H as published and
with `fast`; milliseconds per prompt of the decoders at 64 and 300 boxes; the share of the model alone in our loop, and
of the device's kernels in its wall time; segment everything against segment-anything's own generator, in turns.
Prints one line per figure and writes them as JSON to `--output`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import generator
import peer
import torch
from segment_anything import SamAutomaticMaskGenerator
from torch.profiler import ProfilerActivity, profile

from sambench.datasets import coco, scenes
from sambench.device import synchronize
from sambench.evaluate.filters import Settings
from sambench.evaluate.samplers import GRID, Sampler
from sambench.evaluate.segany import ChosenIous, evaluate
from sambench.evaluate.segany import plan as plan_prompts
from sambench.measure import throughput
from sambench.measure.batches import answer, plan
from sambench.parity.models import load_cards
from sambench.prompts import make_prompts
from sambench.provenance import cpu_name
from sambench.script import command
from sambench.variants.base import OFFICIAL, Runtime, Variant
from sambench.variants.cards import find_card
from sambench.variants.registry import build
from sambench.variants.sam import SamVariant

FAST = {"dtype": "bfloat16", "attention": "sdpa", "compile": True}
SEED = 20251  # of the random weights of segment everything


def main(*, device: str = "cuda", quick: bool = False, output: Path | None = None) -> None:
    """Measure and print.

    Parameters
    ----------
    device
        cuda, cuda:N, or cpu to try the command
    quick
        MobileSAM only, few images and boxes, a coarse grid
    output
        JSON file for the figures
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("bench-gpu: expected a GPU that torch can use, found none; --device cpu --quick tries the command")
    large, small = ("mobilesam", ("mobilesam",)) if quick else ("sam_vit_h", ("sam_vit_b", "mobilesam"))
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name(),
        "torch": torch.__version__,
    }

    def tell(name: str, value: float, unit: str) -> None:
        figures[name] = value
        print(f"{name:<56} {value:10.3f} {unit}", flush=True)

    with tempfile.TemporaryDirectory() as folder, clock(tell):
        scenes.generate(Path(folder))
        index = coco.index(Path(folder) / "annotations.json", Path(folder) / "images", image_limit=2 if quick else None)
        for name, fields in {"as published": {"decoder": OFFICIAL}, "eager": {}, "fast": FAST}.items():
            if quick and name == "fast":
                continue  # compiling for a CPU needs a compiler, and minutes
            variant = random_variant(large, Runtime(name, device=device, **fields))
            for row in rates(variant, index, [1] if quick else [1, 8, 32], seconds=1 if quick else 8):
                tell(f"{large}, {name}, batch {row['batch']}: images", row["images"] / row["seconds"], "per s")
            del variant
        for name in small:
            for decoder in ("fast", OFFICIAL):
                variant = random_variant(name, Runtime(device=device, decoder=decoder))
                for boxes in (8,) if quick else (64, 300):
                    tell(f"{name}, {decoder} decoder, {boxes} boxes: decoding", decoding(variant, boxes), "ms per box")
        for name in small:
            variant = random_variant(name, Runtime(device=device))
            share, busy = floor(variant, index, rounds=1 if quick else 3)
            tell(f"{name}: model alone / our loop", share, "(1: nothing in the way)")
            if busy:
                tell(f"{name}: the device is idle", 100 * (1 - busy), "% of the time")
        if not quick:
            pixels = coco.read_image(index.images.path[0], int(index.images.width[0]), int(index.images.height[0]))
            result = everything(pixels, device)
            for stage, ratio in result["ratios"].items():
                tell(f"segment everything 32 x 32, sam_vit_b, {stage}: official / ours", ratio, "times")
            tell("segment everything: masks that are the same", result["masks"]["identical"], "")
    if output:
        output.write_text(json.dumps(figures, indent=1) + "\n")


@contextmanager
def clock(tell: Callable[[str, float, str], None]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    tell("in all", time.perf_counter() - start, "s")


def random_variant(name: str, runtime: Runtime) -> Variant:
    torch.manual_seed(0)
    return build(find_card(load_cards(), name), runtime, random_weights=True)


def rates(variant: Variant, index: coco.Index, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Images per second with their boxes, by batch size, as the stage `throughput` measures them."""
    tasks = plan(index.images, index.instances)
    device = torch.device(variant.runtime.device)
    rows = throughput.measure(variant, tasks, device, batches=batches, memory_limit_mib=None, min_seconds=seconds)
    return rows[rows["status"] == "ok"].to_dict("records")


def decoding(variant: Variant, count: int) -> float:
    """Milliseconds per box, median of seven rounds, in the chunks that studies use."""
    image = torch.zeros(480, 640, 3, dtype=torch.uint8).numpy()
    corners = torch.rand(count, 2) * torch.tensor([320.0, 240.0])
    boxes = torch.cat([corners, corners + torch.tensor([160.0, 120.0])], dim=1).numpy()
    (features,) = variant.encode([image])
    times = []
    for _ in range(8):
        synchronize()
        start = time.perf_counter()
        answer(variant, features, boxes)
        synchronize()
        times.append(1e3 * (time.perf_counter() - start) / count)
    return statistics.median(times[1:])


def floor(variant: Variant, index: coco.Index, rounds: int) -> tuple[float, float]:
    """The time of the model alone over that of our loop, in turns; and the share of it in which kernels run."""
    assert isinstance(variant, SamVariant)
    table = make_prompts("gpu", index.instances, peer.PROMPTS)
    tasks = plan_prompts(index.images, index.instances, table)

    def ours() -> None:
        evaluate(variant, tasks, ChosenIous(len(table)))

    def seconds(action: Callable[[], None]) -> float:
        synchronize()
        start = time.perf_counter()
        action()
        synchronize()
        return time.perf_counter() - start

    ours()
    ratios = [seconds(lambda: peer.model_alone(variant, tasks)) / seconds(ours) for _ in range(rounds)]
    if not variant.runtime.device.startswith("cuda"):
        return statistics.median(ratios), 0.0
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        elapsed = seconds(ours)
    kernels = sum(event.self_device_time_total for event in trace.key_averages()) / 1e6
    return statistics.median(ratios), kernels / elapsed


def everything(pixels: Any, device: str) -> dict[str, Any]:
    """Segment everything with SAM-B on a grid of 32 x 32 against the official generator: seconds, ratios, masks."""
    variant = generator.random_sam(Runtime(device=device), "vit_b", SEED)
    settings = Settings(
        pred_iou_thresh=0.01, stability_score_thresh=0.65, stability_score_offset=0.05, box_nms_thresh=1.0
    )
    official = SamAutomaticMaskGenerator(
        generator.official_model(variant.module.state_dict(), "vit_b", device),
        points_per_side=32,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
        output_mode="coco_rle",
    )
    return generator.compare(variant, official, pixels, Sampler(GRID, 32), settings, 1, time.perf_counter)


if __name__ == "__main__":
    command(main)
