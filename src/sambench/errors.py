"""The one kind of error that the user can fix, reported in one line."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
        parts = [_shortened(str(where), 1000)]
        if field:
            parts.append(field)
        finding = f"expected {expected}" if expected else ""
        if found is not None:
            finding += f"{', ' if finding else ''}found {_shortened(str(found), 500)}"
        if finding:
            parts.append(finding)
        message = ": ".join(parts)
        super().__init__(f"{message}; {remedy}" if remedy else message)


def _shortened(text: str, length: int) -> str:
    """A text in one line, with its middle left out where it is longer than `length`."""
    line = " ".join(text.splitlines()) if not text.isprintable() else text
    return line if len(line) <= length else f"{line[: length // 2]}...{line[-length // 3 :]}"


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


# What the machine refuses, and no bug: by number of the system's error, with what helps.
REFUSED = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.EROFS: "name a folder that may be written",
    errno.EACCES: "change its permissions or name another one",
    errno.EPERM: "change its permissions or name another one",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: "check the disk",
}


def refusal_of(error: BaseException) -> str:
    """One line for an error that is the machine's or its user's to mend; empty for what must be a bug."""
    if isinstance(error, InputError):
        return str(error)
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    if number is None and ("disk is full" in text or "No space left on device" in text):
        number = errno.ENOSPC  # as databases and archives say it
    if number not in REFUSED:
        return ""
    if isinstance(error, OSError) and error.filename is not None:
        where, why = str(error.filename), (error.strerror or "").lower()
    else:
        where, why = "disk", text[:200]
    shown = where if len(where) <= 200 else f"{where[:100]}...{where[-60:]}"
    return str(InputError(shown, found=why or text[:200], remedy=REFUSED[number]))


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the process with one line and status 1 for what its user can mend; any other exception is a bug and shows."""
    try:
        yield
    except KeyboardInterrupt:  # who pressed Ctrl-C knows
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = refusal_of(error)
        if not line:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
