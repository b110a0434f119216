"""A study that has run, found again by its configuration or by its folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sambench.errors import InputError
from sambench.jobs import instances_file
from sambench.parquet import read_provenance
from sambench.results import paired
from sambench.results.table import find_table


@dataclass(frozen=True)
class Finished:
    """name: for people. results: the folder with what was measured. folder: of what belongs to the study. plan: as
    paired.plan gives it."""

    name: str
    results: Path
    folder: Path
    plan: Mapping[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        """The rows of one of its tables; InputError where it has not been made."""
        table = find_table(name)
        file = Path(table.file(self.folder))
        if not file.is_file():
            raise InputError(file, expected=f"the table {name}", found="none", remedy="run the study first")
        return table.read(self.folder)

    def variants(self) -> list[str]:
        return list(dict.fromkeys(job[1] for job in self.plan["jobs"]))


def find_study(where: Path) -> Finished:
    """The study of a configuration file, or of a folder such as results/mobilesam.

    Raises InputError when it is neither, or when a folder does not say what the study was.
    """
    if where.is_dir():
        # The job that made the table left its values beside its log.
        record = where.parent / "logs" / "tables" / where.name / "comparison.json"
        try:
            arguments = json.loads(record.read_text(encoding="utf-8"))["arguments"]
            plan = arguments["settings"]["plan"]
            plan["jobs"], plan["groups"]
        except (OSError, ValueError, KeyError, TypeError):
            remedy = f"name its configuration file instead, or run it again ({record} is not there or not readable)"
            raise InputError(
                where, expected="the folder of a study with prompts", found="none", remedy=remedy
            ) from None
        return Finished(where.name, where.parent, where, plan)
    if not where.is_file():
        remedy = "name a configuration file, or a folder such as results/NAME"
        raise InputError(where, expected="a study", found="nothing there", remedy=remedy)
    from sambench.config import read_study, read_study_file

    study = read_study(read_study_file(where))
    return Finished(study.name, Path(study.results), Path(study.folder), paired.plan(study))


def category_names(results: Path, dataset: str) -> dict[int, str]:
    """The names of the categories of an indexed data set, where its annotation file has them."""
    file = Path(instances_file(results, dataset))
    if not file.is_file():
        return {}
    names = json.loads(read_provenance(file).get("category_names", "{}"))
    return {int(number): str(name) for number, name in names.items()}
