"""The GPUs of one machine: which there are, and one for each job that computes on one.

A lease is a lock on a file that the operating system takes back when its process ends, however it ends. Nothing is
leased where there is one GPU at most: there Snakemake's resource `gpu` is enough, and a cluster has already chosen.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Which devices a process sees: NVIDIA's and, under ROCm, AMD's.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
POLL_SECONDS = 0.5


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the GPUs that a process may use, as CUDA_VISIBLE_DEVICES has them: numbers, UUIDs or MIG names.

    Where the variable is set it decides, as in CUDA: what stands behind `-1` does not count. Else the driver is asked.
    """
    for variable in VARIABLES:
        if variable in environment:
            names = [name.strip() for name in environment[variable].split(",")]
            end = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
            return names[:end]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


@contextmanager
def leased(names: Sequence[str], folder: Path | None = None) -> Iterator[str]:
    """One of these GPUs, for this process alone until the end of the block; waits until one is free.

    names: of GPUs that other processes lease too, under the same names. folder: of the locks; by default one per user
    in the folder for temporary files. Raises OSError where the folder cannot be written.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"sambench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        for name in names:
            # A lock file stays: one that is removed and made again would be locked twice.
            lock = (folder / hashlib.sha256(name.encode()).hexdigest()[:16]).open("w")
            if _locked(lock):
                with lock:
                    yield name
                return
            lock.close()
        time.sleep(POLL_SECONDS)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def one_gpu(environment: dict[str, str] | os._Environ[str] = os.environ) -> Iterator[str]:
    """Let this process see one GPU of several, leased; "" and no change where there are fewer than two.

    To be entered before CUDA starts, which reads the variable once.
    """
    names = visible_gpus(environment)
    if len(names) < 2:
        yield ""
        return
    variable = next((each for each in VARIABLES if each in environment), VARIABLES[0])
    with leased(names) as name:
        before = environment.get(variable)
        environment[variable] = name
        try:
            yield name
        finally:
            if before is None:
                del environment[variable]
            else:
                environment[variable] = before
