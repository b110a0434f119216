"""The campaigns themselves, in small: `make fuzz` judges."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np


def test_a_few_mutants(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "tests/campaigns/fuzz.py"), "--mutants", "30", "--keep", str(tmp_path)]
    command += ["--kind", "results", "--kind", "parquet", "--kind", "pictures"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [line[0] for line in lines] == ["results", "parquet", "pictures"]
    assert all(line[1] == "30" and line[5] == "0" for line in lines)


def test_a_mutant_is_always_the_same(root: Path) -> None:
    fuzz = runpy.run_path(str(root / "tests/campaigns/fuzz.py"))
    for mutate, value in ((fuzz["mutate_bytes"], b"0123456789" * 9), (fuzz["mutate_value"], {"a": [1, 2, {"b": 3.0}]})):
        first, again, other = (mutate(value, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert repr(first) == repr(again) != repr(other) and repr(first) != repr(value)
