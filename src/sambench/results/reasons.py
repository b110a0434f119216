"""Why numbers are missing, in the words of the jobs that found out: which file, which device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sambench.files import is_file
from sambench.jobs import identity
from sambench.parquet import read_provenance
from sambench.provenance import REASON


def reasons(files: Iterable[Path]) -> list[str]:
    """One line per reason that result files give, after the names of those it is about. Absent files give none."""
    about: dict[str, list[str]] = {}
    for file in filter(is_file, files):
        reason = read_provenance(file).get(REASON)
        if reason:
            about.setdefault(reason, []).append(_whose(file))
    return [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in about.items()]


def _whose(file: Path) -> str:
    where = identity(file)
    return f"{where['variant']} @ {where['runtime']}" if "variant" in where else where.get("detector", file.stem)
