"""Pictures before anything runs: what their headers say, whether the files are whole, and what has to be guessed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sambench.datasets import pictures
from sambench.datasets.pictures import Exif, Values, View
from sambench.errors import InputError

_READERS = 8  # threads, which mostly wait for the disk
_SAMPLE = 8  # pictures of 16 bits that are decoded, to see which part of the range they use
_DARK = 1 << 14  # below is the darkest quarter of 16 bits


@dataclass(frozen=True)
class Reading:
    """How the pictures of a dataset are to be looked at and read.

    exif: `apply` the orientation that a file states, `ignore` it, or `auto`: apply it where only then the size is that
    of the annotations. scaling: see pictures.View. whole: decode every picture, not only those that look cut off.
    """

    exif: Exif = "auto"
    scaling: str = ""
    whole: bool = False


class Look(NamedTuple):
    """What was seen of a picture.

    view: how it is read. values: of what kind its values are. guessed: its EXIF orientation was left out, and nothing
    says whether that is right. surplus: bands or pages that are not read.
    """

    view: View
    values: Values
    guessed: bool
    surplus: bool


def look(path: str, width: int, height: int, reading: Reading) -> Look:
    """Look at one picture that the annotations say to be width x height.

    Raises InputError for a file that `pictures.read_image` would refuse, as far as its header, its end and its length
    tell; with `reading.whole`, for every one.
    """
    with pictures.readable(path), pictures.opened(path) as picture:
        whole, stated = _ends_well(picture, Path(path)), (width, height)
        turn = pictures.turn(picture, stated, reading.exif)
        if (seen := pictures.seen_size(picture, turn)) != stated:
            raise pictures.other_size(path, seen, stated)
        values = pictures.values_of(picture)
        pictures.check_values(values, reading.scaling, path)
        surplus = values.bands > 4 or not isinstance(picture, Image.Image) or picture.mode == "RGBX"
        guessed = turn == 1 and reading.exif == "auto" and _fits_turned(picture, stated)
        if reading.whole or not whole:
            _decode(picture)
        return Look(View(turn, reading.scaling if values.bits > 8 else ""), values, guessed, surplus)


def look_at_all(rows: Sequence[tuple[str, int, int]], reading: Reading) -> list[Look | InputError]:
    """`look` at each path, width and height, several at a time; a refusal in its place."""

    def attempt(row: tuple[str, int, int]) -> Look | InputError:
        try:
            return look(*row, reading)
        except InputError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(attempt, rows))


def warnings(looks: Sequence[tuple[str, Look]]) -> dict[str, int]:
    """What had to be guessed about pictures that can be read, and of how many; looks: by path."""
    guessed = sum(look.guessed for _, look in looks)
    surplus = sum(look.surplus for _, look in looks)
    deep = [path for path, look in looks if look.values.bits > 8 and not look.view.scaling]
    found = {}
    if guessed:
        found["images with an EXIF orientation that their size does not settle, read as stored (key `exif`)"] = guessed
    if surplus:
        found["images with more bands than red, green and blue, of which the first three are read"] = surplus
    if deep and (largest := brightest(deep)) < _DARK:
        text = f"images of 16 bits with values up to {largest:.0f}, which become 0 to {int(largest) >> 8} of 255"
        found[f"{text} (key `range`)"] = len(deep)
    return found


def brightest(paths: Sequence[str]) -> float:
    """The largest value of a few of these pictures of 16 bits, spread evenly over the list."""
    step = max(1, len(paths) // _SAMPLE)
    largest = 0.0
    for path in paths[::step][:_SAMPLE]:
        with pictures.readable(path), pictures.opened(path) as picture:
            largest = max(largest, float(np.max(pictures.raw(picture), initial=0)))
    return largest


def _fits_turned(picture: Any, stated: tuple[int, int]) -> bool:
    orientation = pictures.orientation_of(picture)
    return orientation != 1 and pictures.seen_size(picture, orientation) == stated


def _decode(picture: Any) -> None:
    if isinstance(picture, Image.Image):
        picture.load()
    else:
        pictures.raw(picture)


def _ends_well(picture: Any, path: Path) -> bool:
    """Whether the file has the end that its format demands; False where only decoding can tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(max(0, size - 32))
        end = file.read()
        form = picture.format if isinstance(picture, Image.Image) else "TIFF"
        if form == "JPEG":
            return b"\xff\xd9" in end  # no such bytes are within coded pixels
        if form == "PNG":
            return pictures.png_chunks(file)[-1:] == [b"IEND"]
        if form == "BMP":
            return bool(struct.unpack("<I", start[2:6])[0] == size)
        if form == "WEBP":
            return bool(struct.unpack("<I", start[4:8])[0] + 8 <= size)
        if form == "TIFF":
            return _strips_end(picture) <= size
    return False


def _strips_end(picture: Any) -> float:
    """Where the last strip or tile of a TIFF ends, in bytes; infinity where it does not say."""
    if isinstance(picture, Image.Image):
        tags: Any = picture.tag_v2  # type: ignore[attr-defined]
        offsets, counts = tags.get(273, tags.get(324)), tags.get(279, tags.get(325))
    else:
        offsets, counts = picture.dataoffsets, picture.databytecounts
    if not offsets or not counts or len(offsets) != len(counts):
        return float("inf")
    return float(max(offset + count for offset, count in zip(offsets, counts, strict=True)))
