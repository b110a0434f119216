"""Image files as every stage reads them: (H, W, 3) uint8 RGB, in the frame that the annotations are made in.

Pillow reads what has 8 bits per value, and grey levels of 16. What it cannot read whole (16 bits in colour, floats,
many bands) comes from OpenCV (PNG) or tifffile (TIFF). A `View` says how stored pixels become those that are measured
on; the index decides it once per picture (inspection.py), so that it is the same for every variant.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from sambench.errors import InputError

# The one limit, of pictures and of the sizes that annotations state: 0.8 GB of RGB, and 1 GiB for each mask that a
# variant enlarges to the size of the picture.
PIXEL_LIMIT = 2**28
Exif = Literal["apply", "ignore", "auto"]
PERCENTILE = "percentile"
PERCENTILES = (1, 99)

_PILLOW_ON_TIFF = logging.getLogger("PIL.TiffImagePlugin")

# What EXIF's orientations 2 to 8 ask for: (H, W, ...) -> the same pixels, to be seen upright.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, k=-1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


class View(NamedTuple):
    """How stored pixels are read.

    orientation: of EXIF, 1 for pixels as they are stored. scaling: of values of more than 8 bits, which value becomes 0
    and which 255: `LOW,HIGH`, `percentile` (of each picture), or empty for the upper 8 of 16 bits.
    """

    orientation: int = 1
    scaling: str = ""


def view_of(row: Any) -> View | None:
    """The view in a row of the index's images; None for a table without it."""
    return View(row.orientation, row.scaling) if hasattr(row, "orientation") else None


def read_image(path: str | Path, width: int, height: int, view: View | None = None) -> np.ndarray:
    """An image file of any colour mode -> (height, width, 3) uint8 RGB, without alpha.

    width, height: as the annotations have them. view: by default as `exif: auto` has it. Where a picture has more than
    three bands, the first three are taken.

    Raises InputError for a file that is missing, broken or of another size, and for pixels that only a `scaling` makes
    colours of.
    """
    with readable(path), opened(path) as picture:
        view = view or View(turn(picture, (width, height), "auto"))
        sides = seen_size(picture, view.orientation)
        if sides == (width, height):
            return _turned(_rgb(picture, view.scaling), view.orientation)
    raise other_size(path, sides, (width, height))


def read_upright(path: str | Path, scaling: str = "") -> np.ndarray:
    """An image file -> (H, W, 3) uint8 RGB, turned upright as a viewer shows it.

    Raises InputError like `read_image`.
    """
    with readable(path, "an image file"), opened(path) as picture:
        orientation = orientation_of(picture)
        return _turned(_rgb(picture, scaling), orientation)


def other_size(path: str | Path, found: tuple[int, int], stated: tuple[int, int]) -> InputError:
    """The refusal of a picture of another size than the annotations state; both are (width, height)."""
    return InputError(
        path,
        "size",
        expected=f"{stated[0]}x{stated[1]} as in the annotations",
        found=f"{found[0]}x{found[1]}",
        remedy="use the images that the annotations were made on",
    )


@contextmanager
def readable(path: str | Path, expected: str = "a readable image") -> Iterator[None]:
    """Turns whatever a decoder raises into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on broken files, and no base class
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, expected=expected, found=found, remedy="fetch the file again") from error


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """The file's header, read by Pillow (`Image.Image`), or by tifffile (`TiffPage`) where Pillow does not know it.

    Raises InputError above PIXEL_LIMIT, before a pixel is read.
    """
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is for web servers; ours is checked just below
    _PILLOW_ON_TIFF.setLevel(logging.CRITICAL)  # it prints about every file that it leaves to tifffile
    try:
        picture = Image.open(path)
    except (OSError, ValueError) as error:
        if Path(path).suffix.lower() not in (".tif", ".tiff") or isinstance(error, FileNotFoundError):
            raise
        import tifffile

        try:
            file = tifffile.TiffFile(path)
        except (tifffile.TiffFileError, ValueError):
            raise error from None
        with file:
            _within_limit(path, size_of(file.pages[0]))
            yield file.pages[0]
        return
    with picture:
        _within_limit(path, picture.size)
        yield picture


def _within_limit(path: str | Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > PIXEL_LIMIT:
        expected, remedy = f"at most {PIXEL_LIMIT:,} pixels", "cut the picture and its annotations into tiles"
        raise InputError(path, "size", expected=expected, found=f"{size[0]}x{size[1]}", remedy=remedy)


def size_of(picture: Any) -> tuple[int, int]:
    """(width, height) of what `opened` gives, as stored."""
    if not isinstance(picture, Image.Image):
        return picture.imagewidth, picture.imagelength
    width, height = picture.size
    return (height, width) if _turned_by_pillow(picture) >= 5 else (width, height)


def _turned_by_pillow(picture: Any) -> int:
    """The orientation that Pillow applies by itself when it loads a TIFF, and then forgets."""
    return orientation_of(picture) if picture.format == "TIFF" else 1


def seen_size(picture: Any, orientation: int) -> tuple[int, int]:
    """(width, height) once the picture is turned: orientations 5 to 8 exchange the two."""
    width, height = size_of(picture)
    return (height, width) if orientation >= 5 else (width, height)


def orientation_of(picture: Any) -> int:
    """EXIF's orientation, 1 to 8; 1 where the file has none that makes sense."""
    if not isinstance(picture, Image.Image):
        tag = picture.tags.get("Orientation")
        found = tag.value if tag is not None else 1
    elif picture.format == "PNG" and not {"exif", "Raw profile type exif"} & {*picture.info}:
        # Pillow decodes a PNG to look for EXIF behind the pixels.
        with Path(file_of(picture)).open("rb") as file:
            found = picture.getexif().get(ExifTags.Base.Orientation) if b"eXIf" in png_chunks(file) else 1
    else:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    return int(found) if found in _TURNS else 1


def png_chunks(file: Any) -> list[bytes]:
    """The names of the chunks of a PNG that are there in full, in order."""
    file.seek(0, 2)
    size, at, names = file.tell(), 8, []
    while at + 12 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        at += length + 12
        if at <= size:
            names.append(name)
    return names


def turn(picture: Any, stated: tuple[int, int], exif: Exif) -> int:
    """The orientation that is applied to a picture that annotations say to be `stated`, (width, height).

    `auto`: annotations are in the frame of the stored pixels, but where only the turned size is theirs.
    """
    if exif == "ignore" or (exif == "auto" and size_of(picture) == stated):
        return 1
    orientation = orientation_of(picture)
    return orientation if exif == "apply" or seen_size(picture, orientation) == stated else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


class Values(NamedTuple):
    """Of what kind the values of a picture are. bits: of one; bands: values per pixel."""

    bits: int
    bands: int
    kind: str = "u"  # u(nsigned), i(nteger with a sign) or f(loat), as NumPy has it


def values_of(picture: Any) -> Values:
    """From the header alone."""
    if not isinstance(picture, Image.Image):
        return Values(picture.bitspersample, picture.samplesperpixel, picture.dtype.kind if picture.dtype else "u")
    bands = len(picture.getbands())
    if picture.format == "TIFF":
        tags: Any = picture.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(258, (1,)))
        kind = {2: "i", 3: "f"}.get(tags.get(339, (1,))[0], "u")
        return Values(bits, tags.get(277, bands), kind)
    if picture.mode == "F":
        return Values(32, 1, "f")
    if picture.mode == "I":  # of 16 bits in a PGM
        return Values(16 if picture.format == "PPM" else 32, 1, "u" if picture.format == "PPM" else "i")
    tiles: Any = getattr(picture, "tile", None)
    deep = picture.mode.startswith("I;16") or (picture.format == "PNG" and tiles and "16" in str(tiles[0][3]))
    return Values(16 if deep else 8, bands)


def raw(picture: Any) -> np.ndarray:
    """The values as they are stored, (H, W) or (H, W, bands), RGB first. `picture` is not loaded yet."""
    if not isinstance(picture, Image.Image):
        pixels = picture.asarray()
        return np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 and picture.planarconfig == 2 else pixels
    if len(picture.getbands()) == 1:
        return _as_stored(picture, lambda: np.asarray(picture))
    name = str(getattr(picture, "filename", ""))
    if picture.format == "TIFF":
        import tifffile

        with tifffile.TiffFile(name) as file:
            return raw(file.pages[0])
    import cv2  # a PNG: Pillow cuts its colours to 8 bits

    pixels = cv2.imdecode(np.fromfile(name, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("broken data")
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0][: pixels.shape[2]]]


def check_values(values: Values, scaling: str, path: str | Path) -> None:
    """Raises InputError for values that only a `scaling` makes colours of, where there is none."""
    if scaling or values.bits <= 8 or (values.bits <= 16 and values.kind == "u"):
        return
    noun = {"f": "floats", "i": "with a sign"}.get(values.kind, "integers")
    raise InputError(
        path,
        expected="8 bits per value, or 16 without a sign",
        found=f"pixels of {values.bits} bits ({noun})",
        remedy="say which values are black and white: `range: [low, high]` or `range: percentile`",
    )


def _rgb(picture: Any, scaling: str) -> np.ndarray:
    values = values_of(picture)
    check_values(values, scaling, file_of(picture))
    if values.bits > 8 and scaling:
        return _colours(_scaled(_three(raw(picture)), scaling))
    if not isinstance(picture, Image.Image):
        pixels = _three(raw(picture))
        return _colours((pixels >> 8).astype(np.uint8) if values.bits > 8 else pixels)
    if picture.mode.startswith("I"):  # 16 bits; Pillow's own conversion may clip at 255
        return _colours((raw(picture) >> 8).astype(np.uint8))
    if picture.mode == "P":  # by way of RGBA, or Pillow warns about transparent palettes
        return _as_stored(picture, lambda: np.array(picture.convert("RGBA").convert("RGB")))
    return _as_stored(picture, lambda: np.array(picture.convert("RGB")))


def _as_stored(picture: Image.Image, load: Callable[[], np.ndarray]) -> np.ndarray:
    """What `load` makes of a picture, in the frame of the stored pixels."""
    done = _turned_by_pillow(picture)
    pixels = load()
    return pixels if done == 1 else _turned(pixels, {6: 8, 8: 6}.get(done, done))


def file_of(picture: Any) -> str:
    """The path of what `opened` gives."""
    if isinstance(picture, Image.Image):
        return str(getattr(picture, "filename", ""))
    return str(picture.parent.filehandle.path)


def _three(pixels: np.ndarray) -> np.ndarray:
    """The first three bands, or the first where there are fewer: (H, W, 3) or (H, W)."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]


def _colours(pixels: np.ndarray) -> np.ndarray:
    """(H, W) grey levels or (H, W, 3), uint8 -> (H, W, 3)."""
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else np.ascontiguousarray(pixels)


def _scaled(pixels: np.ndarray, scaling: str) -> np.ndarray:
    """Values of any kind -> uint8: the lower bound and what is below become 0, the upper one and what is above 255."""
    values = np.nan_to_num(pixels.astype(np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    if scaling == PERCENTILE:
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, PERCENTILES) if finite.size else (0.0, 0.0)
    else:
        low, high = map(float, scaling.split(","))
    if not low < high:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values.clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
