"""SLURM jobs that do not end by themselves, with stand-ins for squeue and sacct; `make test-slurm` has real ones."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sambench import slurm
from sambench.slurm import MEMORY, TIME, Failures, Watcher


class Cluster:
    """What squeue and sacct answer, and an executor that notes what is asked of it."""

    run_uuid = "run"
    workflow = SimpleNamespace(executor_settings=SimpleNamespace(keep_successful_logs=False))
    logger = logging.getLogger("cluster")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: list[tuple[str, str]] = []

    def answers(self, squeue: str | None, sacct: str | None = None) -> None:
        for name, text in (("squeue", squeue), ("sacct", sacct)):
            tool = self.folder / name
            tool.write_text("#!/bin/sh\n" + ("exit 1\n" if text is None else f"printf '{text}'\n"))
            tool.chmod(0o755)

    def run_job(self, job: Any) -> None:
        self.done.append(("again", job.wildcards_dict["shard"]))

    def report_job_success(self, info: Any) -> None:
        self.done.append(("success", info.job.wildcards_dict["shard"]))

    def report_job_error(self, info: Any, msg: str = "", **_: Any) -> None:
        self.done.append(("error", info.job.wildcards_dict["shard"]))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "FAILURES", Failures())
    slurm.FAILURES.known = True
    return Cluster(tmp_path)


def submitted(folder: Path, number: int) -> Any:
    job = SimpleNamespace(name="segany", wildcards_dict={"shard": str(number)}, output=[folder / f"{number}.parquet"])
    return SimpleNamespace(external_jobid=str(number), job=job, aux={"slurm_logfile": folder / "%j.log"})


def look(cluster: Cluster, watcher: Watcher, *jobs: Any) -> list[str]:
    return [job.external_jobid for job in watcher.sort_out(cluster, list(jobs))]


def test_a_job_that_ends_well_leaves_no_log(cluster: Cluster) -> None:
    (cluster.folder / "1.log").touch()
    cluster.answers("1|COMPLETED\\n2|PENDING\\n3|COMPLETING\\n")
    assert look(cluster, Watcher(), *(submitted(cluster.folder, number) for number in (1, 2, 3))) == ["2", "3"]
    assert cluster.done == [("success", "1")] and not (cluster.folder / "1.log").exists()


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_did_not_fail_by_itself_goes_back_and_keeps_its_attempt(cluster: Cluster, state: str) -> None:
    one, two = (submitted(cluster.folder, number) for number in (1, 2))
    cluster.answers(f"1|{state}\\n2|RUNNING\\n")
    assert look(cluster, Watcher(), one, two) == ["2"]
    assert cluster.done == [("again", "1")]
    assert slurm.FAILURES.attempt({"shard": "1"}, MEMORY, 1) == 1


def test_no_job_goes_back_for_ever(cluster: Cluster) -> None:
    cluster.answers("1|PREEMPTED\\n")
    watcher = Watcher()
    for _ in range(slurm.MOST_SUBMISSIONS + 1):
        assert look(cluster, watcher, submitted(cluster.folder, 1)) == []
    assert cluster.done == [("again", "1")] * slurm.MOST_SUBMISSIONS + [("error", "1")]


def test_a_job_that_has_left_the_queue_is_judged_by_its_output(cluster: Cluster) -> None:
    jobs = [submitted(cluster.folder, number) for number in (1, 2)]
    jobs[0].job.output[0].touch()
    watcher = Watcher()
    cluster.answers("1|RUNNING\\n2|RUNNING\\n")
    assert look(cluster, watcher, *jobs) == ["1", "2"]
    cluster.answers("")
    assert look(cluster, watcher, *jobs) == ["1", "2"], "once is no proof"
    assert look(cluster, watcher, *jobs) == []
    assert cluster.done == [("success", "1"), ("error", "2")]


def test_accounting_knows_better(cluster: Cluster) -> None:
    jobs = [submitted(cluster.folder, number) for number in (1, 2, 3, 4)]
    watcher = Watcher()
    cluster.answers("".join(f"{number}|RUNNING\\n" for number in (1, 2, 3, 4)))
    look(cluster, watcher, *jobs)
    cluster.answers("", "1|COMPLETED\\n2|CANCELLED by 0\\n3|PREEMPTED\\n4|RUNNING\\n")
    look(cluster, watcher, *jobs)
    assert look(cluster, watcher, *jobs) == ["4"]
    assert cluster.done == [("success", "1"), ("error", "2"), ("again", "3")]


def test_a_new_job_and_a_silent_controller_decide_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    job, watcher = submitted(cluster.folder, 1), Watcher()
    cluster.answers("")
    for _ in range(3):
        assert look(cluster, watcher, job) == ["1"], "it may not be in the queue yet"
    cluster.answers(None)
    monkeypatch.setattr(slurm, "NEW_SECONDS", 0)
    assert look(cluster, watcher, job) == ["1"]
    assert cluster.done == []


def test_memory_grows_after_a_lack_of_memory_and_time_after_a_time_out(cluster: Cluster) -> None:
    jobs = [submitted(cluster.folder, number) for number in (1, 2, 3, 4)]
    cluster.answers("1|OUT_OF_MEMORY\\n2|TIMEOUT\\n3|FAILED\\n4|FAILED\\n")
    (cluster.folder / "3.log").write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=3.0")
    assert look(cluster, Watcher(), *jobs) == []
    assert cluster.done == [("error", number) for number in "1234"]
    attempts = {
        shard: [slurm.FAILURES.attempt({"shard": shard}, kind, 2) for kind in (MEMORY, TIME)] for shard in "1234"
    }
    assert attempts == {"1": [2, 1], "2": [1, 2], "3": [2, 1], "4": [1, 1]}


def test_elsewhere_every_attempt_grows() -> None:
    assert Failures().attempt({"shard": "1"}, MEMORY, 3) == 3


@pytest.mark.parametrize(
    ("age", "sacct", "told"), [("10 sec", None, True), ("10 sec", "", False), ("300 sec", None, False)]
)
def test_what_follows_from_the_set_up_is_said(cluster: Cluster, age: str, sacct: str | None, told: bool) -> None:
    cluster.answers("", sacct)
    control = cluster.folder / "scontrol"
    control.write_text(f"#!/bin/sh\necho 'MinJobAge               = {age}'\n")
    control.chmod(0o755)
    said: list[str] = []
    slurm.say_what_follows(said.append)
    assert bool(said) == told
