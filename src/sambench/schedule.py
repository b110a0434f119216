"""How long a study takes on N nodes: its jobs, what each takes, and a simulation of their way through the queue.

Seconds of a job are measured where an earlier run left its benchmark file, estimated otherwise (resources.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from sambench import resources
from sambench.bundles import RESOURCE, bundles
from sambench.detectors.registry import read_detectors
from sambench.jobs import mask_selections, parse_shard

if TYPE_CHECKING:
    from sambench.config import Study
    from sambench.detectors.registry import Detector
    from sambench.graph import PlannedJob

# Seconds of a job that are Snakemake's: it starts twice, in the batch script and in the step (docs/cluster-cost.md).
OVERHEAD = 5.0
# Seconds before the first job is submitted: reading the workflow.
START = 6.0
# The plugin looks at its jobs at this interval, 10 s more after every look at which none had ended, up to 3 minutes.
POLLING, POLLING_STEP, POLLING_LIMIT = 20.0, 10.0, 180.0
# Estimates of stages without a formula in resources.py, in seconds.
STAGE_SECONDS = {"prompts": 60.0, "average_precision": 60.0, "efficiency": 20.0, "parts": 60.0, "tables": 600.0}
OTHER_SECONDS = 30.0
PRECISION_SECONDS = 25e-6  # of a mask, 12-27 µs measured
ALL = -1  # the width of a job that has a node to itself


@dataclass(frozen=True)
class Task:
    """One job.

    width: the slots of one node that it takes (a slot is a GPU with its share of CPUs); ALL for the whole node, 0 for
    a local rule on the machine of Snakemake. after: the names of the jobs it waits for. bundle: the name of what it is
    submitted with, see `as_submitted`. minutes: its limit. starts: how often Snakemake starts for it.
    """

    name: str
    stage: str
    seconds: float
    width: int = 1
    after: tuple[str, ...] = ()
    measured: bool = False
    gpu: bool = False
    bundle: str = ""
    minutes: int = 0
    starts: int = 1


@dataclass(frozen=True)
class Schedule:
    """What a simulation says.

    wall in seconds; work: slot-seconds of the jobs alone; slots: of the whole cluster; jobs: those of Snakemake.
    """

    wall: float
    work: float
    slots: int
    jobs: int
    overhead: float

    @property
    def efficiency(self) -> float:
        """The share of the cluster's time that is work: the rest is idling and Snakemake."""
        return self.work / (self.slots * self.wall) if self.wall else 0.0

    @property
    def overhead_share(self) -> float:
        """What Snakemake costs in proportion to the work."""
        return self.jobs * self.overhead / self.work if self.work else 0.0


def tasks(study: Study, jobs: Iterable[PlannedJob], results: Path | None = None) -> list[Task]:
    """What planned jobs take and wait for: a job waits for those that make its inputs.

    results: a results folder with benchmark files of an earlier run; by default the study's own. The stage of a job is
    the first part of its benchmark file's path. A job without one is local and costs nothing.
    """
    folder = (results or Path(study.results)) / "benchmarks"
    detectors = read_detectors(study.plain["detectors"])
    named = {_name(study, job): job for job in jobs}
    compiled: set[tuple[str, str]] = set()  # runtimes, by bundle
    makers = {file: name for name, job in named.items() for file in job.outputs}
    made = []
    for name, job in named.items():
        after = tuple(dict.fromkeys(makers[file] for file in job.inputs if file in makers))
        if job.benchmark is None:
            made.append(Task(name, job.rule, 0.0, 0, after))
            continue
        stage = name.partition("/")[0]
        measured = read_seconds(folder / f"{name}.tsv")
        bundle = str(job.resources.get(RESOURCE, ""))
        cold = (bundle, job.wildcards.get("runtime", "")) not in compiled if bundle else None
        compiled.add((bundle, job.wildcards.get("runtime", "")))
        seconds = _estimate(study, detectors, stage, job.wildcards, cold) if measured is None else measured
        gpu, minutes = bool(job.resources.get("gpu")), int(job.resources.get("runtime", 0))
        made.append(Task(name, stage, seconds, _width(job), after, measured is not None, gpu, bundle, minutes))
    return made


def as_submitted(work: Sequence[Task], longest: int) -> list[Task]:
    """One task per job of the cluster: clocks of a variant on a data set are one (bundles.py).

    longest: minutes of such a job.
    """
    made = bundles(work, lambda task: task.bundle, lambda task: task.minutes, longest)
    names = {task.name: parts[0].name for parts in made for task in parts}
    return [_one(parts, tuple(dict.fromkeys(names[name] for task in parts for name in task.after))) for parts in made]


def _one(parts: Sequence[Task], after: tuple[str, ...]) -> Task:
    if len(parts) == 1:
        return replace(parts[0], after=after)
    seconds, measured = sum(task.seconds for task in parts), all(task.measured for task in parts)
    minutes, starts = sum(task.minutes for task in parts), len(parts)
    return replace(
        parts[0], stage="clocks", seconds=seconds, after=after, measured=measured, minutes=minutes, starts=starts
    )


def _name(study: Study, job: PlannedJob) -> str:
    """The path of a job's benchmark file below its folder, without suffix; else its first output, or its rule."""
    if job.benchmark is None:
        return job.outputs[0] if job.outputs else job.rule
    return str(PurePath(job.benchmark).relative_to(PurePath(study.results, "benchmarks")).with_suffix(""))


def _width(job: PlannedJob) -> int:
    """A job with a clock asks SLURM for a node of its own."""
    return ALL if "--exclusive" in str(job.resources.get("slurm_extra", "")) else 1


def _estimate(
    study: Study, detectors: Mapping[str, Detector], stage: str, wildcards: Mapping[str, str], cold: bool | None
) -> float:
    if stage in resources.ESTIMATED:
        return resources.estimate(study, stage, wildcards, cold=cold)
    if stage == "boxes":
        runs = detectors[wildcards["detector"]].runs(wildcards["dataset"])
        images = study.images(wildcards["dataset"]) / parse_shard(wildcards["shard"])[1]
        return resources.LOADING_SECONDS + resources.DETECTOR_SECONDS * images * runs
    if stage == "average_precision" and "group" in wildcards:
        found = study.detectors(wildcards["group"], wildcards["dataset"])
        rules = mask_selections(study["selections"])
        boxes = study.images(wildcards["dataset"]) * resources.boxes_per_image(study, wildcards["dataset"])
        return OTHER_SECONDS + PRECISION_SECONDS * boxes * len(found) * len(rules)
    return STAGE_SECONDS.get(stage, OTHER_SECONDS)


def read_seconds(benchmark: Path) -> float | None:
    """The seconds of one of Snakemake's benchmark files; None when it is not there."""
    try:
        header, first, *_ = benchmark.read_text(encoding="utf-8").splitlines()
        return float(first.split("\t")[header.split("\t").index("s")])
    except (OSError, ValueError):
        return None


def simulate(
    work: Sequence[Task], nodes: int, slots: int = 1, *, overhead: float = OVERHEAD, polling: float = POLLING
) -> Schedule:
    """List scheduling, longest first, with what Snakemake adds.

    slots: of each node. A job starts as soon as a node has room for it; what waits for it is submitted when Snakemake
    next looks. Raises ValueError when jobs wait for one another or for what is not there.
    """
    waiting = {task.name: set(task.after) for task in work}
    followers: dict[str, list[str]] = {}
    for task in work:
        for name in task.after:
            followers.setdefault(name, []).append(task.name)
    by_name = {task.name: task for task in work}
    free = [slots] * nodes
    queue: list[tuple[float, str]] = []  # submitted: longest first
    running: list[tuple[float, str, int, int]] = []  # (end, name, node or -1, width)
    ended: list[str] = []  # on the cluster, and Snakemake does not know yet
    now, look, interval, left = START, START + polling, polling, len(work)

    def submit(names: Iterable[str]) -> None:
        for name in names:
            task = by_name[name]
            if task.width == 0:
                heapq.heappush(running, (now + task.seconds, name, -1, 0))
            else:
                heapq.heappush(queue, (-task.seconds, name))

    def finish(names: Iterable[str]) -> None:
        nonlocal left
        for name in names:
            left -= 1
            for follower in followers.get(name, ()):
                waiting[follower].discard(name)
                if not waiting[follower]:
                    submit([follower])

    def start() -> None:
        later = []
        while queue and any(free):
            entry = heapq.heappop(queue)
            task = by_name[entry[1]]
            width = slots if task.width == ALL else min(task.width, slots)
            node = max(range(nodes), key=free.__getitem__)
            if free[node] < width:
                later.append(entry)
                continue
            free[node] -= width
            heapq.heappush(running, (now + overhead * task.starts + task.seconds, task.name, node, width))
        for entry in later:
            heapq.heappush(queue, entry)

    submit([name for name, needs in waiting.items() if not needs])
    start()
    while left:
        if not running and not ended:
            raise ValueError(
                f"jobs that wait for ever: {', '.join(sorted(n for n, needs in waiting.items() if needs))}"
            )
        if running and running[0][0] <= look:
            now, name, node, width = heapq.heappop(running)
            if node < 0:
                finish([name])
            else:
                free[node] += width
                ended.append(name)
        else:
            now = look
            interval = polling if ended else min(interval + POLLING_STEP, POLLING_LIMIT)
            look += interval
            finish(ended)
            ended = []
        start()
    useful = sum(task.seconds * (slots if task.width == ALL else task.width) for task in work)
    return Schedule(now, useful, nodes * slots, sum(task.starts for task in work if task.width), overhead)


def _gpus(slots: int) -> str:
    return "one GPU" if slots == 1 else f"{slots} GPUs"


class StageCost(NamedTuple):
    """What a stage costs on the cluster. starts: of Snakemake; measured: the share of the seconds."""

    jobs: int
    seconds: float
    measured: float
    starts: int


def by_stage(work: Iterable[Task]) -> Mapping[str, StageCost]:
    """What every stage on the cluster costs."""
    stages: dict[str, list[Task]] = {}
    for task in work:
        if task.width:
            stages.setdefault(task.stage, []).append(task)
    made = {}
    for stage, parts in stages.items():
        seconds, known = sum(task.seconds for task in parts), sum(task.seconds * task.measured for task in parts)
        share = known / seconds if seconds else 0.0
        made[stage] = StageCost(len(parts), seconds, share, sum(task.starts for task in parts))
    return made


def gpu_hours(work: Iterable[Task], slots: int) -> tuple[float, float]:
    """Hours in which jobs compute on a GPU, and those that are billed: a job that runs alone holds all of its node."""
    used = [(task.seconds / 3600, slots if task.width == ALL else task.width) for task in work if task.gpu]
    return sum(hours for hours, _ in used), sum(hours * width for hours, width in used)


def report(work: Sequence[Task], nodes: Sequence[int], slots: int, overhead: float) -> str:
    """Two tables for the terminal, what the stages cost and the wall time by number of nodes, and the hours of GPUs."""
    from tabulate import tabulate

    stages = [
        [
            stage,
            cost.jobs,
            cost.seconds / 3600,
            cost.seconds / cost.jobs,
            100 * cost.starts * overhead / cost.seconds if cost.seconds else 0.0,
            100 * cost.measured,
        ]
        for stage, cost in by_stage(work).items()
    ]
    runs = [(count, simulate(work, count, slots, overhead=overhead)) for count in nodes]
    walls = [[count, run.wall / 3600, 100 * run.efficiency, 100 * run.overhead_share] for count, run in runs]
    longest = max(work, key=lambda task: task.seconds)
    named = longest.name if longest.starts == 1 else f"clocks of {longest.bundle}"
    over = [task for task in work if task.seconds > 60 * resources.LONGEST]
    used, billed = gpu_hours(work, slots)
    headers = ["stage", "jobs", "hours", "seconds per job", "Snakemake, %", "measured, %"]
    return (
        tabulate(stages, headers, floatfmt=("", "d", ".1f", ".0f", ".1f", ".0f"))
        + "\n\n"
        + tabulate(walls, ["nodes", "wall hours", "efficiency, %", "Snakemake, %"], floatfmt=("d", ".2f", ".1f", ".1f"))
        + f"\n\nGPU hours: {used:.1f} computed, {billed:.1f} billed on nodes of {_gpus(slots)}"
        + f"\nlongest job: {named}, {longest.seconds / 3600:.1f} h"
        + (f"; {len(over)} jobs would not end within a day: split or drop them" if over else "")
    )
