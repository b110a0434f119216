"""How long a study takes on N nodes: its jobs, what each takes, and a simulation of their way through the queue.

Seconds of a job are measured where an earlier run left its benchmark file, estimated otherwise (resources.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sambench import resources
from sambench.detectors.registry import read_detectors
from sambench.jobs import EverythingJob

if TYPE_CHECKING:
    from sambench.config import Study

# Seconds of a job that are Snakemake's: it starts twice, in the batch script and in the step (docs/cluster.md).
OVERHEAD = 5.0
# Seconds before the first job is submitted: reading the workflow.
START = 6.0
# The plugin looks at its jobs at this interval, 10 s more after every look at which none had ended, up to 3 minutes.
POLLING, POLLING_STEP, POLLING_LIMIT = 20.0, 10.0, 180.0
# Estimates of stages without a formula, in seconds.
STAGE_SECONDS = {
    "scenes": 4.0,
    "index_dataset": 30.0,
    "prompts": 60.0,
    "merge_boxes": 30.0,
    "average_precision": 60.0,
    "efficiency": 20.0,
    "tables": 600.0,
    "results": 30.0,
}
ALL = -1  # the width of a job that has a node to itself


@dataclass(frozen=True)
class Task:
    """One job.

    width: the slots of one node that it takes (a slot is a GPU with its share of CPUs); ALL for the whole node, 0 for
    a local rule on the machine of Snakemake. after: the names of the jobs it waits for.
    """

    name: str
    stage: str
    seconds: float
    width: int = 1
    after: tuple[str, ...] = ()
    measured: bool = False


@dataclass(frozen=True)
class Schedule:
    """What a simulation says. wall in seconds; work: slot-seconds of the jobs alone; slots: of the whole cluster."""

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


def tasks(study: Study, results: Path | None = None) -> list[Task]:
    """Every job of a study as the rules make them, with what it waits for.

    results: a results folder with benchmark files of an earlier run; by default the study's own.
    """
    folder = (results or Path(study.results)) / "benchmarks"
    cards = read_detectors(study.config["detectors"])
    made: dict[str, Task] = {}

    def add(stage: str, name: str, after: Iterable[str] = (), width: int = 1, seconds: float | None = None) -> str:
        key = f"{stage}/{name}" if name else stage
        measured = read_seconds(folder / f"{key}.tsv")
        seconds = STAGE_SECONDS.get(stage, 0.0) if seconds is None else seconds
        made[key] = Task(key, stage, measured or seconds, width, tuple(after), measured is not None)
        return key

    generated = [name for name in study["datasets"] if "generator" in study.config["datasets"][name]]
    scenes = [add("scenes", "", width=0)] if generated else []
    index = {name: add("index_dataset", name, scenes if name in generated else ()) for name in study["datasets"]}

    def found_by(dataset: str, detector: str) -> str:
        """The file of a detector's boxes, merged of its shards."""
        merged = f"merge_boxes/{dataset}/{detector}"
        if merged not in made:
            shards = len(cards[detector].shard_files(study.results, dataset, study.shards(dataset)))
            images = study.images(dataset) / shards if cards[detector].runs(dataset) else 0
            seconds = resources.LOADING_SECONDS + resources.DETECTOR_SECONDS * images
            parts = [
                add("boxes", f"{dataset}/{detector}/{shard}-of-{shards}", [index[dataset]], seconds=seconds)
                for shard in range(shards)
            ]
            add("merge_boxes", f"{dataset}/{detector}", parts)
        return merged

    scored: list[str] = []
    ends: list[str] = []
    for job in study.jobs():
        prompts = f"prompts/{job.dataset}/{job.group}"
        if prompts not in made:
            add("prompts", f"{job.dataset}/{job.group}", [index[job.dataset]])
        seconds = resources.estimate(study, "segany", job._asdict())
        stem, shards = "/".join(job), study.shards(job.dataset)
        boxes = [found_by(job.dataset, detector) for detector in study.detectors(job.group)]
        shard_jobs = [
            add("segany", f"{stem}/{shard}-of-{shards}", [prompts, *boxes], seconds=seconds) for shard in range(shards)
        ]
        scored += shard_jobs
        if boxes:
            ends.append(add("average_precision", stem, [*shard_jobs, *boxes]))
    for dataset in study["datasets"]:
        detectors = [detector for group in study.detector_groups() for detector in study.detectors(group)]
        if detectors:
            ends.append(add("average_precision", f"{dataset}/boxes", [found_by(dataset, name) for name in detectors]))
        for variant in study["variants"]:
            for runtime in study["runtimes"]:
                wildcards = {"dataset": dataset, "variant": variant, "runtime": runtime}
                for stage, width in (("latency", ALL), ("throughput", ALL), ("agreement", 1)):
                    if stage in study["measures"]:
                        seconds = resources.estimate(study, stage, wildcards)
                        ends.append(add(stage, "/".join(wildcards.values()), [index[dataset]], width, seconds))
                for sampler in study["samplers"]:
                    everything = EverythingJob(dataset, variant, runtime, sampler)
                    seconds = resources.estimate(study, "segevery", everything._asdict())
                    for kind, width in (("quality", 1), ("time", ALL)):
                        name = f"{'/'.join(everything)}/{kind}"
                        ends.append(add("segevery", name, [index[dataset]], width, seconds))
    if "efficiency" in study["measures"]:
        networks = any(study.cards[variant].checkpoints for variant in study["variants"])
        reference = [study.config["efficiency"]["reference"]] if networks else []
        ends += [add("efficiency", variant) for variant in dict.fromkeys([*study["variants"], *reference])]
    ends.append(add("tables", "", scored))
    add("results", "", ends, width=0)
    return list(made.values())


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
            heapq.heappush(running, (now + overhead + task.seconds, task.name, node, width))
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
    return Schedule(now, useful, nodes * slots, sum(task.width != 0 for task in work), overhead)


def by_stage(work: Iterable[Task]) -> Mapping[str, tuple[int, float, float]]:
    """Of every stage on the cluster: the number of jobs, their seconds together, and the share that was measured."""
    sums: dict[str, tuple[int, float, float]] = {}
    for task in work:
        if task.width:
            jobs, seconds, known = sums.get(task.stage, (0, 0.0, 0.0))
            sums[task.stage] = (jobs + 1, seconds + task.seconds, known + task.seconds * task.measured)
    return {
        stage: (jobs, seconds, known / seconds if seconds else 0.0) for stage, (jobs, seconds, known) in sums.items()
    }


def report(work: Sequence[Task], nodes: Sequence[int], slots: int, overhead: float) -> str:
    """Two tables for the terminal: what the stages cost, and the wall time by number of nodes."""
    from tabulate import tabulate

    stages = [
        [stage, jobs, seconds / 3600, seconds / jobs, 100 * jobs * overhead / seconds if seconds else 0.0, 100 * known]
        for stage, (jobs, seconds, known) in by_stage(work).items()
    ]
    runs = [(count, simulate(work, count, slots, overhead=overhead)) for count in nodes]
    walls = [[count, run.wall / 3600, 100 * run.efficiency, 100 * run.overhead_share] for count, run in runs]
    longest = max(work, key=lambda task: task.seconds)
    over = [task for task in work if task.seconds > 60 * resources.LONGEST]
    headers = ["stage", "jobs", "hours", "seconds a job", "Snakemake, %", "measured, %"]
    return (
        tabulate(stages, headers, floatfmt=("", "d", ".1f", ".0f", ".1f", ".0f"))
        + "\n\n"
        + tabulate(walls, ["nodes", "wall hours", "efficiency, %", "Snakemake, %"], floatfmt=("d", ".2f", ".1f", ".1f"))
        + f"\n\nlongest job: {longest.name}, {longest.seconds / 3600:.1f} h"
        + (f"; {len(over)} jobs would not end within a day: split or drop them" if over else "")
    )
