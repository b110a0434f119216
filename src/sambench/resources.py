"""What a job requests from a cluster: memory and minutes by stage, by variant (from its card) and by attempt.

The seconds are estimates, made to set time limits and to order and size jobs; measurements replace them where there
are some (see schedule.py). No network library is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sambench.prompt_names import is_box
from sambench.settings import CLOCKS
from sambench.variants.cards import Card

if TYPE_CHECKING:
    from sambench.config import Study

# Two nested Snakemakes (260 MB on a cluster), Python, torch and the tables of a large dataset.
BASE_MB = 4000
# Parameters are in memory twice in float32 while a checkpoint is loaded (8 bytes); the rest is activations on a CPU.
MB_PER_MILLION_PARAMETERS = 12
# Of stages that hold no network.
STAGE_MB = {
    "index": 8000,
    "prompts": 8000,
    "boxes": 12000,
    "boxes_merge": 8000,
    "average_precision": 12000,
    "parts": 6000,
    "tables": 16000,
}

# Minutes that a limit never falls below: loading over a busy network file system takes its time.
SHORTEST = 20
STAGE_MINUTES = {
    "index": 60,
    "prompts": 60,
    "boxes": 240,
    "boxes_merge": 60,
    "average_precision": 60,
    "efficiency": 60,
    "parts": 60,
    "volumes": 240,
    "gallery": 60,
    "tables": 120,
}
# A limit is so many times the estimate; a retry gets as much again.
MARGIN = 4
LONGEST = 24 * 60  # minutes; what most clusters allow
NICE_STEPS = 100

# Estimates, in floating-point operations per second. GPU: SAM-H at 2.78 images/s and SAM-B at 12.1 on an A100 in
# float32, published by segment-anything-fast, are 15e12 and 9e12. CPU: SAM-B took 8.9 s on two cores, 84e9.
GPU_FLOPS = 10e12
CPU_FLOPS = 80e9
DETECTOR_SECONDS = 0.1  # of an image on a GPU
LOADING_SECONDS = 30.0  # imports and weights
COMPILING_SECONDS = 600.0
CACHED_SECONDS = 60.0  # of a network whose kernels are in the compiler's cache: it is traced again
PROMPT_SECONDS = {"gpu": 0.002, "cpu": 0.1}  # decode, enlarge and score one prompt; 0.05-0.1 s measured on a CPU
# What the estimates take for granted, in words.
ASSUMED = (
    f"assumed: a GPU at {GPU_FLOPS / 1e12:.0f} TFLOP/s in float32 (SAM-B and SAM-H on an A100 reach 9 and 15), "
    f"{1000 * PROMPT_SECONDS['gpu']:.0f} ms per prompt; without one {CPU_FLOPS / 1e9:.0f} GFLOP/s (two cores), "
    f"{1000 * PROMPT_SECONDS['cpu']:.0f} ms per prompt"
)
# Baselines, one core, measured on 146 COCO images (docs/cluster-cost.md); others as the first.
BASELINE_PROMPT_SECONDS = {"box_fill": 0.004, "ground_truth": 0.004, "grabcut": 0.1}
# Per image: COCO has 7.4 instances, LVIS 12.4. A detector gives 100 boxes there and 300 here; most have low scores. Of
# those of LVIS a quarter is judged at most, as far as we know (docs/detectors.md).
INSTANCES, DETECTIONS, LVIS_DETECTIONS, LVIS_JUDGED = 10, 100, 300, 75


# Stages whose jobs differ so much that each is estimated.
ESTIMATED = ("segany", "segevery", *CLOCKS, "agreement", "interactive", "corruptions")


def flops(card: Card) -> float:
    """Roughly the operations of one image: two per parameter and patch of 16x16 pixels.

    It is within a factor of three of what the efficiency stage counts for every variant (a test compares them).
    """
    patches = ((card.input_size or 1024) / 16) ** 2
    return 2e6 * (card.params_m or 100.0) * patches


def on_gpu(study: Study, variant: str, runtime: str) -> bool:
    """Whether the job of a variant asks for a GPU: a network does, unless its runtime is bound to the CPU."""
    return bool(study.cards[variant].checkpoints) and study.settings.runtimes[runtime].device != "cpu"


def memory_mb(stage: str, card: Card | None, attempt: int = 1) -> int:
    """Memory of a job in MB; twice as much at every further attempt."""
    need = STAGE_MB.get(stage, BASE_MB)
    if card is not None and card.checkpoints:
        need += round(MB_PER_MILLION_PARAMETERS * (card.params_m or 100.0))
    return int(need * 2 ** (attempt - 1))


def minutes(seconds: float, attempt: int = 1, longest: int | None = None) -> int:
    """The time limit for an estimate, in tens of minutes; twice as much at every further attempt.

    longest: in the place of LONGEST.
    """
    limit = max(SHORTEST, 10 * math.ceil(MARGIN * seconds / 600))
    return int(min(longest or LONGEST, limit * 2 ** (attempt - 1)))


def stage_minutes(stage: str, attempt: int = 1, longest: int | None = None) -> int:
    """The time limit of a stage whose jobs are much alike."""
    return int(min(longest or LONGEST, STAGE_MINUTES[stage] * 2 ** (attempt - 1)))


def estimate(study: Study, stage: str, wildcards: Mapping[str, str], *, cold: bool | None = None) -> float:
    """Estimated seconds of one job of a stage of ESTIMATED.

    wildcards: dataset, variant, runtime and group (segany) or sampler (segevery), as in the name of the result, and the
    shard. cold: whether a runtime that compiles finds nothing in the compiler's cache; for a limit, every job may find
    nothing. By default the shards of segany after the first find something.
    """
    variant, runtime = wildcards["variant"], wildcards["runtime"]
    card, gpu = study.cards[variant], on_gpu(study, variant, runtime)
    encode = flops(card) / (GPU_FLOPS if gpu else CPU_FLOPS) if card.checkpoints else 0.0
    prompt = PROMPT_SECONDS["gpu" if gpu else "cpu"]
    if not card.checkpoints:
        prompt = BASELINE_PROMPT_SECONDS.get(variant, BASELINE_PROMPT_SECONDS["box_fill"])
    how = study.settings.runtimes[runtime]
    compiled = bool(how.compile)
    plain = (how.dtype or "float32") == "float32" and (how.attention or "native") == "native" and not compiled
    if cold is None:
        cold = stage != "segany" or wildcards.get("shard", "0").partition("-")[0] == "0"
    start = LOADING_SECONDS + (COMPILING_SECONDS if cold else CACHED_SECONDS) * compiled
    if card.plain_only and not plain:
        return LOADING_SECONDS  # a row that says so
    if stage == "segany":
        images = study.images(wildcards["dataset"]) / study.shards(wildcards["dataset"])
        return start + images * (
            encode + prompts_per_image(study, card, wildcards["dataset"], wildcards["group"]) * prompt
        )
    if stage == "segevery":
        images = study.settings.segevery.images + study.settings.segevery.warmup
        return start + images * (encode + points(card, wildcards["sampler"]) * prompt)
    settings = study.plain[stage]  # of a measure
    if stage == "interactive":
        images = settings["images"] or study.images(wildcards["dataset"])
        answers = INSTANCES * len(settings["protocols"]) * (settings["clicks"] + 1)
        return start + images * (encode + answers * prompt)
    if stage == "corruptions":
        images = settings["images"] or study.images(wildcards["dataset"])
        changes = len(settings["names"]) * len(settings["severities"]) + len(settings["jpeg_quality"])
        changes += 1 + len(settings["scale"])
        return start + images * changes * (encode + INSTANCES * len(settings["prompts"]) * prompt)
    if stage == "energy":
        images = settings["images"] or study.images(wildcards["dataset"])
        once = max(settings["min_seconds"], images * (encode + INSTANCES * prompt))
        return start + settings["idle_seconds"] + once
    if "batches" in settings:
        images = settings["images"] or study.images(wildcards["dataset"])
        once = max(settings["min_seconds"], images * (encode + INSTANCES * prompt))
        return start + len(settings["batches"]) * once
    if stage == "agreement":
        return 2 * start + 2 * settings["images"] * (encode + INSTANCES * prompt)
    return start + settings["min_seconds"] + settings["images"] * (encode + settings["boxes"] * prompt)


def niceness(study: Study, stage: str, wildcards: Mapping[str, str]) -> str:
    """The option of sbatch that starts longer jobs first: a step per minute, too few to matter to other users."""
    return f"--nice={NICE_STEPS - min(NICE_STEPS, round(estimate(study, stage, wildcards) / 60))}"


def prompts_per_image(study: Study, card: Card, dataset: str, group: str) -> int:
    """Prompts of a group that a variant takes on an average image; k clicks are k decodes, fewer are among them."""
    total, clicks = 0, 0
    for name in study.settings.prompt_groups[group]:
        kind, _, count = name.partition("_")
        if name in study.settings.detectors:
            if not study.wanted(name, dataset):
                continue
            total += boxes_per_image(study, dataset)
        elif is_box(name) or "point" in card.prompts:
            clicks = max(clicks, int(count)) if kind == "click" else clicks
            total += INSTANCES * (kind != "click")
    return total + INSTANCES * clicks


def boxes_per_image(study: Study, dataset: str) -> int:
    """Boxes of one detector on an average image that are decoded."""
    of_lvis = LVIS_DETECTIONS if study.settings.average_precision.keep_unjudged else LVIS_JUDGED
    return of_lvis if dataset.startswith("lvis") else DETECTIONS


def points(card: Card, sampler: str) -> int:
    """Prompts that a sampler of segment everything decodes on an image, none when the variant takes no points."""
    kind, _, side = sampler.partition("_")
    if kind in ("grid", "hierarchical") and "point" not in card.prompts:
        return 0
    if kind == "grid":
        return int(side) ** 2
    return int(side or 32) ** 2 // 2 if kind == "hierarchical" else DETECTIONS
