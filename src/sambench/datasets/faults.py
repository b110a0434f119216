"""What is wrong with the entries of a file, collected so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sambench.errors import InputError
from sambench.files import write_text


class Faults:
    """Refusals by kind of entry, such as `annotations`; `stop` raises one InputError for all of them.

    report: a text file that then lists every one, a line each.
    """

    def __init__(self, report: Path | None = None) -> None:
        self.report = report
        self.of_kind: dict[str, list[InputError]] = {}

    @contextmanager
    def collected(self, kind: str) -> Iterator[None]:
        """Takes in the InputError of one entry."""
        try:
            yield
        except InputError as error:
            self.add(kind, error)

    def add(self, kind: str, error: InputError) -> None:
        self.of_kind.setdefault(kind, []).append(error)

    def stop(self, totals: Mapping[str, int]) -> None:
        """Raise what was collected, if anything: a lone fault as it is, of several their number and the first one.

        totals: how many entries of each kind there are.
        """
        faults = [error for errors in self.of_kind.values() for error in errors]
        if not faults:
            if self.report is not None:
                self.report.unlink(missing_ok=True)
            return
        if len(faults) == 1:
            raise faults[0]
        first = faults[0]
        counts = " and ".join(f"{len(errors)} of {totals[kind]} {kind}" for kind, errors in self.of_kind.items())
        remedy = first.remedy
        if self.report is not None:
            write_text(self.report, "".join(f"{error}\n" for error in faults))
            remedy += f"; all in {self.report}"
        raise InputError(
            first.where,
            f"{counts}, first: {first.field}" if first.field else f"{counts}, first",
            expected=first.expected,
            found=first.found,
            remedy=remedy,
        )
