"""SLURM jobs that do not end by themselves, with stand-ins for squeue and sacct; `make test-slurm` has real ones."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from sambench import slurm
from sambench.slurm import BUNDLED, MEMORY, TIME, Bundle, Failures, Watcher


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
        jobs = job.jobs if isinstance(job, Bundle) else [job]
        self.done.append(("again", ",".join(one.wildcards_dict["shard"] for one in jobs)))

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
    cluster.answers("1|COMPLETED\n2|PENDING\n3|COMPLETING\n")
    assert look(cluster, Watcher(), *(submitted(cluster.folder, number) for number in (1, 2, 3))) == ["2", "3"]
    assert cluster.done == [("success", "1")] and not (cluster.folder / "1.log").exists()


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_did_not_fail_by_itself_goes_back_and_keeps_its_attempt(cluster: Cluster, state: str) -> None:
    one, two = (submitted(cluster.folder, number) for number in (1, 2))
    cluster.answers(f"1|{state}\n2|RUNNING\n")
    assert look(cluster, Watcher(), one, two) == ["2"]
    assert cluster.done == [("again", "1")]
    assert slurm.FAILURES.attempt({"shard": "1"}, MEMORY, 1) == 1


def test_no_job_goes_back_for_ever(cluster: Cluster) -> None:
    cluster.answers("1|PREEMPTED\n")
    watcher = Watcher()
    for _ in range(slurm.MOST_SUBMISSIONS + 1):
        assert look(cluster, watcher, submitted(cluster.folder, 1)) == []
    assert cluster.done == [("again", "1")] * slurm.MOST_SUBMISSIONS + [("error", "1")]


def test_a_job_that_has_left_the_queue_is_judged_by_its_output(cluster: Cluster) -> None:
    jobs = [submitted(cluster.folder, number) for number in (1, 2)]
    jobs[0].job.output[0].touch()
    watcher = Watcher()
    cluster.answers("1|RUNNING\n2|RUNNING\n")
    assert look(cluster, watcher, *jobs) == ["1", "2"]
    cluster.answers("")
    assert look(cluster, watcher, *jobs) == ["1", "2"], "once is no proof"
    assert look(cluster, watcher, *jobs) == []
    assert cluster.done == [("success", "1"), ("error", "2")]


def test_accounting_knows_better(cluster: Cluster) -> None:
    jobs = [submitted(cluster.folder, number) for number in (1, 2, 3, 4)]
    watcher = Watcher()
    cluster.answers("".join(f"{number}|RUNNING\n" for number in (1, 2, 3, 4)))
    look(cluster, watcher, *jobs)
    cluster.answers("", "1|COMPLETED\n2|CANCELLED by 0\n3|PREEMPTED\n4|RUNNING\n")
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
    cluster.answers("1|OUT_OF_MEMORY\n2|TIMEOUT\n3|FAILED\n4|FAILED\n")
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


def clock(folder: Path, name: str, minutes: int = 20, bundle: str = "coco/mobilesam/gpu", **more: Any) -> Any:
    """A job of Snakemake's."""
    resources = {"runtime": minutes, "mem_mb": 100 * minutes, "slurm_extra": f"--nice={minutes}", "bundle": bundle}
    return SimpleNamespace(
        name="measure",
        rule=SimpleNamespace(name="measure"),
        wildcards_dict={"shard": name},
        output=[folder / f"{name}.parquet"],
        resources=resources | more,
        threads=8,
        jobid=int(name),
        is_group=lambda: False,
    )


class Plugin:
    """The executor of the plugin, as far as submitting goes: what it submits and reports is noted."""

    def __init__(self) -> None:
        self.announced: list[Any] = []
        self.submitted: list[tuple[Any, str]] = []
        self.reported: list[Any] = []
        self._job_submission_executor = SimpleNamespace(submit=lambda what, job: what(job))

    def run_job_pre(self, job: Any) -> None:
        self.announced.append(job)

    def run_jobs(self, jobs: list[Any]) -> None:
        for job in jobs:
            self.run_job_pre(job)
            self.run_job(job)

    def run_job(self, job: Any) -> None:
        self.submitted.append((job, self.format_job_exec(job)))
        self.report_job_submission(SubmittedJobInfo(job, external_jobid="7", aux={"slurm_logfile": "log"}))

    def format_job_exec(self, job: Any) -> str:
        return f"sh {job.wildcards_dict['shard']}.sh"

    def report_job_submission(self, info: Any) -> None:
        self.reported.append(info)

    def report_job_error(self, info: Any, msg: str = "") -> None:
        self.reported.append((info, msg))


@pytest.fixture
def plugin() -> Plugin:
    taught = type("Taught", (Plugin,), {})
    slurm._submit_bundles(taught, longest=50)
    made: Plugin = taught()
    return made


def test_clocks_of_a_variant_are_submitted_as_one_job(plugin: Plugin, tmp_path: Path) -> None:
    jobs = [clock(tmp_path, "1"), clock(tmp_path, "2", 30), clock(tmp_path, "3"), clock(tmp_path, "4", bundle="")]
    jobs[0].output[0].touch()
    plugin.run_jobs(jobs[::-1])
    bundle, alone, other = sorted((job for job, _ in plugin.submitted), key=lambda job: str(job.jobid))
    assert bundle.jobs == jobs[:2] and alone is jobs[2] and other is jobs[3], "50 minutes are the most"
    assert bundle.threads == 8 and not bundle.is_group() and bundle.wildcards == ["coco/mobilesam/gpu"]
    assert dict(bundle.resources.items()) == jobs[1].resources | {"runtime": 50, "mem_mb": 3000}
    assert sorted(job.jobid for job in plugin.announced) == [1, 2, 3, 4]
    submitted = [(info.job, info.external_jobid, info.aux.get(BUNDLED, False)) for info in plugin.reported]
    assert [(jobs[0], "7", True), (jobs[1], "7", True)] == submitted[:2] and not any(one[2] for one in submitted[2:])
    assert not jobs[0].output[0].exists(), "what an earlier run left is no sign that this one has ended"


def test_a_bundle_that_sbatch_refuses_is_an_error_of_each_job(plugin: Plugin, tmp_path: Path) -> None:
    jobs = [clock(tmp_path, "1"), clock(tmp_path, "2")]
    plugin.report_job_error(SubmittedJobInfo(Bundle(jobs)), "refused")
    assert [(info.job, msg) for info, msg in plugin.reported] == [(jobs[0], "refused"), (jobs[1], "refused")]


@pytest.mark.parametrize(("codes", "status"), [([0, 0], 0), ([1, 0], 1), ([0, 1], 1)])
def test_commands_of_a_bundle_run_one_after_the_other_whatever_becomes_of_each(
    plugin: Plugin, tmp_path: Path, codes: list[int], status: int
) -> None:
    for name, code in enumerate(codes):
        (tmp_path / f"{name}.sh").write_text(f"echo {name} >> ran; exit {code}")
    plugin.run_jobs([clock(tmp_path, "0"), clock(tmp_path, "1")])
    ((_, script),) = plugin.submitted
    assert "$" not in script and '"' not in script, "a second shell reads it"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == status and (tmp_path / "ran").read_text() == "0\n1\n"


def bundled(folder: Path, *names: str) -> list[Any]:
    """Jobs that were submitted as SLURM job 7."""
    jobs = Bundle([clock(folder, name) for name in names]).jobs
    aux = {"slurm_logfile": folder / "%j.log", BUNDLED: True}
    return [SimpleNamespace(external_jobid="7", job=job, aux=aux) for job in jobs]


def test_each_job_of_a_bundle_is_judged_by_itself(cluster: Cluster) -> None:
    jobs, log = bundled(cluster.folder, "1", "2", "3"), cluster.folder / "7.log"
    for job in jobs[::2]:
        job.job.output[0].touch()
    log.touch()
    cluster.answers("7|FAILED\n")
    assert look(cluster, Watcher(), *jobs) == []
    assert cluster.done == [("success", "1"), ("error", "2"), ("success", "3")]
    assert log.exists(), "it says why one failed"


def test_what_a_preempted_bundle_has_not_done_goes_back_as_one_job(cluster: Cluster) -> None:
    jobs = bundled(cluster.folder, "1", "2", "3")
    jobs[0].job.output[0].touch()
    cluster.answers("7|PREEMPTED\n")
    assert look(cluster, Watcher(), *jobs) == []
    assert cluster.done == [("success", "1"), ("again", "2,3")]


def test_a_bundle_that_ends_well_leaves_no_log(cluster: Cluster) -> None:
    jobs, log = bundled(cluster.folder, "1", "2"), cluster.folder / "7.log"
    log.touch()
    cluster.answers("7|COMPLETED\n")
    assert look(cluster, Watcher(), *jobs) == [] and not log.exists()
    assert cluster.done == [("success", "1"), ("success", "2")], "Snakemake waits for output that comes late"
