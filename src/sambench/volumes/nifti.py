"""Pairs of an image and its labels in NIfTI files: which belong together, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sambench.datasets.identity import identities
from sambench.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
CHANNEL = "_0000"  # what nnU-Net puts after the name of an image's first channel
ALIGNED = 1e-3  # millimetres: how far the grids of an image and its labels may lie apart


class Pair(NamedTuple):
    """A volume and its labels."""

    name: str
    image: Path
    labels: Path


class Volume(NamedTuple):
    """voxels: (X, Y, Z) float32. labels: (X, Y, Z) int64, 0 is background. Axes point right, forward and up."""

    voxels: np.ndarray
    labels: np.ndarray


def stem(path: Path) -> str:
    """The name of a file without `.nii` or `.nii.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def pairs(name: str, entry: Mapping[str, Any]) -> list[Pair]:
    """The pairs of a set of volumes, in the order of their names.

    entry: `images` and `labels`, each a folder, a file or a list of files. Files of folders belong together by their
    names, of which an image may have nnU-Net's `_0000` at its end; those of lists by their order.
    Raises InputError, one line, for an image without labels, labels without an image or a name that occurs twice.
    """
    field = f"volumes.datasets.{name}"
    images, labels = (_files(f"{field}.{kind}", entry[kind]) for kind in ("images", "labels"))
    if isinstance(entry["images"], str) and isinstance(entry["labels"], str) and Path(entry["images"]).is_dir():
        by_name = {stem(path): path for path in labels}
        keys = {stem(path): path for path in images}
        keys = {key if key in by_name else key.removesuffix(CHANNEL): path for key, path in keys.items()}
        for kind, lonely in (("images", keys.keys() - by_name.keys()), ("labels", by_name.keys() - keys.keys())):
            if lonely:
                found = f"{len(lonely)} without, such as {min(lonely)}"
                raise InputError("config", f"{field}.{kind}", expected="image and labels of each name", found=found)
        return [Pair(key, keys[key], by_name[key]) for key in sorted(keys)]
    if len(images) != len(labels):
        found = f"{len(images)} and {len(labels)}"
        raise InputError("config", field, expected="as many images as labels", found=found)
    found_pairs = [Pair(stem(image), image, label) for image, label in zip(images, labels, strict=True)]
    names = [pair.name for pair in found_pairs]
    if twice := next((each for each in names if names.count(each) > 1), ""):
        raise InputError("config", f"{field}.images", expected="files of different names", found=f"{twice} twice")
    return found_pairs


def job_settings(name: str, entry: Mapping[str, Any], clicks: int) -> dict[str, Any]:
    """What a job of a set is made with: how it is clicked on, and what its files are now, so that a replaced file makes
    its jobs run again."""
    files = [str(file) for pair in pairs(name, entry) for file in (pair.image, pair.labels)]
    return {
        "name": name,
        "entry": {key: value for key, value in entry.items() if key != "title"},
        "clicks": clicks,
        "identities": identities(files),
    }


def _files(field: str, given: str | Sequence[str]) -> list[Path]:
    """A folder's NIfTI files, or the files of a list; InputError for one that is not there."""
    remedy = "correct the path (relative ones start at the working directory)"
    if isinstance(given, str) and Path(given).is_dir():
        found = sorted(path for path in Path(given).iterdir() if path.name.endswith(SUFFIXES))
        if not found:
            raise InputError("config", field, expected="a folder with .nii or .nii.gz files", found=given)
        return found
    files = [Path(file) for file in ([given] if isinstance(given, str) else given)]
    for file in files:
        if not file.is_file():
            raise InputError("config", field, expected="a NIfTI file or a folder of them", found=file, remedy=remedy)
    return files


def read(pair: Pair, spacing: float | None = None, clamp: tuple[float, float] | None = None) -> Volume:
    """An image and its labels on one grid, turned to the nearest canonical axes.

    spacing: millimetres between voxels that both are resampled to (linear and nearest); None: as they are. clamp: the
    values that voxels below and above get. Raises InputError when a file is no three-dimensional NIfTI image, labels
    are no whole numbers, or the two grids differ.
    """
    import nibabel

    image, labels = (_load(path) for path in (pair.image, pair.labels))
    apart = np.abs(image.affine - labels.affine).max()
    if image.shape != labels.shape or apart > ALIGNED:
        found = f"{labels.shape}, {apart:.3g} mm apart" if image.shape == labels.shape else f"{labels.shape}"
        raise InputError(pair.labels, "grid", expected=f"that of {pair.image}, {image.shape}", found=found)
    values = np.asanyarray(labels.dataobj)
    if not np.array_equal(values, np.rint(values)):
        raise InputError(
            pair.labels, "labels", expected="whole numbers", found=f"{values[values != np.rint(values)][0]:g}"
        )
    if spacing is not None:
        from nibabel.processing import resample_to_output

        # Labels keep the grid of the image whatever rounding makes of their own.
        labels = nibabel.Nifti1Image(values.astype(np.int32), labels.affine)
        image, labels = (resample_to_output(each, (spacing,) * 3, order) for each, order in ((image, 1), (labels, 0)))
    image, labels = nibabel.as_closest_canonical(image), nibabel.as_closest_canonical(labels)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    if not np.isfinite(voxels).all():
        raise InputError(pair.image, "voxels", expected="finite values", found="infinite ones or NaN")
    if clamp is not None:
        voxels = voxels.clip(*clamp)
    return Volume(voxels, np.rint(np.asanyarray(labels.dataobj)).astype(np.int64))


def _load(path: Path) -> Any:
    import nibabel

    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image | nibabel.Nifti2Image):
            raise InputError(path, expected="a NIfTI image", found=type(image).__name__)
        if image.ndim == 4 and image.shape[3] == 1:
            image = image.slicer[..., 0]
        if image.ndim != 3:
            raise InputError(path, "shape", expected="three axes", found=image.shape)
        image.get_fdata(caching="fill", dtype=np.float32)  # a damaged file shows itself here
    except InputError:
        raise
    except Exception as error:  # files are not trusted, and fail in as many ways as there are bytes
        found = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(path, expected="a NIfTI image", found=found) from None
    return image
