"""Nothing in the rules is SLURM's: a study goes through another executor, whose scheduler is a script of the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_workflow import CONFIG, write_dataset

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("boxes")]

PART = "results/parts/tiny/box_fill/eager/boxes/accuracy_boxes.parquet"
SUBMIT = """#!/bin/sh
# Takes a job as bsub, qsub or kubectl would: starts it elsewhere and says its name. It knows the resources of the job.
echo "$1 $2" >> submitted
nohup sh "$3" > /dev/null 2>&1 &
echo $!
"""


def through(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Snakemake with the executor cluster-generic in a folder of its own."""
    write_dataset(folder / "tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG | {"shards": 1, "site": {"gpu_model": "a100"}}))
    (folder / "submit.sh").write_text(SUBMIT)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--configfile", "tiny.yaml"]
    command += ["--workflow-profile", str(root / "profiles/generic"), "--latency-wait", "20"]
    command += ["--cluster-generic-submit-cmd", "sh submit.sh {resources.mem_mb} {rule}", *arguments]
    own = {"PYTHONPATH": str(root / "src"), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, timeout=500, check=False
    )


def test_a_study_is_planned_for_another_executor(root: Path, tmp_path: Path) -> None:
    done = through(root, tmp_path, "--dry-run", "--", PART)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "submitted").exists()


@pytest.mark.long
def test_a_study_goes_through_a_script_as_scheduler(root: Path, tmp_path: Path) -> None:
    done = through(root, tmp_path, "--", PART)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pd.read_parquet(tmp_path / PART)["miou"].tolist() == [50.0]
    lines = (tmp_path / "submitted").read_text().splitlines()
    assert lines == ["8000 index", "8000 prompts_group", "4000 segany_shard", "6000 parts"]
    record = json.loads((tmp_path / "results/logs/segany/tiny/box_fill/eager/boxes/0-of-1.json").read_text())
    assert record["ended"] >= record["started"] and record["peak_memory_mib"] > 0
