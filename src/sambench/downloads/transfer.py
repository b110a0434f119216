"""One file over HTTP into a `.part` file, taken up again where the last attempt ended, and checked at the end."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

import sambench
from sambench.downloads.catalogue import Download
from sambench.downloads.meter import Meter, metered
from sambench.errors import InputError

# Who raises these has not seen the server.
UNREACHED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)
# Answers that may be another one in a moment; every other one from 400 on is final.
PASSING = (408, 425, 429, 500, 502, 503, 504)
UNKNOWN_LENGTH = 20_000_000_000  # bytes that are taken of a file of unknown length
LONGEST_PAUSE = 60.0  # seconds, whatever a server's Retry-After asks for


@dataclass(frozen=True)
class RetryPolicy:
    """connect, read: seconds without an answer or a byte. attempts: how many in a row may bring no new byte.
    pause: seconds before the second attempt, twice as long before each further one. connections: how many in a row may
    not reach the server at all."""

    connect: float = 20.0
    read: float = 60.0
    attempts: int = 5
    pause: float = 1.0
    connections: int = 5

    def with_alternative(self) -> RetryPolicy:
        """For an address that is not worth waiting for, since another one has the same file."""
        return replace(self, connections=1)


class TransferError(Exception):
    """An address does not give the file; another one may."""


class TransferInterrupted(Exception):
    """A transfer that ended early and may be taken up again, after `wait` seconds if the server says so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def receive(
    url: str,
    item: Download,
    part: Path,
    policy: RetryPolicy,
    headers: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    quiet: bool = False,
) -> None:
    """Fetch `url` into `part`, whose content counts as the beginning of the file, until it is whole and right.

    When the whole is wrong and its beginning came from another attempt, everything is fetched once more: a server
    may have changed the file in between. What is wrong after that is deleted. options: further arguments of
    httpx2.Client, such as `auth`. quiet: one of many small files, without a progress bar of its own.

    Raises TransferError when the address does not give the file that `item` describes.
    """
    timeout = httpx2.Timeout(policy.read, connect=policy.connect)
    agent = {"User-Agent": f"sambench/{sambench.__version__}", "Accept-Encoding": "identity"}
    with (
        httpx2.Client(
            timeout=timeout,
            follow_redirects=True,
            max_redirects=10,
            headers=agent,
            event_hooks={"request": [partial(refuse_detour, url)]},
            **(options or {}),
        ) as client,
        nullcontext(Meter(item.file, None)) if quiet else metered(item.file) as meter,
    ):
        for chance in (1, 2):
            pieces = _Pieces(client, url, headers or {}, item, part, meter)
            _persist(pieces.fetch, part, policy)
            problem = item.problem(part)
            if not problem:
                _note(part).unlink(missing_ok=True)
                return
            discard(part)
            if pieces.unbroken or chance == 2:
                raise TransferError(problem)


def refuse_detour(url: str, request: httpx2.Request) -> None:
    """Raise TransferError for a redirect from `url` that leaves https, or leads into this machine or its network.

    An address of the user's own may be plain, or in that network: then redirects may be too.
    """
    first, then = urlsplit(url), urlsplit(str(request.url))
    if (then.scheme, then.netloc) == (first.scheme, first.netloc):
        return
    if first.scheme == "https" and then.scheme != "https":
        raise TransferError(f"a redirect from https to {then.scheme}")
    if not is_inside(first.hostname or "") and is_inside(then.hostname or ""):
        raise TransferError(f"a redirect to {then.hostname}, which is inside of this network")


def is_inside(host: str) -> bool:
    """Whether a name leads to this machine, its network or its cloud's services, by any of its addresses."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False  # a name that only a proxy knows: it decides
    return any(not ip_address(str(address).partition("%")[0]).is_global for address in found)


def discard(part: Path) -> None:
    """Forget the beginning of a file."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _persist(attempt: Callable[[], None], part: Path, policy: RetryPolicy) -> None:
    """Call until it succeeds; attempts that lengthen the file do not count as failures."""
    longest, failures = size(part), 0
    while True:
        try:
            return attempt()
        except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
            raise TransferError(str(error)) from None
        except (httpx2.TransportError, TransferInterrupted) as error:
            failures = 0 if size(part) > longest else failures + 1
            longest = max(longest, size(part))
            limit = min(policy.connections, policy.attempts) if isinstance(error, UNREACHED) else policy.attempts
            if failures >= limit:
                raise TransferError(f"{_describe(error)}, {failures} times") from None
            wait = error.wait if isinstance(error, TransferInterrupted) else 0.0
            time.sleep(min(max(wait, policy.pause * 2 ** max(failures - 1, 0)), LONGEST_PAUSE))


def _describe(error: Exception) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    return " ".join(str(error).split()) or type(error).__name__


@dataclass
class _Pieces:
    """The responses that one file is put together from; `unbroken` when the last one gave all of it."""

    client: httpx2.Client
    url: str
    headers: Mapping[str, str]
    item: Download
    part: Path
    meter: Meter
    unbroken: bool = False

    def __post_init__(self) -> None:
        if self.item.bytes is not None and size(self.part) > self.item.bytes:
            discard(self.part)

    def fetch(self) -> None:
        """Ask for what is missing and append it.

        Raises TransferInterrupted, TransferError or a transport error of httpx2.
        """
        offset = self._usable()
        if offset and offset == self.item.bytes:
            return
        asked = {**self.headers, **self._range(offset)}
        with self.client.stream("GET", self.url, headers=asked) as response:
            start = self._start(response, offset)
            if start is None:
                return
            total = self._total(response, start)
            check_space(self.part.parent, (total or 0) - start)
            self._append(response, start, total)

    def _usable(self) -> int:
        """How many bytes of the part may be kept: all, unless nothing could tell two versions of the file apart."""
        offset = size(self.part)
        if offset and not self.item.digest and not self._validator():
            discard(self.part)
            return 0
        return offset

    def _range(self, offset: int) -> dict[str, str]:
        if not offset:
            return {}
        condition = self._validator()
        return {"Range": f"bytes={offset}-"} | ({"If-Range": condition} if condition else {})

    def _start(self, response: httpx2.Response, offset: int) -> int | None:
        """The byte that the response starts with, None when nothing is missing; whatever is no file is refused."""
        status = response.status_code
        if status == 416 and offset:
            if _announced(response) == offset:
                return None
            discard(self.part)
            raise TransferInterrupted("the server has less than the beginning that is here")
        if status in PASSING:
            raise TransferInterrupted(f"HTTP {status}", _retry_after(response))
        if status not in (200, 206):
            raise TransferError(f"HTTP {status} {response.reason_phrase}".rstrip())
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html":
            raise TransferError("a web page")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TransferError(
                f"an answer in the encoding {response.headers['Content-Encoding']}, which was not asked for"
            )
        if status == 200:
            return 0
        match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not offset or match is None or int(match[1]) != offset:
            discard(self.part)
            raise TransferInterrupted("the server answers with a part that was not asked for")
        if (before := self._validator()) and (now := _version(response)) and now != before:
            discard(self.part)
            raise TransferInterrupted("the file has changed on the server")
        return offset

    def _total(self, response: httpx2.Response, start: int) -> int | None:
        """The length of the whole file as the server has it; refused when it is not the known one."""
        length = response.headers.get("Content-Length", "")
        total = _announced(response)
        if total is None and length.isdecimal():
            total = start + int(length)
        if total is not None and self.item.bytes is not None and total != self.item.bytes:
            raise TransferError(f"{total} bytes")
        if total is None and self.item.bytes is None and not self.item.digest:
            raise TransferError("an answer of unknown length, and there is no digest to check it by")
        return total

    def _append(self, response: httpx2.Response, start: int, total: int | None) -> None:
        limit = self.item.bytes if self.item.bytes is not None else total
        most = UNKNOWN_LENGTH if limit is None else limit
        self.meter.begin(start, limit)
        with self.part.open("ab") as file:
            # In this order, so that a validator never stands beside the beginning of another version.
            if start == 0:
                file.truncate(0)
                _write_note(self.part, self.url, response)
            self.unbroken = start == 0
            length = start
            for piece in response.iter_raw():
                length += len(piece)
                if length > most:
                    discard(self.part)
                    raise TransferError(f"more than {most} bytes")
                file.write(piece)
                file.flush()  # so that a kill loses nothing that has come in
                self.meter.advance(len(piece))
        if limit is not None and length < limit:
            raise TransferInterrupted(f"the answer ends after {length} of {limit} bytes")

    def _validator(self) -> str:
        """What this address called the version that the part is from."""
        try:
            note = json.loads(_note(self.part).read_text(encoding="utf-8"))
            return str(note["validator"]) if note["url"] == self.url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def size(path: Path) -> int:
    """The size of a file, 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def check_space(folder: Path, needed: int) -> None:
    """Raise InputError when a folder's disk has not so many bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            folder,
            expected=f"{needed / 1e9:.2f} GB free",
            found=f"{free / 1e9:.2f} GB",
            remedy="free some space, or move the cache with SAMBENCH_CACHE",
        )


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_note(part: Path, url: str, response: httpx2.Response) -> None:
    """Remember the version that is coming in."""
    _note(part).write_text(json.dumps({"url": url, "validator": _version(response)}), encoding="utf-8")


def _version(response: httpx2.Response) -> str:
    """What the server calls this version of the file. Weak validators say nothing about bytes."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _announced(response: httpx2.Response) -> int | None:
    match = re.search(r"/(\d+)\s*$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(response: httpx2.Response) -> float:
    """Seconds: the header has a number of them, or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
