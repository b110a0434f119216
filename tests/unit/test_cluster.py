"""What `sambench resume` does with the jobs of a Snakemake that was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sambench import cluster
from sambench.errors import InputError


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a squeue that prints the file `queue`, and a scancel that writes down how it was called."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, text in {
        "squeue": f'[ -e {tmp_path}/away ] && echo "slurm_load_jobs error: Unable to contact" >&2 && exit 1; '
        f"cat {tmp_path}/queue",
        "scancel": f'echo "$@" >> {tmp_path}/cancelled; cp {tmp_path}/after {tmp_path}/queue',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(cluster, "INTERVAL", 0.05)
    return tmp_path


def test_only_jobs_of_this_prefix_and_folder_are_ours(slurm: Path, tmp_path: Path) -> None:
    (slurm / "queue").write_text(
        f"7|sambench_0f|RUNNING|{tmp_path}\n8|sambench_0f|RUNNING|/elsewhere\n9|other_0f|RUNNING|{tmp_path}\n"
        f"10|sambench|RUNNING|{tmp_path}\n\n"
    )
    assert [job.id for job in cluster.queued_jobs("sambench", tmp_path)] == ["7"]


@pytest.mark.parametrize(("cancel", "call"), [(False, "--state=PENDING 7 8\n"), (True, "7 8\n")])
def test_waiting_jobs_are_taken_back_and_running_ones_waited_for(
    slurm: Path, tmp_path: Path, cancel: bool, call: str
) -> None:
    running = f"7|sambench_0f|RUNNING|{tmp_path}\n"
    (slurm / "queue").write_text(f"{running}8|sambench_0f|PENDING|{tmp_path}\n")
    (slurm / "after").write_text(running)
    end = subprocess.Popen(["sh", "-c", f"sleep 1; touch {slurm}/away; sleep 1; : > {slurm}/queue; rm {slurm}/away"])
    start = time.monotonic()
    cluster.settle("sambench", tmp_path, cancel=cancel)
    end.wait()
    assert time.monotonic() - start > 1.5, "the job ran until then, and the controller was away for a second"
    assert (slurm / "cancelled").read_text() == call


def test_an_empty_queue_cancels_nothing(slurm: Path, tmp_path: Path) -> None:
    (slurm / "queue").write_text("")
    cluster.settle("sambench", tmp_path)
    assert not (slurm / "cancelled").exists()


def test_an_absent_controller_is_one_line(slurm: Path, tmp_path: Path) -> None:
    (slurm / "away").touch()
    with pytest.raises(InputError, match="squeue: expected an answer, found slurm_load_jobs error: Unable to contact"):
        cluster.queued_jobs("sambench", tmp_path)


def test_without_slurm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="squeue: expected a command; resume where SLURM's commands are"):
        cluster.queued_jobs("sambench", tmp_path)


def test_a_living_snakemake_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    (tmp_path / "snakemake").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    (tmp_path / "snakemake").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    other = subprocess.Popen(sleeper, cwd=tmp_path)
    inside = subprocess.Popen([tmp_path / "snakemake", "--mode", "remote"], cwd=tmp_path)
    try:
        time.sleep(0.3)
        assert cluster.running_snakemake(tmp_path) is None
        alive = subprocess.Popen([tmp_path / "snakemake", "-n"], cwd=tmp_path)
        try:
            time.sleep(0.3)
            with pytest.raises(
                InputError, match=f"expected no Snakemake at work in this folder, found process {alive.pid}"
            ):
                cluster.resume(["-n"], "sambench")
        finally:
            alive.kill()
            alive.wait()
    finally:
        for process in (other, inside):
            process.kill()
            process.wait()
