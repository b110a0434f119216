"""Downloads against a server on this machine that truncates, lies, stalls, redirects and shows error pages."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from sambench.cli import app
from sambench.config import read_registries, read_study
from sambench.downloads import hub, transfer
from sambench.downloads.archives import unpack
from sambench.downloads.catalogue import COLUMNS, Download, file_digest, find, from_checkpoints, read_table, retrievals
from sambench.downloads.store import Store, download_all
from sambench.downloads.transfer import RetryPolicy
from sambench.errors import InputError
from sambench.variants.cards import read_cards

CONTENT = random.Random(0).randbytes(300_000)
PAGE = b"<!DOCTYPE html><html><body>Not what you asked for</body></html>"
IMPATIENT = RetryPolicy(connect=2.0, read=0.3, attempts=3, pause=0.01)
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Answers every path by a function of the test."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self)
        self.close_connection = True
        self.server.answers[self.path](self)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: object) -> None:
        """Send exactly these headers (_ stands for -) and this body."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), "Connection": "close", **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.wfile.flush()

    @property
    def offset(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def serve(
        self, content: bytes = CONTENT, *, upto: int | None = None, tag: str = '"one"', **headers: object
    ) -> None:
        """What an honest server does, ranges included; `upto` bytes of the file, then the connection ends."""
        start = self.offset
        if self.headers.get("If-Range", tag) != tag:
            start = 0
        if start >= len(content):
            self.reply(416, Content_Range=f"bytes */{len(content)}")
            return
        facts: dict[str, object] = {"Content_Length": len(content) - start, "ETag": tag}
        if start:
            facts["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.reply(206 if start else 200, content[start:upto], **{**facts, **headers})


Answer = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {"/file.bin": Handler.serve}
        self.requests: list[Handler] = []
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client went away, which is what many of these tests are about

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", offline=False, policy=IMPATIENT)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make(
    server: Server, folder: Path, content: bytes = CONTENT, path: str = "/file.bin", **changes: object
) -> Download:
    """A download of which everything is known, unless `changes` say otherwise."""
    facts: dict[str, object] = {
        "name": "thing",
        "kind": "weights",
        "file": path.rpartition("/")[2],
        "urls": [server.url + path],
        "target": folder / "weights" / "thing.bin",
        "bytes": len(content),
        "sha256": sha256(content),
    }
    return Download(**{**facts, **changes})  # type: ignore[arg-type]


def unknown(item: Download) -> Download:
    """The same file with nothing known about it."""
    return dataclasses.replace(item, bytes=None, sha256="")


def nothing_looks_finished(store: Store, item: Download) -> bool:
    left = {path.name for path in store.folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
    return left <= {f"{item.file}.part", f"{item.file}.part.json"} and not store.has(item) and not item.target.exists()


def in_turn(answer: Answer, *more: Answer) -> Answer:
    """Answer the first request by the first function, the second by the second; the last one answers all others."""
    queue = [answer, *more]

    def dispatch(handler: Handler) -> None:
        (queue.pop(0) if len(queue) > 1 else queue[0])(handler)

    return dispatch


def stall(handler: Handler, upto: int = HALF) -> None:
    """Some of the file, then silence until the test is over."""
    handler.serve(upto=upto)
    server = handler.server
    server.over.wait(20)


# --- what goes well ---


def test_a_file_comes_is_checked_and_linked(server: Server, store: Store, tmp_path: Path) -> None:
    item = make(server, tmp_path)
    download_all([item], store)
    assert item.target.read_bytes() == CONTENT
    assert item.target.is_symlink() and item.target.readlink() == store.path(item)
    receipt = json.loads((store.entry(item) / "receipt.json").read_text())
    assert receipt["bytes"] == len(CONTENT) and receipt["digest"] == f"sha256 {sha256(CONTENT)}"
    assert server.requests[0].headers["User-Agent"].startswith("sambench/")
    download_all([item], store)
    other = dataclasses.replace(item, target=tmp_path / "other checkout" / "thing.bin")
    download_all([other], store)
    assert other.target.read_bytes() == CONTENT
    assert len(server.requests) == 1, "the second checkout takes it from the cache"


def test_redirects_are_followed(server: Server, store: Store, tmp_path: Path) -> None:
    server.answers["/moved"] = lambda h: h.reply(302, Location="/file.bin")
    item = make(server, tmp_path, urls=[f"{server.url}/moved"])
    assert store.get(item).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("first", "then", "refused"),
    [
        ("https://a.org/f", "https://b.org/f", ""),
        ("https://a.org/f", "http://a.org/f", "from https to http"),
        ("https://a.org/f", "https://10.1.2.3/f", "10.1.2.3, which is inside of this network"),
        ("https://a.org/f", "https://169.254.169.254/latest", "inside of this network"),
        ("https://a.org/f", "https://localhost/f", "inside of this network"),
        ("https://a.org/f", "https://[::1]/f", "inside of this network"),
        ("https://a.org/f", "https://inner.org/f", "inner.org, which is inside of this network"),
        ("http://a.org/f", "http://127.0.0.1/f", "inside of this network"),
        ("https://inner.org/f", "https://10.1.2.3/f", ""),
        ("http://127.0.0.1:8/f", "http://127.0.0.1:9/f", ""),
        ("https://10.1.2.3/f", "https://10.1.2.3/f", ""),
        ("https://a.org/f", "https://nobody.knows/f", ""),
    ],
)
def test_redirects_stay_on_https_and_outside(
    monkeypatch: pytest.MonkeyPatch, first: str, then: str, refused: str
) -> None:
    names = {"a.org": "93.184.216.34", "b.org": "93.184.216.35", "inner.org": "192.168.7.7", "localhost": "127.0.0.1"}

    def look_up(host: str, _: object) -> list[Any]:
        if host == "nobody.knows":
            raise OSError("no such name")
        return [(0, 0, 0, "", (names.get(host, host), 0))]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    request = httpx2.Request("GET", then)
    if not refused:
        transfer.refuse_detour(first, request)
        return
    with pytest.raises(transfer.TransferError, match=refused):
        transfer.refuse_detour(first, request)


def test_a_redirect_out_of_https_ends_at_once(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check sees every request of a transfer, those after a redirect too."""
    seen: list[str] = []
    monkeypatch.setattr(transfer, "refuse_detour", lambda first, request: seen.append(request.url.path))
    server.answers["/moved"] = lambda h: h.reply(302, Location="/file.bin")
    store.get(make(server, tmp_path, urls=[f"{server.url}/moved"]))
    assert seen == ["/moved", "/file.bin"]


def test_a_file_of_no_known_length_has_an_end(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "UNKNOWN_LENGTH", 1000)
    assert len(CONTENT) > transfer.UNKNOWN_LENGTH

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(CONTENT)
        handler.close_connection = True

    server.answers["/file.bin"] = endless
    item = dataclasses.replace(make(server, tmp_path), bytes=None)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        store.get(item)
    assert nothing_looks_finished(store, item)


@pytest.mark.parametrize("kind", ["md5", "git_blob"])
def test_other_digests_count_too(server: Server, store: Store, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "same"
    path.write_bytes(CONTENT)
    right = {"md5": hashlib.md5(CONTENT).hexdigest(), "git_blob": file_digest(path, "git_blob")}
    item = dataclasses.replace(unknown(make(server, tmp_path)), **{kind: right[kind]})
    assert store.get(item).read_bytes() == CONTENT
    wrong = dataclasses.replace(item, **{kind: "0" * len(right[kind])})
    with pytest.raises(InputError, match=f"expected {kind} 000.*, found {kind} {right[kind]} at http"):
        store.get(wrong)


def test_a_git_blob_is_what_git_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what is up, doc?")
    assert file_digest(tmp_path / "file", "git_blob") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # the Git book


def test_a_file_of_which_nothing_is_known_is_pinned_by_hand(
    server: Server, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.get(unknown(make(server, tmp_path)))
    assert f"thing: sha256 {sha256(CONTENT)}, nothing to compare it with" in capsys.readouterr().err


# --- broken connections ---


def test_a_connection_that_breaks_is_taken_up_where_it_ended(server: Server, store: Store, tmp_path: Path) -> None:
    cuts = [1, 70_000, HALF, len(CONTENT) - 1]
    server.answers["/file.bin"] = in_turn(*(lambda h, cut=cut: h.serve(upto=cut) for cut in cuts), Handler.serve)
    for item in (make(server, tmp_path), unknown(make(server, tmp_path, name="other"))):
        server.requests.clear()
        assert store.get(item).read_bytes() == CONTENT
    assert [request.offset for request in server.requests] == [0]


def test_the_offsets_asked_for(server: Server, store: Store, tmp_path: Path) -> None:
    cuts = [1, 70_000, HALF, len(CONTENT) - 1]
    server.answers["/file.bin"] = in_turn(*(lambda h, cut=cut: h.serve(upto=cut) for cut in cuts), Handler.serve)
    assert store.get(unknown(make(server, tmp_path))).read_bytes() == CONTENT
    assert [request.offset for request in server.requests] == [0, *cuts]
    assert {request.headers.get("If-Range") for request in server.requests[1:]} == {'"one"'}


def test_a_server_that_stalls(server: Server, store: Store, tmp_path: Path) -> None:
    server.answers["/file.bin"] = in_turn(stall, Handler.serve)
    assert store.get(make(server, tmp_path)).read_bytes() == CONTENT
    assert [request.offset for request in server.requests] == [0, HALF]


def test_a_server_that_is_busy(server: Server, store: Store, tmp_path: Path) -> None:
    server.answers["/file.bin"] = in_turn(lambda h: h.reply(503, PAGE, Retry_After="0"), Handler.serve)
    assert store.get(make(server, tmp_path)).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: Server, store: Store, tmp_path: Path) -> None:
    whole = lambda h: h.reply(200, CONTENT)  # noqa: E731
    cut = lambda h: h.reply(200, CONTENT[:HALF], Content_Length=len(CONTENT))  # noqa: E731
    server.answers["/file.bin"] = in_turn(cut, whole)
    assert store.get(make(server, tmp_path)).read_bytes() == CONTENT
    assert [request.offset for request in server.requests] == [0, HALF]


def test_mirrors_are_tried_in_order_and_go_on_with_what_is_there(server: Server, store: Store, tmp_path: Path) -> None:
    server.answers["/gone"] = lambda h: h.reply(404, PAGE)
    server.answers["/weak"] = lambda h: h.serve(upto=HALF)
    urls = [f"{server.url}/{name}" for name in ("gone", "weak", "file.bin")]
    assert store.get(make(server, tmp_path, urls=urls)).read_bytes() == CONTENT
    assert server.requests[-1].path == "/file.bin" and server.requests[-1].offset == HALF


def test_a_file_that_changed_in_between_is_fetched_anew(server: Server, store: Store, tmp_path: Path) -> None:
    old = bytes(len(CONTENT))
    first = lambda h: h.serve(old, upto=HALF, tag='"old"')  # noqa: E731
    for item in (make(server, tmp_path), unknown(make(server, tmp_path, name="other"))):
        server.answers["/file.bin"] = in_turn(first, Handler.serve)
        assert store.get(item).read_bytes() == CONTENT

    def ignores_if_range(handler: Handler) -> None:
        del handler.headers["If-Range"]
        handler.serve()

    server.answers["/file.bin"] = in_turn(first, ignores_if_range)
    assert store.get(unknown(make(server, tmp_path, name="third"))).read_bytes() == CONTENT


def test_a_wrong_beginning_without_a_validator_is_found_by_the_digest(
    server: Server, store: Store, tmp_path: Path
) -> None:
    item = make(server, tmp_path)
    for beginning in (bytes(HALF), bytes(len(CONTENT)), bytes(len(CONTENT) + 5)):
        shutil.rmtree(store.folder, ignore_errors=True)
        store.entry(item).mkdir(parents=True)
        (store.entry(item) / "file.bin.part").write_bytes(beginning)
        assert store.get(item).read_bytes() == CONTENT


# --- kills ---

FETCH = """
import sys
from pathlib import Path
from sambench.downloads.catalogue import Download
from sambench.downloads.store import Store, download_all
from sambench.downloads.transfer import RetryPolicy
url, cache, target, size, digest = sys.argv[1:]
digest = {} if digest == "-" else {"bytes": int(size), "sha256": digest}
item = Download("thing", "weights", "file.bin", [url], Path(target), **digest)
download_all([item], Store(Path(cache), offline=False, policy=RetryPolicy(read=60)))
"""


@pytest.mark.parametrize(("known", "points"), [(True, (0, 1, HALF + 1, len(CONTENT) - 1)), (False, (65_536,))])
def test_a_download_that_is_killed_goes_on(
    server: Server, store: Store, tmp_path: Path, known: bool, points: tuple[int, ...]
) -> None:
    item = make(server, tmp_path)
    item = item if known else unknown(item)
    digest = item.sha256 or "-"
    arguments = [f"{server.url}/file.bin", str(store.folder), str(item.target), str(len(CONTENT)), digest]
    command = [sys.executable, "-c", FETCH, *arguments]
    part = store.entry(item) / "file.bin.part"
    before = 0
    for point in points:
        server.answers["/file.bin"] = lambda h, point=point: stall(h, point)
        server.requests.clear()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            wait_for(lambda point=point: server.requests and (part.stat().st_size if part.exists() else 0) >= point)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert [request.offset for request in server.requests] == [before]
        assert nothing_looks_finished(store, item)
        before = part.stat().st_size if part.exists() else 0
        assert before == point
    server.answers["/file.bin"] = Handler.serve
    server.requests.clear()
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert [request.offset for request in server.requests] == [before]
    assert sha256(item.target.read_bytes()) == sha256(CONTENT)
    assert not part.exists() and not part.with_name("file.bin.part.json").exists()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.005)


def test_every_byte_is_a_place_to_go_on_from(server: Server, store: Store, tmp_path: Path) -> None:
    content = CONTENT[:33]
    server.answers["/file.bin"] = lambda h: h.serve(content)
    item = make(server, tmp_path, content)
    for count in range(len(content) + 1):
        shutil.rmtree(store.folder, ignore_errors=True)
        store.entry(item).mkdir(parents=True)
        (store.entry(item) / "file.bin.part").write_bytes(content[:count])
        server.requests.clear()
        assert store.get(item).read_bytes() == content
        assert [request.offset for request in server.requests] == ([count] if count < len(content) else [])


def test_a_kill_around_the_last_steps(server: Server, store: Store, tmp_path: Path) -> None:
    archive = zipped({"things/a.txt": b"a", "things/b.txt": b"b"})
    server.answers["/things.zip"] = lambda h: h.serve(archive)
    item = make(server, tmp_path, archive, "/things.zip", unpack="things", target=tmp_path / "data" / "things")
    entry = store.entry(item)

    def whole_part() -> None:
        (entry / "things.zip.part").write_bytes(archive)

    def renamed() -> None:
        (entry / "things.zip").write_bytes(archive)

    def half_unpacked() -> None:
        renamed()
        (entry / "unpacked.part" / "things").mkdir(parents=True)
        (entry / "unpacked.part" / "things" / "a.txt").write_bytes(b"")

    def unpacked_without_receipt() -> None:
        renamed()
        (entry / "unpacked" / "things").mkdir(parents=True)
        (entry / "unpacked" / "things" / "a.txt").write_bytes(b"")

    def linked_to_nothing() -> None:
        item.target.parent.mkdir(parents=True, exist_ok=True)
        item.target.unlink(missing_ok=True)
        item.target.symlink_to(store.path(item))

    for leave in (whole_part, renamed, half_unpacked, unpacked_without_receipt, linked_to_nothing):
        shutil.rmtree(store.folder, ignore_errors=True)
        entry.mkdir(parents=True)
        leave()
        assert not store.has(item) and not store.placed(item)
        download_all([item], store)
        content = {path.name: path.read_bytes() for path in item.target.iterdir()}
        assert content == {"a.txt": b"a", "b.txt": b"b"}, leave.__name__
        assert sorted(path.name for path in entry.iterdir()) == ["receipt.json", "unpacked"]


def test_two_at_once_fetch_it_once(
    server: Server, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on = threading.Event()

    def slow(handler: Handler) -> None:
        go_on.wait(20)
        handler.serve()

    server.answers["/file.bin"] = slow
    item = make(server, tmp_path)
    patient = dataclasses.replace(store, policy=RetryPolicy(read=30))
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(patient.get(item).read_bytes())) for _ in range(2)]
    for thread in threads:
        thread.start()
    said = ""
    wait_for(lambda: server.requests)
    end = time.monotonic() + 20
    while "another process is fetching it" not in said and time.monotonic() < end:
        said += capsys.readouterr().err
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join()
    assert results == [CONTENT, CONTENT] and len(server.requests) == 1
    assert "thing: another process is fetching it; waiting" in said


# --- lies ---

LIES: dict[str, tuple[Answer, str]] = {
    "wrong bytes": (lambda h: h.serve(bytes(len(CONTENT))), r"found sha256 [0-9a-f]{64} at http"),
    "one bit": (lambda h: h.serve(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])), r"found sha256 [0-9a-f]{64} at http"),
    "another file": (lambda h: h.serve(CONTENT[:1000]), "found 1000 bytes at http"),
    "nothing": (lambda h: h.reply(200), "found 0 bytes at http"),
    "always truncated": (lambda h: h.reply(200, CONTENT[:HALF], Content_Length=len(CONTENT)), ", 3 times at http"),
    "announces more": (lambda h: h.reply(200, CONTENT, Content_Length=len(CONTENT) + 9), "found 300009 bytes at http"),
    "announces less": (lambda h: h.reply(200, CONTENT, Content_Length=9), "found 9 bytes at http"),
    "sends more": (
        lambda h: h.reply(200, CONTENT + b"more", Content_Length=None),
        "found more than 300000 bytes at http",
    ),
    "ends early, no length": (
        lambda h: h.reply(200, CONTENT[:HALF], Content_Length=None),
        "the answer ends after 150000 of 300000 bytes, 3 times at http",
    ),
    "web page": (lambda h: h.reply(200, PAGE, Content_Type="text/html; charset=utf-8"), "found a web page at http"),
    "not found": (lambda h: h.reply(404, PAGE, Content_Type="text/html"), "found HTTP 404 Not Found at http"),
    "forbidden": (lambda h: h.reply(403, PAGE), "found HTTP 403 Forbidden at http"),
    "broken": (lambda h: h.reply(500, PAGE, Content_Type="text/html"), "found HTTP 500, 3 times at http"),
    "redirect to itself": (lambda h: h.reply(302, Location="/file.bin"), "found .*redirects.* at http"),
    "redirect to nowhere": (lambda h: h.reply(302, Location="file:///etc/passwd"), "found .* at http"),
    "silence": (lambda h: h.server.over.wait(20), "found no answer in time, 3 times at http"),
    "no HTTP": (lambda h: h.wfile.write(b"220 smtp ready\r\n"), ", 3 times at http"),
    "hangs up": (lambda h: None, ", 3 times at http"),
    "compressed": (
        lambda h: h.reply(200, CONTENT, Content_Encoding="gzip"),
        "found an answer in the encoding gzip, which was not asked for at http",
    ),
    "a part": (
        lambda h: h.reply(206, CONTENT[5:], Content_Range=f"bytes 5-299999/{len(CONTENT)}"),
        "a part that was not asked for, 3 times at http",
    ),
    "other version behind": (
        in_turn(
            lambda h: h.serve(upto=HALF),
            lambda h: h.reply(
                206, bytes(HALF), Content_Range=f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}", ETag='"one"'
            ),
            lambda h: h.serve(bytes(len(CONTENT))),
        ),
        r"found sha256 [0-9a-f]{64} at http",
    ),
    "denies what it sent": (
        in_turn(
            lambda h: h.serve(upto=HALF),
            lambda h: h.reply(416, Content_Range="bytes */10"),
            lambda h: h.reply(410),
        ),
        "found HTTP 410 Gone at http",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_one_line_and_leaves_nothing_that_looks_finished(
    server: Server, store: Store, tmp_path: Path, lie: str
) -> None:
    server.answers["/file.bin"], message = LIES[lie]
    item = make(server, tmp_path)
    with pytest.raises(InputError, match=message) as error:
        download_all([item], store)
    text = str(error.value)
    assert text.startswith(f"thing: expected 300000 bytes, sha256 {item.sha256}, found ")
    assert "\n" not in text and text.endswith(f"try again later, or put file.bin by hand at {store.path(item)}")
    assert nothing_looks_finished(store, item)
    server.answers["/file.bin"] = Handler.serve
    assert store.get(item).read_bytes() == CONTENT, "what a lie leaves does not hinder the next run"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: h.reply(200, PAGE), "a web page"),
        (lambda h: h.reply(200, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "a Git LFS pointer"),
        (lambda h: h.reply(200, CONTENT[:HALF], Content_Length=None), "an answer of unknown length, and there is no"),
        (lambda h: h.reply(200, CONTENT[:HALF], Content_Length=len(CONTENT)), ", 3 times"),
        (lambda h: h.reply(200), "0 bytes"),
    ],
)
def test_lies_about_a_file_of_which_nothing_is_known(
    server: Server, store: Store, tmp_path: Path, answer: Answer, message: str
) -> None:
    server.answers["/file.bin"] = answer
    item = unknown(make(server, tmp_path))
    with pytest.raises(InputError, match=f"^thing: expected unknown content, found .*{message}.* at http"):
        store.get(item)
    assert nothing_looks_finished(store, item)


def test_one_failure_does_not_keep_the_others_away(
    server: Server, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/gone"] = lambda h: h.reply(404)
    bad = make(server, tmp_path, name="bad", path="/gone", target=tmp_path / "bad")
    good = make(server, tmp_path)
    with pytest.raises(InputError, match=r"bad: .*HTTP 404"):
        download_all([bad, good], store)
    assert good.target.read_bytes() == CONTENT
    with pytest.raises(InputError, match="downloads: expected 2 files, found 2 failures, told above"):
        download_all([bad, dataclasses.replace(bad, name="worse")], store)
    assert "error: worse: " in capsys.readouterr().err


# --- disk, hands, offline ---


def test_a_small_disk_is_seen_before_the_first_byte(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, free = make(server, tmp_path), SimpleNamespace(free=200_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(InputError, match=r"GB free, found 0\.00 GB; free some space, or move the cache"):
        download_all([item], store)
    assert not server.requests
    with pytest.raises(InputError, match="GB free"):  # only the server knows the length
        store.get(unknown(item))
    assert nothing_looks_finished(store, unknown(item))


def test_a_full_disk_in_the_middle_is_one_line(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    item = make(server, tmp_path)
    monkeypatch.setattr("sambench.downloads.meter.Meter.advance", full)
    with pytest.raises(InputError, match="found No space left on device"):
        store.get(item)
    assert nothing_looks_finished(store, item)


def test_offline_says_which_file_goes_where_and_takes_it(
    server: Server, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item, away = make(server, tmp_path), dataclasses.replace(store, offline=True)
    homeless = make(server, tmp_path, name="homeless", urls=[], target=tmp_path / "homeless")
    with pytest.raises(InputError, match="downloads: expected the files above, found offline, and 2 of them missing"):
        download_all([item, homeless], away)
    said = capsys.readouterr().out.splitlines()
    place = store.entry(item) / "file.bin"
    assert said[0] == f"thing: file.bin, {item.facts()}, from {server.url}/file.bin: put it at {place}"
    assert "homeless: file.bin, " in said[1] and "which has no public address: put it at" in said[1]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=f"file.bin: expected {item.facts()}, found 299999 bytes; delete it"):
        download_all([item], away)
    assert place.exists(), "what a person put there is not ours to delete"
    place.write_bytes(CONTENT)
    download_all([item], away)
    assert item.target.read_bytes() == CONTENT and not server.requests


def test_no_public_address(store: Store, tmp_path: Path, server: Server) -> None:
    with pytest.raises(InputError, match=r"found no public address; try again later, or put file\.bin by hand at"):
        store.get(make(server, tmp_path, urls=[]))


def test_a_file_of_the_users_own_stays(server: Server, store: Store, tmp_path: Path) -> None:
    item = make(server, tmp_path)
    item.target.parent.mkdir()
    item.target.write_text("mine")
    download_all([item], store)
    assert item.target.read_text() == "mine" and not server.requests


def test_a_new_version_replaces_the_link(server: Server, store: Store, tmp_path: Path) -> None:
    item = make(server, tmp_path)
    download_all([item], store)
    newer = make(server, tmp_path, CONTENT[:999])
    server.answers["/file.bin"] = lambda h: h.serve(CONTENT[:999])
    download_all([newer], store)
    assert item.target.read_bytes() == CONTENT[:999] and store.path(item).read_bytes() == CONTENT


def test_a_cached_file_that_lost_its_end_is_fetched_again(server: Server, store: Store, tmp_path: Path) -> None:
    item = make(server, tmp_path)
    path = store.get(item)
    os.truncate(path, 10)
    assert not store.has(item)
    with pytest.raises(InputError, match="found 10 bytes; delete it"):
        store.get(item)


# --- archives ---


def zipped(files: dict[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped({"a": b"x"}))
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    return bytes(data)


def flipped() -> bytes:
    data = bytearray(zipped({"a": random.Random(1).randbytes(500)}))
    data[200] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (zipped({"ok": b"", "../evil": b"x"}), r"paths that stay in the folder, found '\.\./evil'"),
        (zipped({"a/../../evil": b"x"}), "paths that stay in the folder"),
        (zipped({"/evil": b"x"}), "paths that stay in the folder, found '/evil'"),
        (zipped({"..\\evil": b"x"}), "paths that stay in the folder"),
        (zipped({"C:evil": b"x"}), "paths that stay in the folder"),
        (zipped({"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777), "files and folders only, found the link 'link'"),
        (zipped({"pipe": b""}, stat.S_IFIFO | 0o666), "files and folders only, found the special file 'pipe'"),
        (tarred("../evil"), "paths that stay in the folder"),
        (tarred("/evil"), "paths that stay in the folder"),
        (tarred("link", tarfile.SYMTYPE, "/etc"), "files and folders only, found the link 'link'"),
        (tarred("link", tarfile.LNKTYPE, "../evil"), "files and folders only, found the link 'link'"),
        (tarred("null", tarfile.CHRTYPE), "files and folders only, found the special file 'null'"),
        (encrypted(), "an archive that can be unpacked, found .*encrypted"),
        (flipped(), "an archive that can be unpacked"),
        (zipped({"a": bytes(500)})[:-30], "an archive that can be unpacked"),
        (tarred("a", content=random.Random(2).randbytes(9000))[:-3000], "an archive that can be unpacked"),
        (b"neither", "an archive that can be unpacked"),
        (zipped({"a": b"1", "a/b": b"2"}), "every path once, found 'a/b'"),
        (zipped({"n" * 300: b"1"}), "names that a file system takes, found 'nnn"),
        (tarred("d/" * 700 + "n"), "names that a file system takes, found 'd/d/"),
        (zipped({"zeros": bytes(5_000_000)}), "at most 200 times its .* bytes"),
        (tarred("zeros", content=bytes(5_000_000)), "at most 200 times its .* bytes"),
    ],
    ids=[f"archive{number}" for number in range(22)],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_bad_archive_writes_nothing_outside(
    server: Server,
    store: Store,
    tmp_path: Path,
    archive: bytes,
    message: str,
    known: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sambench.downloads.archives.SMALL", 100_000)
    server.answers["/things.zip"] = lambda h: h.serve(archive)
    item = make(server, tmp_path, archive, "/things.zip", unpack="things", target=tmp_path / "data" / "things")
    item = item if known else unknown(item)
    with pytest.raises(InputError, match=message) as error:
        download_all([item], store)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("evil")) and not list(tmp_path.rglob("unpacked*"))
    assert not store.has(item) and not item.target.exists()
    assert store.waits(item) == known, "a right file is kept, one that nobody vouches for is not"


def test_the_same_name_twice_in_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (b"1", b"2"):
            info = tarfile.TarInfo("a")
            info.size = 1
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="every path once, found 'a'"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_good_tar_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tarred("deep/down/a", content=CONTENT))
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.tgz", tmp_path / "out")
    assert (tmp_path / "out/deep/down/a").read_bytes() == CONTENT


def test_of_an_archive_of_pictures_those_are_unpacked_that_annotations_name(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [{"id": n, "coco_url": f"http://images.cocodataset.org/train2017/{n}.jpg"} for n in (1, 3)]
    document = json.dumps({"images": [*images, {"id": 4}], "annotations": []}).encode()
    pictures = zipped({f"train2017/{n}.jpg": CONTENT for n in range(5)})
    server.answers["/lvis.json"] = lambda h: h.serve(document)
    server.answers["/train.zip"] = lambda h: h.serve(pictures)
    named = make(server, tmp_path, document, "/lvis.json", name="lvis", target=tmp_path / "data" / "lvis.json")
    monkeypatch.setattr("sambench.downloads.catalogue.read_table", lambda: {"lvis": named})
    item = make(server, tmp_path, pictures, "/train.zip", name="train", unpack="train2017", only="lvis")
    assert sorted(path.name for path in store.get(item).iterdir()) == ["1.jpg", "3.jpg"]


def test_an_archive_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"zeros": bytes(10_000_000)}))
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9_000_000))
    with pytest.raises(InputError, match=r"expected 0\.01 GB free, found 0\.01 GB"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_archive_without_what_is_wanted(server: Server, store: Store, tmp_path: Path) -> None:
    archive = zipped({"other/a.txt": b"a"})
    server.answers["/things.zip"] = lambda h: h.serve(archive)
    item = make(server, tmp_path, archive, "/things.zip", unpack="things")
    with pytest.raises(InputError, match=r"things\.zip: expected things in it, found other"):
        store.get(item)
    assert not store.has(item)


# --- the Hugging Face Hub ---


@pytest.fixture
def hub_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as the Hub: what resolves says its size and digest, and sends the client elsewhere for the bytes."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def resolve(handler: Handler) -> None:
        handler.reply(
            302,
            Location=f"http://localhost:{server.server_port}/file.bin",  # another host, as the Hub has it
            X_Repo_Commit="0" * 40,
            X_Linked_Etag=f'"{sha256(CONTENT)}"',
            X_Linked_Size=len(CONTENT),
        )

    server.answers["/some/repo/resolve/main/sub/file.bin"] = resolve
    return server


HUB_URL = "https://huggingface.co/some/repo/resolve/main/sub/file.bin"


def test_the_hub_vouches_for_a_file_and_it_goes_on_after_a_cut(
    hub_server: Server, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = unknown(make(hub_server, tmp_path, urls=[HUB_URL]))
    hub_server.answers["/file.bin"] = in_turn(lambda h: h.serve(upto=HALF), Handler.serve)
    assert store.get(item).read_bytes() == CONTENT
    assert "nothing to compare it with" not in capsys.readouterr().err
    tokens = {request.path: request.headers.get("Authorization") for request in hub_server.requests}
    assert tokens["/some/repo/resolve/main/sub/file.bin"] == "Bearer hf_secret"
    assert tokens["/file.bin"] is None, "the token does not leave the Hub"
    assert [request.offset for request in hub_server.requests if request.path == "/file.bin"] == [0, HALF]


def test_the_hub_contradicts(hub_server: Server, store: Store, tmp_path: Path) -> None:
    item = make(hub_server, tmp_path, urls=[HUB_URL], sha256="0" * 64)
    with pytest.raises(InputError, match=f"found sha256 {sha256(CONTENT)} at https://huggingface.co"):
        store.get(item)
    with pytest.raises(InputError, match=r"found 300000 bytes at https://huggingface\.co"):
        store.get(dataclasses.replace(item, bytes=7))
    hub_server.answers["/file.bin"] = lambda h: h.serve(bytes(len(CONTENT)))
    item = unknown(item)
    with pytest.raises(InputError, match=r"found sha256 [0-9a-f]{64} at"):
        store.get(item)
    assert nothing_looks_finished(store, item)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "GatedRepo", "a gated file: agree to its licence at huggingface.co/some/repo and set HF_TOKEN at"),
        (401, "RepoNotFound", "no repository some/repo, or a private one that HF_TOKEN does not open at"),
        (404, "EntryNotFound", "HTTP 404 at"),
    ],
)
def test_what_the_hub_does_not_give(
    hub_server: Server, store: Store, tmp_path: Path, status: int, code: str, message: str
) -> None:
    path = "/some/repo/resolve/main/sub/file.bin"
    hub_server.answers[path] = lambda h: h.reply(status, X_Error_Code=code, X_Error_Message="no")
    item = unknown(make(hub_server, tmp_path, urls=[HUB_URL]))
    with pytest.raises(InputError, match=f"found {message}") as error:
        store.get(item)
    assert "\n" not in str(error.value) and nothing_looks_finished(store, item)


def test_a_page_of_the_hub_is_no_file(store: Store, tmp_path: Path, server: Server) -> None:
    with pytest.raises(InputError, match="found the page of a repository, not a file at"):
        store.get(make(server, tmp_path, urls=["https://huggingface.co/facebook/sam3"]))


def test_which_addresses_are_the_hubs() -> None:
    assert hub.serves(HUB_URL)
    assert not hub.serves("https://huggingface.co.evil.example/some/repo/resolve/main/x")


# --- the table, the cards, the study, the command ---


def test_the_table_that_comes_with_sambench() -> None:
    table = read_table()
    for name in ("coco_val2017_images", "coco_train2017_images", "coco_annotations", "lvis_v1_val"):
        assert table[name].bytes and table[name].sha256 and table[name].md5 and len(table[name].urls) > 1
    assert {item.target.parts[0] for item in table.values()} == {"data"}
    assert len({item.target for item in table.values()}) == len(table)
    assert all(item.licence for item in table.values())


ROW = {
    "name": "a",
    "kind": "boxes",
    "file": "a.json",
    "urls": "http://x.example/a.json",
    "target": "data/a.json",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "line 2: name: expected letters, digits and _.+-, found a b"),
        ({"kind": "box"}, "line 2: kind: expected one of images, annotations, boxes, weights, found box"),
        ({"file": "../a.json"}, "line 2: file: expected a file name"),
        ({"urls": ""}, "line 2: urls: expected addresses, http or https, found nothing"),
        ({"urls": "ftp://x.example/a"}, "line 2: urls: expected addresses"),
        ({"bytes": "1e9"}, "line 2: bytes: expected a whole number or nothing, found 1e9"),
        ({"sha256": "abc"}, "line 2: sha256: expected 64 hexadecimal digits or nothing, found abc"),
        ({"target": "/etc/a"}, "line 2: target: expected a relative path without .., found /etc/a"),
        ({"target": "../a"}, "line 2: target: expected a relative path"),
        ({"target": ""}, "line 2: target: expected a path, found nothing"),
        ({"unpack": "x"}, "line 2: unpack: expected a path for an archive, else nothing, found x"),
        ({"file": "a.zip"}, "line 2: unpack: expected a path for an archive, else nothing, found nothing"),
    ],
)
def test_mistakes_in_a_table(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path = tmp_path / "downloads.tsv"
    good = "\t".join(ROW.get(column, "") for column in COLUMNS)
    header = "\t".join(COLUMNS)
    path.write_text(f"{header}\n{good}\n")
    assert list(read_table(path)) == ["a"]
    bad = {**ROW, **changes}
    path.write_text(header + "\n" + "\t".join(bad.get(column, "") for column in COLUMNS) + "\n")
    with pytest.raises(InputError, match=f"downloads.tsv: {message}"):
        read_table(path)
    path.write_text(f"# comment\n{header}\n{good}\n{good}\n")
    with pytest.raises(InputError, match="line 4: name: expected a name of its own, found a"):
        read_table(path)
    path.write_text(f"{header}\na\tb\n")
    with pytest.raises(InputError, match="line 2: expected 12 columns, found 2"):
        read_table(path)
    path.write_text("name\n")
    with pytest.raises(InputError, match="line 1: expected the columns name, kind"):
        read_table(path)


def test_checkpoints_of_cards(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    (second / "b.pt").touch()
    checkpoints = [
        {"file": "a.pt", "url": "https://x.example/raw/a.pt.zip", "git_blob": "0" * 40},
        {"file": "b.pt", "url": "https://x.example/b.pt", "bytes": 3},
        {"file": "c.pt"},
    ]
    packed, here, homeless = from_checkpoints(checkpoints, [first, second])
    assert (packed.file, packed.unpack, packed.target) == ("a.pt.zip", "a.pt", first / "a.pt")
    assert packed.digest == "git_blob " + "0" * 40
    assert (here.file, here.unpack, here.target, here.bytes) == ("b.pt", "", second / "b.pt", 3)
    assert homeless.urls == [] and homeless.facts() == "unknown content"


def test_names_mean_rows_kinds_and_variants(tmp_path: Path) -> None:
    table, cards = read_table(), read_cards(read_registries(["variants"])["variants"])
    items = find(["lvis_v1_val", "boxes", "mobilesam", "mobilesamv2"], table, cards, [tmp_path])
    assert [item.name for item in items][:1] == ["lvis_v1_val"]
    assert [item.name for item in items][-2:] == ["mobile_sam.pt", "Prompt_guided_Mask_Decoder.pt"]
    assert sum(item.kind == "boxes" for item in items) == sum(item.kind == "boxes" for item in table.values())
    with pytest.raises(InputError, match="downloads: mobile_sam: expected a name of the list; did you mean mobilesam"):
        find(["mobile_sam"], table, cards, [tmp_path])


def test_what_a_study_needs() -> None:
    config = read_registries()
    reference = retrievals(read_study(config))
    assert [(key, item.wanted) for key, item in reference.items()] == [
        ("variants/mobilesam", True),
        ("variants/sam_vit_h", False),  # only counted
    ]
    config["datasets"] = {
        **config["datasets"],
        "scenes": {**config["datasets"]["scenes"], "downloads": ["lvis_v1_val"]},
    }
    config["study"] = {**config["study"], "variants": ["mobilesam", "lite_sam"], "samplers": ["object_aware"]}
    items = retrievals(read_study(config))
    assert [key for key, item in items.items() if item.wanted] == ["datasets/scenes", "variants/mobilesam"]
    assert items["datasets/scenes"].names == ("lvis_v1_val",)
    assert [file["file"] for file in items["variants/mobilesam"].checkpoints] == ["mobile_sam.pt"]
    config["study"]["prompt_groups"] = config["study"]["samplers"] = []
    assert not retrievals(read_study(config))["variants/mobilesam"].wanted, "times and counts need no weights"


def call(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        app([str(argument) for argument in arguments])
    return end.value.code


def test_the_command_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call("download", "--list", "--cache", tmp_path)
    text = capsys.readouterr().out
    assert "coco_val2017_images" in text and "mobile_sam.pt" in text and "815.6" in text
    assert sum(line.startswith("mobile_sam.pt ") for line in text.splitlines()) == 1


def test_the_command_fetches(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = make(server, tmp_path, name="lvis_v1_val", target=Path("data/lvis.json"))
    monkeypatch.setattr("sambench.downloads.catalogue.read_table", lambda: {"lvis_v1_val": item})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMBENCH_CACHE", str(tmp_path / "shared"))
    monkeypatch.delenv("SAMBENCH_OFFLINE")
    call("download", "lvis_v1_val")
    assert (tmp_path / "data" / "lvis.json").resolve().is_relative_to(tmp_path / "shared")
    assert (tmp_path / "data" / "lvis.json").read_bytes() == CONTENT


def test_the_command_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMBENCH_OFFLINE", "1")
    with pytest.raises(InputError, match="offline, and 1 of them missing"):
        app(["download", "coco_val2017_images", "--cache", str(tmp_path / "cache")])
    said = capsys.readouterr().out
    assert "val2017.zip, 815585330 bytes, sha256 4f7e2ccb" in said and str(tmp_path / "cache") in said


# --- progress ---


def test_a_log_line_says_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sambench.downloads import meter

    clock = iter([0.0, 4.0, 20.0, 25.0])
    monkeypatch.setattr(meter.time, "monotonic", lambda: next(clock))
    with meter.metered("val2017.zip") as progress:
        progress.begin(100_000_000, 800_000_000)
        for _ in range(3):
            progress.advance(50_000_000)
    assert capsys.readouterr().err.splitlines() == ["val2017.zip: 200.0 of 800.0 MB, 5.0 MB/s, 0:02:00 left"]
