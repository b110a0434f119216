"""The cache that all checkouts of a user share, and the links from a checkout into it.

    <cache>/<name>-<digest>/<file>           a finished file (an archive only until it is unpacked)
    <cache>/<name>-<digest>/<file>.part      the beginning of one, and <file>.part.json: the version that it is of
    <cache>/<name>-<digest>/unpacked/        the content of an archive
    <cache>/<name>-<digest>/receipt.json     written last: what is here has been checked

The digest in the name keeps two versions of a file apart, so that checkouts of different age do not disturb each other.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from sambench.downloads import hub
from sambench.downloads.archives import unpack
from sambench.downloads.catalogue import Download, Retrieval, file_digest, find, from_checkpoints, read_table
from sambench.downloads.transfer import RetryPolicy, TransferError, check_space, receive, size
from sambench.errors import InputError
from sambench.files import default_cache, write_text

RECEIPT = "receipt.json"


def default_offline() -> bool:
    """Whether SAMBENCH_OFFLINE is set to anything but 0 and the empty text."""
    return os.environ.get("SAMBENCH_OFFLINE", "") not in ("", "0")


@dataclass(frozen=True)
class Store:
    """A cache folder and how to fill it."""

    folder: Path = field(default_factory=lambda: default_cache().absolute())
    offline: bool = field(default_factory=default_offline)
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    def entry(self, item: Download) -> Path:
        """The folder of an item."""
        digest = item.digest.partition(" ")[2][:12]
        return self.folder / (f"{item.name}-{digest}" if digest else item.name)

    def path(self, item: Download) -> Path:
        """Where an item's content lies once it is here."""
        return self.entry(item) / "unpacked" / item.unpack if item.unpack else self.entry(item) / item.file

    def has(self, item: Download) -> bool:
        """Whether an item is here, whole and checked."""
        path = self.path(item)
        try:
            receipt = json.loads((self.entry(item) / RECEIPT).read_text(encoding="utf-8"))
            return path.exists() and (bool(item.unpack) or path.stat().st_size == receipt["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def placed(self, item: Download) -> bool:
        """Whether the checkout has an item: a link to it, or a file or folder of the user's own."""
        if item.target.is_symlink() and (link := item.target.readlink()).is_relative_to(self.folder):
            return link == self.path(item) and self.has(item)
        return item.target.exists()

    def waits(self, item: Download) -> bool:
        """Whether the file is here but has not been checked or unpacked yet: put there by hand, or before a kill."""
        return (self.entry(item) / item.file).is_file()

    def get(self, item: Download) -> Path:
        """The content of an item, fetched if need be, checked and unpacked.

        Raises InputError, one line, when no address gives it, and leaves no more than a `.part` file behind.
        """
        entry = self.entry(item)
        try:
            entry.mkdir(parents=True, exist_ok=True)
            with _alone(entry.with_name(entry.name + ".lock"), item.name):
                if not self.has(item):
                    self._fill(item, entry)
        except OSError as error:
            raise InputError(error.filename or entry, found=error.strerror or error) from None
        return self.path(item)

    def _fill(self, item: Download, entry: Path) -> None:
        file = entry / item.file
        if fetched := not file.exists():
            source, known = self._fetch(item, file)
        else:  # put there by hand, or a kill came just before the receipt
            source, known = str(file), item
            if problem := item.problem(file):
                remedy = "delete it, or put the right file there"
                raise InputError(file, expected=item.facts(), found=problem, remedy=remedy)
        if not known.digest:
            print(f"{item.name}: sha256 {file_digest(file, 'sha256')}, nothing to compare it with", file=sys.stderr)
        if item.unpack:
            try:
                self._unpack(item, file)
            except (InputError, OSError):
                if fetched and not known.digest:
                    file.unlink()  # or every later run would stumble over it
                raise
        receipt = {"file": item.file, "bytes": size(file), "digest": known.digest, "source": source}
        write_text(entry / RECEIPT, json.dumps(receipt, indent=1) + "\n")
        if item.unpack:
            file.unlink()

    def _fetch(self, item: Download, file: Path) -> tuple[str, Download]:
        """Fill `file` from the first address that gives it; that address, and what it must be according to it."""
        where = f"put {item.file} by hand at {file}"
        if self.offline:
            raise InputError(item.name, expected=item.facts(), found="no file, and this is offline", remedy=where)
        part = file.with_name(file.name + ".part")
        refusals = []
        for number, url in enumerate(item.urls, 1):
            last = number == len(item.urls) and item.package is None
            try:
                address, headers, known = hub.resolve(url, item) if hub.serves(url) else (url, {}, item)
                receive(address, known, part, self.policy if last else self.policy.with_alternative(), headers)
            except TransferError as refusal:
                refusals.append(f"{refusal} at {url}")
                continue
            _finish(part, file)
            return url, known
        if item.package:
            from sambench.downloads.packages import receive_member

            try:
                source = receive_member(item, part, self.policy)
            except TransferError as refusal:
                refusals.append(str(refusal))
            else:
                _finish(part, file)
                return source, item
        found = "; ".join(refusals) or "no public address"
        raise InputError(item.name, expected=item.facts(), found=found, remedy=f"try again later, or {where}")

    def _unpack(self, item: Download, file: Path) -> None:
        final = file.with_name("unpacked")
        staging = file.with_name("unpacked.part")
        for leftover in (staging, final):
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir()
        try:
            unpack(file, staging, self._wanted(item))
            if not (staging / item.unpack).exists():
                content = sorted(path.name for path in staging.iterdir())
                raise InputError(file, expected=f"{item.unpack} in it", found=", ".join(content[:5]) or "nothing")
            staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _wanted(self, item: Download) -> set[str] | None:
        """The pictures of an archive that its annotation file names; None: all of them."""
        if not item.only:
            return None
        from sambench.datasets.annotations import read_document
        from sambench.downloads.catalogue import read_table

        named = read_table()[item.only]
        file = named.target if named.target.exists() else self.get(named)
        images = read_document(file, segmentations=False)["images"]
        return {"/".join(str(image.get("coco_url", "")).split("/")[-2:]) for image in images}

    def place(self, item: Download) -> None:
        """Link the checkout's path to the content. A file of the user's own stays what it is."""
        target, path = item.target, self.path(item)
        if target.exists() and not target.is_symlink():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path)
        temporary.replace(target)


def _finish(part: Path, file: Path) -> None:
    """Give a whole file its name once it is on the disk."""
    with part.open("rb") as whole:
        os.fsync(whole.fileno())
    part.replace(file)


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Hold a lock that the end of the process frees, however it ends."""
    guard = FileLock(lock)
    try:
        guard.acquire(timeout=0)
    except Timeout:
        print(f"{name}: another process is fetching it; waiting", file=sys.stderr, flush=True)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


def download_all(items: Iterable[Download], store: Store) -> None:
    """Fetch and link what the checkout lacks; one that fails does not keep the others from coming.

    Raises InputError when something is missing at the end, or at once when the disk is too small for all of it. What
    must be put where by hand is printed, one line per file.
    """
    missing = [item for item in items if not store.placed(item)]
    absent = [item for item in missing if not store.has(item) and not store.waits(item)]
    if store.offline and absent:
        for item in absent:
            source = f"from {item.source}" if item.source else "which has no public address"
            print(f"{item.name}: {item.file}, {item.facts()}, {source}: put it at {store.entry(item) / item.file}")
        found = f"offline, and {len(absent)} of them missing"
        raise InputError("downloads", expected="the files above", found=found, remedy="put them there and run again")
    check_space(_existing(store.folder), sum(_needed(item, store) for item in absent))
    errors: list[InputError] = []
    for item in missing:
        try:
            store.get(item)
            store.place(item)
            print(f"{item.name}: {item.target}", flush=True)
        except InputError as error:
            errors.append(error)
            if len(missing) > 1:
                print(f"error: {error}", file=sys.stderr, flush=True)
        except OSError as error:
            errors.append(InputError(item.target, found=error.strerror or error, remedy="make the folder writable"))
    _report(errors, missing)


def retrieve(retrieval: Retrieval, folders: Sequence[Path], cache: str = "", *, offline: bool = False) -> list[str]:
    """Fetch what is missing of a dataset, variant, detector or set of textures; say per file what is there now.

    cache: a folder; empty: the default. Raises InputError when a dataset stays incomplete; what else is missing is
    printed, and becomes a status of its results.
    """
    table = read_table()
    items = find(retrieval.names, table, {}, folders) + from_checkpoints(retrieval.checkpoints, folders)
    store = Store((Path(cache) if cache else default_cache()).expanduser().absolute(), offline)
    if retrieval.sample:
        return [_retrieve_sample(retrieval.sample, table, store)]
    if retrieval.wanted:
        try:
            download_all(items, store)
        except InputError as error:
            if retrieval.kind == "datasets":
                raise
            print(f"{retrieval.name}: {error}", file=sys.stderr)
    return [f"{item.target}: {'here' if store.placed(item) else 'missing'}" for item in items]


def _retrieve_sample(facts: Mapping[str, Any], table: Mapping[str, Download], store: Store) -> str:
    from sambench.downloads.sample import Sample, fetch_sample

    whole = find([facts["whole"]], table, {}, [])[0] if facts["whole"] else None
    paths = {name: Path(facts[name]) for name in ("annotations", "folder")}
    sample = Sample(**{**facts, **paths, "whole": whole})
    if not sample.annotations.exists():
        fetch_sample(sample, store)
    return f"{sample.annotations}: here"


def show_all(items: Iterable[Download], store: Store) -> None:
    """Print a table of downloads: what each is, how large, under which licence, and whether it is here."""
    table = Table("name", "kind", "MB", "state", "licence", "belongs at", "note", box=None, pad_edge=False)
    for item in items:
        mb = "" if item.bytes is None else f"{item.bytes / 1e6:.1f}"
        state = "here" if store.placed(item) else "in the cache" if store.has(item) else "missing"
        table.add_row(item.name, item.kind, mb, state, item.licence, str(item.target), item.note)
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(table)
    console.print(f"\ncache: {store.folder}", soft_wrap=True, highlight=False, markup=False)


def _report(errors: Sequence[InputError], missing: Sequence[Download]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputError("downloads", expected=f"{len(missing)} files", found=f"{len(errors)} failures, told above")


def _needed(item: Download, store: Store) -> int:
    """Bytes of disk that an item will take at most; an archive lies there twice for a while."""
    total = item.bytes or 0
    here = size((part := store.entry(item) / item.file).with_name(part.name + ".part"))
    return max(total - here, 0) + (total if item.unpack else 0)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
