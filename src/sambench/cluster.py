"""After a Snakemake on a cluster was killed: its jobs are still in the queue, and a new one knows nothing of them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sambench.errors import InputError

INTERVAL = 5.0  # seconds between two looks at the queue
SAY_INTERVAL = 60.0


class QueuedJob(NamedTuple):
    """A job of the queue: its id, its name and its state as squeue says it."""

    id: str
    name: str
    state: str


def resume(arguments: Sequence[str], prefix: str, *, cancel: bool = False) -> None:
    """Wait for (or cancel) the jobs that a killed Snakemake left, unlock its folder, and become the next Snakemake.

    arguments: as they were given to Snakemake. prefix: of the names of its jobs (slurm-jobname-prefix). cancel: end
    the running jobs instead of waiting for them.

    A Snakemake that started now would run again what is still in the queue. Jobs that wait are taken back; jobs that
    run end and keep their results.
    """
    alive = running_snakemake(Path.cwd())
    if alive is not None:
        raise InputError(
            "resume", expected="no Snakemake at work in this folder", found=f"process {alive}", remedy="let it work"
        )
    settle(prefix, Path.cwd(), cancel=cancel)
    snakemake = [sys.executable, "-m", "snakemake", *arguments]
    if subprocess.run([*snakemake, "--unlock"]).returncode != 0:
        raise InputError("resume", expected="arguments that Snakemake takes", found=" ".join(arguments))
    sys.stdout.flush()
    os.execv(sys.executable, snakemake)


def settle(prefix: str, folder: Path, *, cancel: bool = False) -> None:
    """Take back what waits in the queue and wait until nothing of this folder is left in it."""
    jobs = queued_jobs(prefix, folder)
    if not jobs:
        return
    # The state is the controller's to check: a job that has started meanwhile is left alone.
    states = [] if cancel else ["--state=PENDING"]
    subprocess.run(["scancel", *states, *(job.id for job in jobs)], check=False)
    said = 0.0
    while jobs:
        if time.monotonic() - said >= SAY_INTERVAL:
            said = time.monotonic()
            print(
                f"resume: waiting for {len(jobs)} jobs: {' '.join(job.id for job in jobs)}", file=sys.stderr, flush=True
            )
        time.sleep(INTERVAL)
        try:
            jobs = queued_jobs(prefix, folder)
        except InputError as error:  # the controller may be away for a while; the jobs run on
            print(f"resume: {error}", file=sys.stderr, flush=True)


def queued_jobs(prefix: str, folder: Path) -> list[QueuedJob]:
    """The user's jobs in the queue whose names have the prefix and that were submitted from a folder.

    Another study of the same user, in another folder, is not touched.
    """
    user = pwd.getpwuid(os.getuid()).pw_name
    command = ["squeue", "--noheader", f"--user={user}", "--format=%i|%j|%T|%Z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    except FileNotFoundError:
        remedy = "resume where SLURM's commands are; on one machine `snakemake --unlock` is enough"
        raise InputError("squeue", expected="a command", remedy=remedy) from None
    except subprocess.SubprocessError as error:
        found = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise InputError("squeue", expected="an answer", found=found[-1] if found else error) from None
    rows = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
    return [
        QueuedJob(number, name, state)
        for number, name, state, where in rows
        if name.startswith(f"{prefix}_") and Path(where).resolve() == folder.resolve()
    ]


def running_snakemake(folder: Path) -> int | None:
    """The process of a Snakemake at work in a folder on this machine, other than one inside a job; None without."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            here = (process / "cwd").resolve() == folder.resolve()
        except OSError:
            continue
        program = any(Path(os.fsdecode(word)).name == "snakemake" for word in words[:3])
        if here and program and b"--mode" not in words and int(process.name) != os.getpid():
            return int(process.name)
    return None
