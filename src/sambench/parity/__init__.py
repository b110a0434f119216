"""Parity: our code against numbers that the official code gave (fixtures; see docs/protocol.md).

report = check(Path("mobile_sam.json"))
report.ok, report.rows
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sambench.errors import InputError
from sambench.parity.fixtures import Report, Row, read_fixture

__all__ = ["CHECKS", "Report", "Row", "check", "kind", "main", "render"]

# What checks a kind of fixture: `module:function`, path -> Report. Imported only when such a fixture is met.
CHECKS = {
    "model": "sambench.parity.models:check",
    "boxes": "sambench.parity.models:check_boxes",
    "clicker": "sambench.parity.clicks:check",
    "fastsam": "sambench.parity.fastsam:check",
    "fastsam_prompt": "sambench.parity.fastsam:check",
    "fastsam_sizes": "sambench.parity.fastsam:check_sizes",
    "generator": "sambench.parity.generators:check",
    "detic": "sambench.parity.detic:check",
    "hdetr": "sambench.parity.hdetr:check",
    "vitdet": "sambench.parity.vitdet:check",
    "volume": "sambench.parity.volumes:check",
}
# Detectors, whose fixtures say `family/name` under `model`.
DETECTORS = ("detic", "hdetr", "vitdet")
# The fields by which a kind is known, the first that has them all; they say it, not the file's name.
FIELDS = (
    ("model", ("state_dict", "prompts_input")),
    ("boxes", ("state_dict", "boxes_input")),
    ("volume", ("state_dict", "volume_prompts")),
    ("fastsam", ("state_dict", "input", "results")),
    ("fastsam_prompt", ("masks", "cases")),
    ("fastsam_sizes", ("sides", "instances")),
    ("clicker", ("records", "tiny_cases")),
    ("generator", ("generator", "runs")),
)


def kind(fixture: dict[str, Any]) -> str | None:
    """The key of CHECKS that a fixture belongs to, None for an unknown one."""
    family, slash, _ = str(fixture.get("model", "")).partition("/")
    if slash and family in DETECTORS:
        return family
    return next((name for name, fields in FIELDS if all(field in fixture for field in fields)), None)


def check(path: Path) -> Report:
    """Compare with one fixture of any kind.

    Raises InputError when the file is no fixture, or what it needs (a variant, a package, data) is not here.
    """
    path = Path(path)
    found = kind(read_fixture(path))
    if found is None:
        raise InputError(path, expected=f"a parity fixture ({', '.join(CHECKS)})", found="none of their fields")
    module, _, function = CHECKS[found].partition(":")
    report: Report = getattr(importlib.import_module(module), function)(path)
    return report


def render(reports: Iterable[Report], console: Console | None = None) -> int:
    """Print the largest error of each stage and fixture. Returns the exit status, 0 or 1."""
    console = console or Console()
    reports = list(reports)
    table = Table("fixture", "stage", "comparisons", "largest error", "tolerance", "")
    for report in reports:
        stages = dict.fromkeys(row.stage for row in report.rows)
        for stage in stages:
            rows = [row for row in report.rows if row.stage == stage]
            worst = max(rows, key=_severity)
            verdict = "ok" if worst.ok else f"[red]FAIL[/red] {worst.what}"
            table.add_row(
                report.fixture.name,
                stage,
                str(len(rows)),
                f"{worst.error:.2g}",
                f"{worst.tolerance:.2g}",
                verdict,
            )
        if not report.rows:
            table.add_row(report.fixture.name, "", "0", "", "", "[red]FAIL[/red] nothing compared")
    console.print(table)
    return 0 if all(report.ok for report in reports) else 1


def main(paths: Sequence[Path]) -> int:
    """Check fixtures and print the table; 1 when one is over tolerance or could not be compared."""
    reports = []
    for path in paths:
        try:
            reports.append(check(path))
        except InputError as error:
            reports.append(Report(Path(path), (Row("input", str(error), float("inf"), 0.0),)))
    return render(reports)


def _severity(row: Row) -> tuple[bool, float, float]:
    """How far over its tolerance a row is; failures and NaN first."""
    if not row.ok:
        return True, float("inf") if row.error != row.error else row.error, 0.0
    return False, row.error / row.tolerance if row.tolerance else 0.0, row.tolerance
