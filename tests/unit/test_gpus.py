"""GPUs of one machine: which there are, and that each job has one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sambench import gpus
from sambench.gpus import leased, one_gpu, visible_gpus


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, ["0", "1", "2", "3"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "2,-1,3"}, ["2"]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1a, GPU-2b"}, ["MIG-1a", "GPU-2b"]),
        ({"HIP_VISIBLE_DEVICES": "0,1"}, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0,1"}, ["1"]),
    ],
)
def test_the_variable_of_cuda_decides(environment: dict[str, str], names: list[str]) -> None:
    assert visible_gpus(environment) == names


def test_the_driver_is_asked_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert visible_gpus({}) == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == []
    tool.unlink()
    assert visible_gpus({}) == []


def holder(folder: Path) -> subprocess.Popen[str]:
    """A job: leases one of four devices, says which, and holds it until its input ends."""
    code = (
        "import sys, pathlib; from sambench.gpus import leased\n"
        f"with leased('0 1 2 3'.split(), pathlib.Path({str(folder)!r})) as name:\n"
        " print(name, flush=True); sys.stdin.read()"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def test_four_jobs_have_four_devices_and_a_killed_one_leaves_its_own(tmp_path: Path) -> None:
    jobs = [holder(tmp_path) for _ in range(4)]
    try:
        held = {said(job): job for job in jobs}
        assert set(held) == {"0", "1", "2", "3"}
        jobs.append(holder(tmp_path))  # waits
        held["2"].kill()
        held["2"].wait()
        assert said(jobs[-1]) == "2"
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def test_a_process_sees_its_own_device_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    environment = {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    with one_gpu(environment) as name:
        assert name == environment["CUDA_VISIBLE_DEVICES"] == "GPU-a"
        with one_gpu({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}) as other:
            assert other == "GPU-b"
    assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}


def test_one_device_or_none_is_left_alone(tmp_path: Path) -> None:
    for environment in ({"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": ""}):
        before = dict(environment)
        with one_gpu(environment) as name:
            assert name == "" and environment == before
    assert not list(tmp_path.iterdir())


def test_a_lease_ends_with_its_block(tmp_path: Path) -> None:
    with leased(["x"], tmp_path):
        pass
    with leased(["x"], tmp_path) as name:
        assert name == "x"
