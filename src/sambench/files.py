"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    The file reaches the disk before it gets its name, so a power cut leaves the old content or the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files private; give them the permissions that a plain open would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; not for a name that no file system takes."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for these


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; not for a name that no file system takes."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for these


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def default_cache() -> Path:
    """The folder that all checkouts of a user share: SAMBENCH_CACHE, else ~/.cache/sambench on Linux."""
    return Path(os.environ.get("SAMBENCH_CACHE") or user_cache_path("sambench")).expanduser()
