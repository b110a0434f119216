"""What can be fetched: the rows of config/downloads.tsv and the checkpoints that the cards of variants name."""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from sambench.config import CONFIG_FOLDER
from sambench.detectors.registry import read_detectors
from sambench.downloads import textures
from sambench.errors import InputError, near_matches
from sambench.files import exists, is_file
from sambench.settings import Dataset
from sambench.study import Study
from sambench.variants.cards import Card

COLUMNS = (
    *("name", "kind", "file", "urls", "bytes", "sha256", "md5", "git_blob"),
    *("licence", "unpack", "target", "note", "only"),
)
REQUIRED = len(COLUMNS) - 1  # `only` may be left out
KINDS = ("images", "annotations", "boxes", "weights")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_DIGESTS = {"sha256": 64, "md5": 32, "git_blob": 40}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_PIECE = 1 << 20


@dataclass(frozen=True)
class Package:
    """A package of Python's index that holds a file.

    member: the path of the file in it, without the top folder of a source package. sha256: of the file of the package,
    or of the member; empty when the digests of the download suffice.
    """

    name: str
    version: str
    member: str
    sha256: str = ""


@dataclass(frozen=True)
class Download:
    """A file to fetch, what is known to check it by, and where it belongs.

    file: its name on the server and in the cache; urls: the addresses that serve it, tried in this order.
    bytes, sha256, md5, git_blob: of what the addresses serve, an archive included; None or empty when unknown.
        git_blob is what `git hash-object` gives, for files that are kept in a git repository.
    unpack: the path in the archive that `target` stands for; empty for a file that stays as it is.
    target: where the study looks for it, relative to the working directory.
    only: of an archive of pictures, the row with the annotation file that names those which are unpacked; empty: all.
    package: a package that holds the same file, for where no address answers.
    """

    name: str
    kind: str
    file: str
    urls: Sequence[str]
    target: Path
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""
    git_blob: str = ""
    licence: str = ""
    unpack: str = ""
    only: str = ""
    note: str = ""
    package: Package | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for a message; empty when unknown."""
        packages = [f"the package {self.package.name} {self.package.version}"] if self.package else []
        return " or ".join([*self.urls[:1], *packages])

    @property
    def digest(self) -> str:
        """The strongest digest known, such as `sha256 4f7e...`; empty when there is none."""
        return next((f"{kind} {getattr(self, kind)}" for kind in _DIGESTS if getattr(self, kind)), "")

    def facts(self) -> str:
        """What the file must be, for a message."""
        return ", ".join(filter(None, (f"{self.bytes} bytes" if self.bytes else "", self.digest))) or "unknown content"

    def problem(self, path: Path) -> str:
        """What is wrong with the content of a file, in a few words; empty when it is what it should be."""
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head.startswith(b"<"):
            return "a web page"
        if head.startswith(b"version https://git-lfs"):
            return "a Git LFS pointer"
        if not size or (self.bytes is not None and size != self.bytes):
            return f"{size} bytes"
        for kind in _DIGESTS:
            if (expected := getattr(self, kind)) and (found := file_digest(path, kind)) != expected:
                return f"{kind} {found}"
        return ""


def file_digest(path: Path, kind: str) -> str:
    """The digest of a file in hexadecimal; kind: sha256, md5 or git_blob."""
    hasher = hashlib.new("sha1" if kind == "git_blob" else kind, usedforsecurity=False)
    if kind == "git_blob":
        hasher.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def read_table(path: Path | None = None) -> dict[str, Download]:
    """The rows of a table of downloads by name; config/downloads.tsv unless another is given.

    Tabs separate the columns, spaces the addresses; lines that begin with # are comments.

    Raises InputError, naming line and column, for anything that is not as COLUMNS and KINDS have it.
    """
    path = path or CONFIG_FOLDER / "downloads.tsv"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, expected="a table of downloads", found=error) from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line and line[0] != "#"]
    rows = csv.reader((line for _, line in lines), delimiter="\t", quoting=csv.QUOTE_NONE)
    found: dict[str, Download] = {}
    for (number, _), row in zip(lines, rows, strict=True):
        if number == lines[0][0]:
            if tuple(row) not in (COLUMNS, COLUMNS[:REQUIRED]):
                raise InputError(path, f"line {number}", expected=f"the columns {', '.join(COLUMNS)}", found=row)
            continue
        if not REQUIRED <= len(row) <= len(COLUMNS):
            raise InputError(path, f"line {number}", expected=f"{REQUIRED} columns", found=len(row))
        item = _item(dict.fromkeys(COLUMNS, "") | dict(zip(COLUMNS, row, strict=False)), path, number)
        if item.name in found:
            raise InputError(path, f"line {number}: name", expected="a name of its own", found=item.name)
        found[item.name] = item
    return found


def _item(row: dict[str, str], path: Path, line: int) -> Download:
    def check(column: str, good: object, expected: str) -> None:
        if not good:
            raise InputError(path, f"line {line}: {column}", expected=expected, found=row[column] or "nothing")

    check("name", _NAME.fullmatch(row["name"]), "letters, digits and _.+-")
    check("kind", row["kind"] in KINDS, f"one of {', '.join(KINDS)}")
    check("file", _NAME.fullmatch(row["file"]), "a file name")
    urls = row["urls"].split()
    check("urls", urls and all(urlsplit(url).scheme in ("http", "https") for url in urls), "addresses, http or https")
    check("bytes", re.fullmatch(r"([1-9]\d*)?", row["bytes"]), "a whole number or nothing")
    for kind, length in _DIGESTS.items():
        check(kind, re.fullmatch(rf"([0-9a-f]{{{length}}})?", row[kind]), f"{length} hexadecimal digits or nothing")
    for column in ("unpack", "target"):
        inner = PurePosixPath(row[column])
        check(column, not inner.is_absolute() and ".." not in inner.parts, "a relative path without ..")
    check("target", row["target"], "a path")
    check("unpack", bool(row["unpack"]) == row["file"].endswith(ARCHIVES), "a path for an archive, else nothing")
    size = int(row["bytes"]) if row["bytes"] else None
    return Download(**{**row, "urls": urls, "bytes": size, "target": Path(row["target"])})  # type: ignore[arg-type]


def from_checkpoints(
    checkpoints: Iterable[Mapping[str, Any]], folders: Sequence[Path], licence: str = ""
) -> list[Download]:
    """The checkpoints of a card as downloads; each belongs where it already lies, else into the first weights folder.

    Where the address is of an archive and the file is none, size and digests are those of the archive. A file may lie
    in a folder of its own, which its name keeps.
    """
    items = []
    for checkpoint in checkpoints:
        file, url = checkpoint["file"], checkpoint.get("url", "")
        served = PurePosixPath(unquote(urlsplit(url).path)).name
        packed = served.endswith(ARCHIVES) and not file.endswith(ARCHIVES)
        target = next((folder / file for folder in folders if is_file(folder / file)), folders[0] / file)
        facts = {name: checkpoint[name] for name in ("bytes", *_DIGESTS) if name in checkpoint}
        archive = {"file": served, "unpack": file} if packed else {"file": PurePosixPath(file).name}
        package = Package(**checkpoint["package"]) if checkpoint.get("package") else None
        items.append(
            Download(
                name=file.replace("/", "."),
                kind="weights",
                urls=[url] if url else [],
                target=target,
                licence=licence,
                package=package,
                **facts,
                **archive,
            )
        )
    return items


def fetchable(checkpoints: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a public address serves one of a card's checkpoints."""
    return any(checkpoint.get("url") or checkpoint.get("package") for checkpoint in checkpoints)


def from_card(card: Card, folders: Sequence[Path]) -> list[Download]:
    """The checkpoints of a variant as downloads; none when it has no code to run them."""
    return from_checkpoints(card.checkpoints if card.builder else (), folders, card.licence_weights)


@dataclass(frozen=True)
class Retrieval:
    """What one dataset, variant, detector or set of textures of a study consists of, as far as it can be fetched.

    kind: datasets, variants, detectors or textures. names: rows of the table of downloads. checkpoints: as cards have
    them. wanted: whether the study needs the files; variants that are only timed or counted do without weights.
    sample: what sambench.downloads.sample.Sample takes, as plain values.
    """

    kind: str
    name: str
    names: Sequence[str] = ()
    checkpoints: Sequence[Mapping[str, Any]] = ()
    wanted: bool = True
    sample: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """As plain values, for a parameter of a rule."""
        return asdict(self)

    def missing(self, study: Study) -> bool:
        """Whether a file is not where the study looks for it."""
        if self.kind == "datasets":
            entry = study.settings.datasets[self.name]
            return not all(map(exists, (*entry.annotation_files, entry.images)))
        if self.kind == "variants":
            return study.cards[self.name].weights(study.weights_folders) is None
        items = find(self.names, read_table(), {}, study.weights_folders)
        items += from_checkpoints(self.checkpoints, study.weights_folders)
        return not all(exists(item.target) for item in items)


def retrievals(study: Study) -> dict[str, Retrieval]:
    """What a study may have to fetch, by `kind/name`.

    Datasets name their downloads in `downloads`. Of the published boxes of detectors, those are meant that the table
    of downloads has. Variants and detectors without a public address have nothing to fetch.
    """
    settings = study.settings
    items = [
        Retrieval("datasets", name, settings.datasets[name].downloads, sample=_sample(settings.datasets[name]))
        for name in study["datasets"]
        if settings.datasets[name].fetched
    ]
    judged = bool(study["prompt_groups"] or study["samplers"] or {*study["measures"]} & {"interactive", "corruptions"})
    variants = [
        *study["variants"],
        *([settings.segevery.detector] if "object_aware" in study["samplers"] else []),
    ]
    counted = [settings.efficiency.reference] if "efficiency" in study["measures"] else []
    for name in dict.fromkeys([*variants, *counted]):
        card, wanted = study.cards[name], judged and name in variants
        if card.builder and fetchable(card.checkpoints):
            items.append(Retrieval("variants", name, checkpoints=card.checkpoints, wanted=wanted))
    detectors = read_detectors(study.plain["detectors"])
    published = {item.target: item.name for item in read_table().values() if item.kind == "boxes"}
    on = {dataset: study.detectors_on(dataset) for dataset in study["datasets"]}
    for detector in (detectors[name] for name in dict.fromkeys(itertools.chain(*on.values()))):
        files = [detector.result_file(dataset) for dataset in on if detector.name in on[dataset]]
        names = [published[file] for file in files if file in published]
        runs = bool(detector.builder) and not all(files)
        checkpoints = detector.checkpoints if runs and fetchable(detector.checkpoints) else ()
        if names or checkpoints:
            items.append(Retrieval("detectors", detector.name, names, checkpoints))
    if "corruptions" in study["measures"] and textures.NAME in settings.corruptions.names:
        items.append(Retrieval("textures", textures.NAME, checkpoints=textures.CHECKPOINTS))
    return {f"{item.kind}/{item.name}": item for item in items}


def _sample(entry: Dataset) -> dict[str, Any] | None:
    if entry.sample is None:
        return None
    return {**entry.sample.model_dump(), "annotations": entry.annotations, "folder": entry.images}


def find(
    names: Iterable[str], table: Mapping[str, Download], cards: Mapping[str, Card], folders: Sequence[Path]
) -> list[Download]:
    """The downloads that names mean: rows of the table, all rows of a kind, the checkpoints of a variant or detector.

    Raises InputError with near matches for any other name.
    """
    items: list[Download] = []
    for name in names:
        if name in table:
            items.append(table[name])
        elif name in cards:
            items += from_card(cards[name], folders)
        elif rows := [item for item in table.values() if item.kind == name]:
            items += rows
        else:
            known = {
                *table,
                *(item.kind for item in table.values()),
                *(c.name for c in cards.values() if c.checkpoints),
            }
            raise InputError("downloads", name, expected="a name of the list", remedy=near_matches(name, known))
    return list({item.name: item for item in items}.values())
