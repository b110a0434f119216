"""What a study says on the terminal: one line per finished job, with what it found, how far all is and what is left.

Used by the logger plugin `terminal` and by the Snakefile, which tells it the jobs that will run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sambench.study import Study

SMALL = 4.0  # seconds of a job without an estimate of its own: a table, a figure, a page
FAR = 3.0  # how far the pace of one kind of job says something about another
BAR = 12  # cells


@dataclass(frozen=True)
class Expected:
    """A job that will run. rule and variant: what its pace is learnt from; seconds: estimated."""

    rule: str
    variant: str
    seconds: float


@dataclass
class Progress:
    """How far a study is, by what its jobs were expected to take and what finished ones took. Times in seconds."""

    expected: dict[int, Expected] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    took: dict[int, float] = field(default_factory=dict)
    start: float | None = None

    def begin(self, job: int, now: float) -> None:
        self.start = now if self.start is None else self.start
        self.begun[job] = now

    def finish(self, job: int, now: float) -> float:
        """The seconds that a job took."""
        self.took[job] = now - self.begun.get(job, now)
        return self.took[job]

    def _pace(self, job: Expected) -> float:
        """Seconds per expected second: of the same rule and variant, else of the rule, else of all finished jobs."""
        done = [(self.expected[number], seconds) for number, seconds in self.took.items() if number in self.expected]
        for alike in (
            [(e, s) for e, s in done if (e.rule, e.variant) == (job.rule, job.variant)],
            [(e, s) for e, s in done if e.rule == job.rule],
        ):
            if alike:
                return sum(s for _, s in alike) / max(sum(e.seconds for e, _ in alike), 1e-9)
        if job.seconds == SMALL:
            return 1.0  # next to nothing of it is computing
        others = statistics.median([s / max(e.seconds, 1e-9) for e, s in done]) if done else 1.0
        return min(max(others, 1 / FAR), FAR)

    def left(self, now: float) -> float:
        """Seconds that the rest will take, at as many jobs at a time as so far."""
        if self.start is None or now <= self.start:
            return 0.0
        rest = 0.0
        for number, job in self.expected.items():
            if number not in self.took:
                whole = job.seconds * self._pace(job)
                rest += max(whole - (now - self.begun[number] if number in self.begun else 0.0), 0.05 * whole)
        running = sum(now - begun for number, begun in self.begun.items() if number not in self.took)
        at_once = (sum(self.took.values()) + running) / (now - self.start)
        return rest / max(at_once, 1.0)

    def line(self, what: str, now: float) -> str:
        """A finished job in one line."""
        left = self.left(now)
        spent = now - (self.start if self.start is not None else now)
        share = 1.0 if len(self.took) >= len(self.expected) else spent / max(spent + left, 1e-9)
        bar = "█" * int(share * BAR)
        count = f"{len(self.took)}/{max(len(self.expected), len(self.took))}"
        rest = f"{clock(left)} left" if len(self.took) < len(self.expected) else f"{clock(spent)} in all"
        return f"{bar:░<{BAR}} {count}  {what}; {rest}"


PROGRESS = Progress()


def plan(study: Study, jobs: Iterable[Any], number: Any) -> None:
    """Note what will run. jobs: those of Snakemake's graph that need to run; number: what gives a job its id."""
    from sambench.graph import PlannedJob
    from sambench.resources import ESTIMATED
    from sambench.schedule import tasks

    real = [job for job in jobs if job.output]  # the others are targets
    planned = [
        PlannedJob(job.rule.name, dict(job.wildcards_dict), [], [str(file) for file in job.output], job.benchmark, {})
        for job in real
    ]
    for job, known, task in zip(real, planned, tasks(study, planned), strict=True):
        # Other estimates are meant for the largest data sets.
        seconds = task.seconds if task.measured or task.stage in (*ESTIMATED, "boxes", "efficiency") else SMALL
        PROGRESS.expected[number(job)] = Expected(known.rule, known.wildcards.get("variant", ""), seconds or SMALL)


def clock(seconds: float) -> str:
    """Such as 0:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def finding(rule: str, wildcards: Mapping[str, str], outputs: Sequence[str], seconds: float) -> str:
    """What a job was and what it found, such as `segany mobilesam scenes: mIoU 87.3 (box), 112 s`."""
    shown = {name: value for name, value in wildcards.items() if not (name == "shard" and value == "0-of-1")}
    stage = shown.pop("measure", rule.partition("_shard")[0].removesuffix("_group").removesuffix("_files"))
    stage, names = stage.replace("_", " "), shown.values()
    found = _result(rule, outputs)
    return f"{' '.join([stage, *names])}: {', '.join([*([found] if found else []), f'{seconds:.0f} s'])}"


def _result(rule: str, outputs: Sequence[str]) -> str:
    """What the first file of a job says, in a few words; empty for most."""
    try:
        if rule == "retrieve_files":
            lines = Path(outputs[0]).read_text(encoding="utf-8").splitlines()[1:]
            missing = [line.rpartition(": ")[0] for line in lines if line.endswith(": missing")]
            return f"no {', '.join(missing)}" if missing else "here"
        if rule == "segany_shard":
            return miou(next(file for file in outputs if "/segany/" in f"/{file}"))
        if rule == "index":
            import pyarrow.parquet

            images, instances = (pyarrow.parquet.read_metadata(file).num_rows for file in outputs[:2])
            return f"{images} images, {instances} instances"
    except (OSError, ValueError, StopIteration, KeyError):
        pass
    return ""


def miou(file: str) -> str:
    """Mean IoU in per cent of the first prompt set of a file of results, or why it has none."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file, columns=["prompt", "iou", "status"]).to_pandas()
    for prompt in dict.fromkeys(table["prompt"]):
        ious = table.loc[table["prompt"] == prompt, "iou"].dropna()
        if len(ious):
            return f"mIoU {100 * ious.mean():.1f} ({prompt})"
    return ", ".join(dict.fromkeys(table["status"]))
