"""The jobs of a study, as Snakemake plans them.

A forced dry run tells them through a logger plugin (src/snakemake_logger_plugin_sambench), so that what is known about
jobs follows from the rules and from nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sambench.config import CONFIG_FOLDER
from sambench.errors import InputError

# In the order in which the Snakefile reads them; the study comes last.
CONFIG_FILES = ("variants.yaml", "datasets.yaml", "detectors.yaml", "config.yaml")


@dataclass(frozen=True)
class PlannedJob:
    """One job: files as the rules name them, relative to the folder of the run; no benchmark is None."""

    rule: str
    wildcards: Mapping[str, str]
    inputs: list[str]
    outputs: list[str]
    benchmark: str | None
    resources: Mapping[str, Any]


def snakefile() -> Path:
    """The workflow's Snakefile. Raises InputError when sambench was installed without it."""
    file = CONFIG_FOLDER.parent / "Snakefile"
    if not file.is_file():
        remedy = "install sambench from a checkout: pip install -e ."
        raise InputError(file, expected="the rules, which are part of a checkout", found="none", remedy=remedy)
    return file


def read_jobs(study: Path, folder: Path | None = None) -> list[PlannedJob]:
    """Every job of a study, those that were run before included; a job comes after those that it waits for.

    study: the file that --configfile names. folder: where the study runs, which its relative paths start at; by
    default the working directory. Snakemake makes its folder .snakemake there, as with every dry run, and locks
    nothing. Raises InputError when this is no checkout or when Snakemake cannot plan the study.
    """
    files = [*(CONFIG_FOLDER / name for name in CONFIG_FILES), study.absolute()]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), "--configfile", *map(str, files)]
    # Profiles choose where jobs run, not which jobs there are.
    command += ["--profile", "none", "--workflow-profile", "none"]
    command += ["--dry-run", "--nolock", "--forceall", "--cores", "1", "--logger", "sambench"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(study, expected="a study that can be planned", found=" ".join(done.stderr.split()))
    return [PlannedJob(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
