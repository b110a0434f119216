"""A small sample of a large data set: its annotations out of a remote archive, its images one by one.

The rule is fixed and needs only the annotation file: the images whose ids, in decimal, have the smallest SHA-256.
So the sample is spread over the whole set, is the same everywhere, and a larger one contains a smaller one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image

from sambench.downloads.catalogue import Download
from sambench.downloads.transfer import RetryPolicy, TransferError, discard, receive
from sambench.errors import InputError
from sambench.files import atomic, write_text
from sambench.progress import track

if TYPE_CHECKING:
    from sambench.downloads.store import Store


@dataclass(frozen=True)
class Sample:
    """What to fetch.

    zip: addresses of an archive. member: the annotation file in it. whole: the download of the same archive, for
    servers that give no parts of files. images: how many. annotations, folder: where the sample belongs.
    """

    zip: Sequence[str]
    member: str
    images: int
    annotations: Path
    folder: Path
    whole: Download | None = None


def chosen(ids: Iterable[int], count: int) -> list[int]:
    """The `count` ids with the smallest SHA-256, by id."""
    return sorted(sorted(ids, key=lambda number: hashlib.sha256(str(number).encode()).digest())[:count])


def fetch_sample(sample: Sample, store: Store) -> None:
    """Bring the sample here; the annotation file is written last and says that all of it is here.

    Images that are here are kept, so that an interrupted run goes on.

    Raises InputError when the annotations or an image cannot be fetched or are not what they must be.
    """
    if store.offline:
        where = f"put the annotations at {sample.annotations} and the images into {sample.folder}"
        raise InputError(sample.annotations, expected="a sample to fetch", found="no network allowed", remedy=where)
    document = read_member(sample, store)
    try:
        wanted = set(chosen((image["id"] for image in document["images"]), sample.images))
        images = [image for image in document["images"] if image["id"] in wanted]
        annotations = [entry for entry in document["annotations"] if entry["image_id"] in wanted]
        named = [(PurePosixPath(image.get("file_name") or image["coco_url"]).name, image) for image in images]
    except (KeyError, TypeError, AttributeError):
        raise InputError(sample.member, expected="a COCO-format document with `coco_url`") from None
    sample.folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for name, image in track(named, len(named), f"images of {sample.annotations.name}"):
        try:
            fetch_image(image, sample.folder / name, store.policy)
        except TransferError as refusal:
            failures.append(f"{name}: {refusal}")
            if len(failures) > 3:
                break
    if failures:
        remedy = "run it again: it goes on with what is missing"
        raise InputError(sample.folder, expected=f"{len(named)} images", found=failures[0], remedy=remedy)
    images = [{**image, "file_name": name} for name, image in named]
    write_text(sample.annotations, json.dumps({**document, "images": images, "annotations": annotations}))


def fetch_image(image: Mapping[str, Any], path: Path, policy: RetryPolicy) -> None:
    """One image from its `coco_url`, whole and of the size that the annotations state.

    Raises TransferError.
    """
    size = (image["width"], image["height"])
    if path.is_file() and _size(path) == size:
        return
    part = path.with_name(f"{path.name}.part")
    item = Download(path.name, "images", path.name, [image["coco_url"]], path)
    receive(image["coco_url"], item, part, policy, quiet=True)
    if (found := _size(part)) != size:
        discard(part)
        raise TransferError(f"an image of {size[0]}x{size[1]} expected, {_shown(found)} found at {image['coco_url']}")
    part.replace(path)


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image that can be read to its end."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.size
    except (OSError, SyntaxError, ValueError):
        return None


def _shown(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "no image"


def read_member(sample: Sample, store: Store) -> dict[str, Any]:
    """The annotation file of the whole set, kept in the cache."""
    kept = store.folder / "members" / PurePosixPath(sample.member).name
    if not kept.is_file():
        _fetch_member(sample, store, kept)
    try:
        document: dict[str, Any] = json.loads(kept.read_bytes())
    except ValueError as error:
        kept.unlink()
        raise InputError(kept, expected="JSON", found=error, remedy="run it again: it is fetched anew") from None
    return document


def _fetch_member(sample: Sample, store: Store, kept: Path) -> None:
    from remotezip import RangeNotSupported, RemoteZip, RemoteZipError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    def get(url: str) -> None:
        # RemoteZip reads the archive's index and this member; zipfile checks its CRC-32.
        with (
            RemoteZip(url, timeout=(store.policy.connect, store.policy.read)) as archive,
            archive.open(sample.member) as member,
            atomic(kept) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(member, file, 1 << 20)

    broken = (
        RemoteZipError,
        RequestException,
        HTTPError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
    )
    refusals = []
    for url in sample.zip:
        try:
            _again(lambda url=url: get(url), store.policy, broken, final=(RangeNotSupported, KeyError))  # type: ignore[misc]
            return
        except (*broken, RangeNotSupported, KeyError) as error:
            refusals.append(f"{' '.join(str(error).split()) or type(error).__name__} at {url}")
    if sample.whole is not None:
        content = store.get(sample.whole)
        whole = content / PurePosixPath(sample.member).name if content.is_dir() else content
        if whole.is_file():
            with atomic(kept) as temporary:
                shutil.copyfile(whole, temporary)
            return
    raise InputError(sample.member, expected="an archive that holds it", found="; ".join(refusals))


def _again(
    attempt: Callable[[], None],
    policy: RetryPolicy,
    broken: tuple[type[Exception], ...],
    final: tuple[type[Exception], ...],
) -> None:
    """Call until it succeeds, at most as often as the policy has it."""
    for number in range(policy.attempts):
        try:
            attempt()
            return
        except final:
            raise
        except broken:
            if number + 1 == policy.attempts:
                raise
            time.sleep(policy.pause * 2**number)
