"""What becomes of SLURM jobs that do not end by themselves: preempted, on a failed node, or gone from the queue.

Snakemake's plugin waits for ever for a job that was preempted without requeueing, and for one that the controller has
forgotten (MinJobAge) where accounting does not answer. Here a job that has left the queue has ended: its output and,
where there is accounting, its state say how. A preempted job and one whose node failed go back into the queue without
using up a retry. Why a job failed is kept, so that memory grows after a lack of memory and time after a time-out only.

Jobs of one bundle (bundles.py) are one SLURM job, whose script runs their commands one after the other, whatever
becomes of each. Its limits are the sum of their times and the most of their memory.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sambench.bundles import RESOURCE, bundles

BACK = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")  # not the job's fault
MOST_SUBMISSIONS = 25  # of one job for such reasons: a cluster on which it can never run to its end
FAILED = ("CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "ERROR")
DONE = "COMPLETED"
LONGEST_PAUSE = 60  # seconds between two looks at the queue
MEMORY, TIME = "memory", "time"
WANTS = {"OUT_OF_MEMORY": MEMORY, "TIMEOUT": TIME, "DEADLINE": TIME}
# What a job's log or the states of its steps say.
SIGNS = {
    MEMORY: ("oom_kill", "oom-kill", "Out Of Memory", "OUT_OF_MEMORY"),
    TIME: ("DUE TO TIME LIMIT", "TIMEOUT"),
}
NEW_SECONDS = 60  # so long a job may be absent from the queue that was never seen in it
SHORT_MEMORY = 60  # seconds of MinJobAge below which the controller may forget a job between two looks

BUNDLED = "bundled"  # of what is noted about a submitted job

Wildcards = frozenset[tuple[str, str]]


class Failures:
    """Why jobs failed, by their wildcards; unknown while nothing watches."""

    def __init__(self) -> None:
        self.known = False
        self._counts: Counter[tuple[Wildcards, str]] = Counter()

    def add(self, wildcards: Wildcards, kind: str) -> None:
        self._counts[wildcards, kind] += 1

    def attempt(self, wildcards: Mapping[str, str], kind: str, attempt: int) -> int:
        """The attempt that memory or time follow: where reasons are known, one more per failure for lack of it."""
        return 1 + self._counts[_key(wildcards), kind] if self.known else attempt


FAILURES = Failures()


def _key(wildcards: Mapping[str, str]) -> Wildcards:
    return frozenset((name, str(value)) for name, value in wildcards.items())


class Bundle:
    """Several of Snakemake's jobs as the plugin submits one. Files that they will write are removed.

    (Snakemake removes a job's output when the job starts; here its being there must tell that a job has ended.)
    """

    def __init__(self, jobs: Sequence[Any]) -> None:
        self.jobs = list(jobs)
        self.name, self.rule = "bundle", SimpleNamespace(name="bundle")
        self.wildcards = [jobs[0].resources[RESOURCE]]
        self.threads = max(job.threads for job in jobs)
        self.jobid = ", ".join(str(job.jobid) for job in jobs)
        for job in jobs:
            for file in job.output:
                Path(str(file)).unlink(missing_ok=True)

    def is_group(self) -> bool:
        """Whether it is one of Snakemake's groups."""
        return False

    @cached_property
    def resources(self) -> Any:
        """Those of the longest job, but the most memory and the sum of the times."""
        from snakemake.iocontainers import ResourceList

        found = [dict(job.resources.items()) for job in self.jobs]
        longest = max(found, key=_minutes)
        memory = {name: max(each[name] for each in found) for name in ("mem_mb", "mem_mib") if name in longest}
        return ResourceList(fromdict={**longest, **memory, "runtime": sum(map(_minutes, found))})


def _minutes(resources: Mapping[str, Any]) -> int:
    return int(resources.get("runtime") or 0)


def submissions(jobs: Iterable[Any], longest: int) -> list[Any]:
    """Jobs as they are submitted: in bundles where they belong together. longest: minutes of a bundle."""
    ordered = sorted(jobs, key=lambda job: (job.rule.name, sorted(job.wildcards_dict.items())))
    name = lambda job: job.resources.get(RESOURCE) or ""  # noqa: E731
    made = bundles(ordered, name, lambda job: _minutes(job.resources), longest)
    return [Bundle(jobs) if len(jobs) > 1 else jobs[0] for jobs in made]


def watch(say: Callable[[str], None], longest: int) -> None:
    """Let Snakemake's SLURM executor treat jobs as this module says.

    say: is told what follows from the set-up. longest: minutes that a job may ask for.
    """
    from snakemake_executor_plugin_slurm import Executor

    if FAILURES.known:
        return
    FAILURES.known = True
    say_what_follows(say)
    watcher = Watcher()

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        async with self.status_rate_limiter:
            left = watcher.sort_out(self, active_jobs)
        first = self.workflow.executor_settings.init_seconds_before_status_checks
        later = min(self.next_seconds_between_status_checks + 10, LONGEST_PAUSE)
        self.next_seconds_between_status_checks = first if len(left) < len(active_jobs) else max(first, later)
        for job in left:
            yield job

    Executor.check_active_jobs = check_active_jobs
    _submit_bundles(Executor, longest)


def _submit_bundles(executor: Any, longest: int) -> None:
    """Teach the plugin's class what a Bundle is."""
    run_jobs, format_job_exec = executor.run_jobs, executor.format_job_exec
    report_job_submission, report_job_error = executor.report_job_submission, executor.report_job_error

    def run(self: Any, jobs: list[Any]) -> None:
        alone = []
        for job in submissions(jobs, longest):
            if not isinstance(job, Bundle):
                alone.append(job)
                continue
            for one in job.jobs:
                self.run_job_pre(one)
            self._job_submission_executor.submit(self.run_job, job)
        run_jobs(self, alone)

    def script(self: Any, job: Any) -> str:
        if not isinstance(job, Bundle):
            return str(format_job_exec(self, job))
        # Without a variable: the plugin has the shell that submits read this text too.
        return "; ".join([*(f"( {format_job_exec(self, one)} ) || trap 'exit 1' EXIT" for one in job.jobs), "true"])

    def each(report: Callable[..., None]) -> Callable[..., None]:
        def of_each(self: Any, info: Any, *arguments: Any, **named: Any) -> None:
            for one in _parts(info):
                report(self, one, *arguments, **named)

        return of_each

    executor.run_jobs, executor.format_job_exec = run, script
    executor.report_job_submission, executor.report_job_error = each(report_job_submission), each(report_job_error)


def _parts(info: Any) -> list[Any]:
    """A submitted job, or each one of a bundle."""
    if not isinstance(info.job, Bundle):
        return [info]
    aux = {**(info.aux or {}), BUNDLED: True}
    return [type(info)(job, external_jobid=info.external_jobid, aux=aux) for job in info.job.jobs]


def say_what_follows(say: Callable[[str], None]) -> None:
    """Say when neither the controller's memory nor accounting will tell how a job ended."""
    from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age

    age = get_min_job_age()
    if age is not None and age < SHORT_MEMORY and accounted_states(["1"]) is None:
        say(
            f"This cluster forgets jobs after {age} s (MinJobAge) and has no accounting: a job that has left the queue "
            "counts as done when its output is there, else as failed, and why it failed stays unknown."
        )


class Watcher:
    """Looks at the jobs of one executor, instead of the plugin, which loses all of them when sacct fails."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}  # when a SLURM job was first looked for
        self.seen: set[str] = set()  # SLURM jobs that were in the queue
        self.missed: Counter[str] = Counter()  # looks in a row at which one was not
        self.submissions: Counter[tuple[str, Wildcards]] = Counter()

    def sort_out(self, executor: Any, jobs: Sequence[Any]) -> list[Any]:
        """Report the jobs that have ended and return the others.

        executor: the plugin's. jobs: its SubmittedJobInfo. Where the controller does not answer, all are returned.
        """
        states = queue_states(executor.run_uuid) if jobs else None
        if states is None:
            return list(jobs)
        left, gone = [], []
        again: dict[str, list[Any]] = defaultdict(list)  # by SLURM job
        for job in jobs:
            name = str(job.external_jobid)
            if name in states:
                self.seen.add(name)
                self.missed[name] = 0
                if states[name] == DONE or states[name] in (*BACK, *FAILED):
                    again[name] += self.end(executor, job, states[name])
                else:
                    left.append(job)
            elif self.has_left(name):
                gone.append(job)
            else:
                left.append(job)
        known = (accounted_states([str(job.external_jobid) for job in gone]) if gone else None) or {}
        for job in gone:
            state = known.get(str(job.external_jobid), "")
            if state and state != DONE and state not in (*BACK, *FAILED):  # accounting lags behind
                left.append(job)
            else:
                again[str(job.external_jobid)] += self.end(executor, job, state)
        for back in again.values():
            if back:
                executor.run_job(back[0] if len(back) == 1 else Bundle(back))
        return left

    def has_left(self, name: str) -> bool:
        """Whether a job that is not in the queue has left it: it may be new, or the controller may have stumbled."""
        self.missed[name] += 1
        first = self.first.setdefault(name, time.monotonic())
        return self.missed[name] > 1 and (name in self.seen or time.monotonic() - first > NEW_SECONDS)

    def end(self, executor: Any, job: Any, state: str) -> list[Any]:
        """Report a job that has ended and keep why it failed; returned is one that goes back, as it was not its fault.

        state: of its SLURM job; empty where neither queue nor accounting knows it.
        """
        name, log = str(job.external_jobid), log_file(job)
        by_output = not state or (job.aux or {}).get(BUNDLED)
        if state == DONE or (by_output and has_output(job.job)):
            executor.report_job_success(job)
            if log and state in ("", DONE) and not executor.workflow.executor_settings.keep_successful_logs:
                log.unlink(missing_ok=True)
            return []
        key = (job.job.name, _key(getattr(job.job, "wildcards_dict", None) or {}))
        if state in BACK and self.submissions[key] < MOST_SUBMISSIONS:
            self.submissions[key] += 1
            executor.logger.warning(f"SLURM job {name}: {state}; it goes back into the queue.")
            return [job.job]
        kind = want(state, name, log)
        FAILURES.add(key[1], kind)
        why = (
            f"its state is {state}"
            if state
            else "it has left the queue, its output is not there, accounting knows nothing"
        )
        lack = f", for lack of {kind}" if kind else ""
        executor.report_job_error(job, msg=f"SLURM job {name} failed: {why}{lack}.", aux_logs=[str(log)] if log else [])
        return []


def want(state: str, name: str, log: Path | None) -> str:
    """What a failed job lacked: `memory`, `time`, or nothing that is known.

    The state of a job that ran out of memory is often FAILED: its steps and its log say more.
    """
    if state in WANTS:
        return WANTS[state]
    steps = _output("sacct", "-n", "-P", "-o", "State", "-j", name) or ""
    text = log.read_text(errors="replace") if log and log.is_file() else ""
    for kind, signs in SIGNS.items():
        if any(sign in text or sign in steps for sign in signs):
            return kind
    return ""


def log_file(job: Any) -> Path | None:
    """Where SLURM writes what a submitted job says."""
    log = (job.aux or {}).get("slurm_logfile")
    return Path(str(log).replace("%j", str(job.external_jobid))) if log else None


def has_output(job: Any) -> bool:
    """Whether all output of a job is there: it is removed before a job starts, and written at once when it ends.

    That of a bundle is removed when it is submitted.
    """
    return all(Path(str(file)).exists() for file in job.output)


def queue_states(run: str) -> dict[str, str] | None:
    """The state of each SLURM job of a run of Snakemake that the controller remembers; None: no answer."""
    return _states(_output("squeue", "--states=all", "--noheader", "--format=%i|%T", "--name", run))


def accounted_states(names: Sequence[str]) -> dict[str, str] | None:
    """The state of SLURM jobs as accounting knows it; None: no answer, as on a cluster without it."""
    return _states(_output("sacct", "-X", "-n", "-P", "-o", "JobIDRaw,State", "-j", ",".join(names)))


def _states(answer: str | None) -> dict[str, str] | None:
    if answer is None:
        return None
    pairs = (line.strip().partition("|") for line in answer.splitlines() if "|" in line)
    return {name: state.partition(" ")[0] for name, _, state in pairs}  # "CANCELLED by 0"


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
