"""Unpacking untrusted archives: only plain files and folders, and nothing outside of the folder given."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from sambench.downloads.transfer import check_space
from sambench.errors import InputError
from sambench.progress import track

# RuntimeError is how zipfile says that a member is encrypted, NotImplementedError that it is packed in an unknown way.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError, NotImplementedError),
)


# An archive may be so many times larger than it is packed, once that is more than SMALL bytes: annotations in JSON are
# 10 times larger, masks and run-lengths up to 100 times; what exists to fill a disk starts at 1,000.
RATIO, SMALL, MEMBERS = 200, 200_000_000, 5_000_000


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    kind: str  # file, folder, or what else it is
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, wanted: Collection[str] | None = None) -> None:
    """Unpack a zip or tar archive into an empty folder. wanted: the last two parts of the paths of all files that are
    needed, as `train2017/000000000009.jpg`; by default all are.

    All names and sizes are looked at before the first file is written.

    Raises InputError for a damaged or encrypted archive, a path that leaves the folder or is too long, a link or a
    special file, much more content than such an archive can honestly hold, and a disk that is too small.
    """
    try:
        with _members(archive) as members:
            files = [member for member in members if member.kind != "folder"]
            if wanted is not None:
                files = [member for member in files if "/".join(PurePosixPath(member.name).parts[-2:]) in wanted]
            check_space(folder, sum(member.size for member in files))
            for member in track(files, len(files), f"unpacking {archive.name}"):
                _write(archive, member, folder)
    except _DAMAGE as error:
        raise _damaged(archive, error) from None


def extract(archive: Path, member: str, file: Path) -> None:
    """Write one file of a zip or tar archive to `file`. member: its path, without the archive's top folder or with it.

    Raises InputError for a damaged archive, one that does not hold the file once, and a disk that is too small.
    """
    try:
        with _members(archive) as members:
            found = [item for item in members if member in (item.name, item.name.partition("/")[2])]
            if len(found) != 1 or found[0].kind != "file":
                raise _refusal(archive, f"the file {member} in it", f"{len(found)} of that name")
            check_space(file.parent, found[0].size)
            stream = found[0].open()
            assert stream is not None
            with stream, file.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
    except _DAMAGE as error:
        raise _damaged(archive, error) from None


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _checked(
                archive,
                (
                    _Member(info.filename, info.file_size, _zip_kind(info), lambda info=info: packed.open(info))  # type: ignore[misc]
                    for info in packed.infolist()
                ),
            )
    else:
        with tarfile.open(archive) as packed:
            yield _checked(
                archive,
                (
                    _Member(info.name, info.size, _tar_kind(info), lambda info=info: packed.extractfile(info))  # type: ignore[misc]
                    for info in packed
                ),
            )


def _checked(archive: Path, members: Iterator[_Member]) -> list[_Member]:
    """The members, each looked at when it is found: a tar that goes on for ever is read no further than its limit.

    A zip cannot hold more than the sizes that it names: zipfile stops there.
    """
    limit = max(SMALL, RATIO * archive.stat().st_size)
    found, total = [], 0
    for member in members:
        _check(archive, member)
        found.append(member)
        total += member.size
        if total > limit or len(found) > MEMBERS:
            size = archive.stat().st_size
            expected = f"at most {RATIO} times its {size} bytes, in at most {MEMBERS} files"
            raise _refusal(archive, expected, f"more than {total} bytes in {len(found)} files")
    return found


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    if info.is_dir():
        return "folder"
    return "file" if mode in (0, stat.S_IFREG) else "link" if mode == stat.S_IFLNK else "special file"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else "link" if info.issym() or info.islnk() else "special file"


def _check(archive: Path, member: _Member) -> None:
    if member.kind not in ("file", "folder"):
        raise _refusal(archive, "files and folders only", f"the {member.kind} {member.name!r}")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name or "\0" in member.name:
        raise _refusal(archive, "paths that stay in the folder", repr(member.name[:200]))
    if len(member.name) > 1000 or any(len(part.encode(errors="replace")) > 255 for part in path.parts):
        raise _refusal(
            archive, "names that a file system takes", f"{member.name[:60]!r}... of {len(member.name)} letters"
        )


def _write(archive: Path, member: _Member, folder: Path) -> None:
    path = folder / member.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = member.open()
        assert stream is not None  # a plain file, _check has seen to it
        with stream, path.open("xb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except (FileExistsError, NotADirectoryError):
        raise _refusal(archive, "every path once", repr(member.name)) from None


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
    return _refusal(archive, "an archive that can be unpacked", reason)


def _refusal(archive: Path, expected: str, found: str) -> InputError:
    return InputError(archive, expected=expected, found=found, remedy="nothing of it was used")
