"""Whether the image files of a dataset are still the same: cheap enough to be asked each time that a study is planned.

The identity of a file is its size and a digest of its content: of four samples, which are all of a file of up to
64 KiB, or of everything (`check_images: full`). Samples miss only a change in the middle of a file that keeps its size,
as none in a compressed picture does. Times do not count, so touching or copying a dataset changes nothing; they only
say which files have to be read again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from sambench.files import default_cache, write_text

SAMPLE = 16 * 1024  # bytes
SAMPLES = 4
ABSENT = "absent"
_READERS = 8  # threads, which mostly wait for the disk
_NAME = re.compile(rb'"(?:file_name|coco_url)"\s*:\s*("(?:[^"\\]|\\.)*")')


def identity(path: str | Path, *, whole: bool = False) -> str:
    """`SIZE:DIGEST` of a file. whole: read all of it. Raises OSError where it cannot be read."""
    hasher = hashlib.sha256()
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if whole or size <= SAMPLE * SAMPLES:
            while piece := file.read(1 << 20):
                hasher.update(piece)
        else:
            for number in range(SAMPLES):
                file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
                hasher.update(file.read(SAMPLE))
    return f"{size}:{hasher.hexdigest()[:32]}"


def identities(paths: Sequence[str], *, whole: bool = False) -> list[str]:
    """The identity of each file, ABSENT for one that is not there; what was found is kept for the next time."""
    entry = (
        default_cache() / "pictures" / f"{hashlib.sha256(repr((sorted(paths)[:1], whole)).encode()).hexdigest()}.json"
    )
    known: dict[str, list[object]] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(entry.read_text(encoding="utf-8"))

    def look(path: str) -> tuple[str, list[object]]:
        try:
            stat = Path(path).stat()
            facts: list[object] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            kept = known.get(path)
            if isinstance(kept, list) and kept[:-1] == facts:
                return path, kept
            return path, [*facts, identity(path, whole=whole)]
        except OSError:
            return path, [ABSENT]

    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(pool.map(look, paths, chunksize=64))
    fresh = {path: facts for path, facts in found.items() if facts != [ABSENT]}
    if fresh != known:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            write_text(entry, json.dumps(fresh))
    return [str(found[path][-1]) for path in paths]


def picture_path(folder: str | Path, name: str) -> Path:
    """The file of an image: `file_name` in the folder, also with backslashes or after the folder's own name."""
    folder, plain = Path(folder), name.replace("\\", "/").removeprefix("./")
    first, _, rest = plain.partition("/")
    if plain != name and (folder / name).is_file():
        return folder / name
    if rest and first == folder.resolve().name and not (folder / plain).is_file() and (folder / rest).is_file():
        return folder / rest
    return folder / plain


def dataset_identity(annotations: Iterable[str | Path], folder: str | Path, *, whole: bool = False) -> str:
    """One digest of all image files that annotation files name, of whatever format; `absent` without such a file."""
    try:
        names = sorted({name for path in annotations for name in _names(str(path), Path(path).stat().st_mtime_ns)})
    except OSError:
        return ABSENT
    found = identities([str(picture_path(folder, name)) for name in names], whole=whole)
    return hashlib.sha256(json.dumps([names, found]).encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def _names(path: str, _modified: int) -> tuple[str, ...]:
    """The image files that an annotation file names: found in its bytes, since parsing takes twenty times as long."""
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError):
            return ()
    names = set()
    for text in _NAME.findall(content):
        with contextlib.suppress(ValueError):
            name = json.loads(text)
            names.add("/".join(name.split("/")[-2:]) if "://" in name else name)
    return tuple(sorted(names))
