"""Digests of files, computed once: a large file's digest is kept in the cache under its path, size and times."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from sambench.files import default_cache, write_text

KINDS = {"sha256": 64, "git_blob": 40}  # and the length in hexadecimal
WORTH_KEEPING = 1 << 20  # bytes; a smaller file is read again
_PIECE = 1 << 20


def digest(path: Path, kind: str = "sha256") -> str:
    """The digest of a file's content in hexadecimal; kind: `sha256`, or `git_blob` as `git hash-object` gives it.

    A file that was changed in any way has other times (the change time cannot be set), so it is read again.
    Raises OSError when the file cannot be read.
    """
    stat = path.stat()
    if stat.st_size < WORTH_KEEPING:
        return _compute(path, kind, stat.st_size)
    facts = (path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, kind)
    entry = default_cache() / "digests" / hashlib.sha256(repr(facts).encode()).hexdigest()
    try:
        known = entry.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        known = ""
    if len(known) == KINDS[kind] and set(known) <= set("0123456789abcdef"):
        return known
    found = _compute(path, kind, stat.st_size)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        write_text(entry, found)
    return found


def _compute(path: Path, kind: str, size: int) -> str:
    hasher = hashlib.new("sha1" if kind == "git_blob" else kind, usedforsecurity=False)
    if kind == "git_blob":
        hasher.update(b"blob %d\0" % size)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()
