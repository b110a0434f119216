"""The one kind of error that is the user's to fix, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class InputError(Exception):
    """A file, a field or an argument that sambench cannot use.

    The message names what was read, the field, what was expected, what was found and what to do about it:

        instances.json: annotations[3].image_id: expected an id listed under `images`, found 17; add ...

    The parts are attributes of the same names.
    """

    def __init__(
        self,
        where: str | Path,
        field: str = "",
        *,
        expected: str = "",
        found: object = None,
        remedy: str = "",
    ) -> None:
        self.where, self.field, self.expected, self.found, self.remedy = where, field, expected, found, remedy
        parts = [str(where)]
        if field:
            parts.append(field)
        finding = f"expected {expected}" if expected else ""
        if found is not None:
            finding += f"{', ' if finding else ''}found {found}"
        if finding:
            parts.append(finding)
        message = ": ".join(parts)
        super().__init__(f"{message}; {remedy}" if remedy else message)


class BadWeights(InputError):
    """A checkpoint file that cannot be read, or that is not the one of the variant (status `bad weights`)."""


class UnsupportedRuntime(InputError):
    """A runtime that a variant turns out not to run in (status `unsupported runtime`)."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """`did you mean a, b?` for a mistyped name, or the known names when nothing is near."""
    known = sorted(known)
    return close_matches(name, known) or f"known: {', '.join(known)}"


def close_matches(name: str, known: Iterable[str]) -> str:
    """`did you mean a, b?` for a mistyped name; empty when nothing is near."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else ""
