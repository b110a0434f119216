"""The photographs of ice that the corruption `frost` lays over an image: fetched like a checkpoint, never run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sambench.files import is_file

NAME = "frost"
# (file, bytes, SHA-256) as the package imagecorruptions has them; it takes five of its six.
_FILES = (
    ("frost1.png", 1199930, "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755"),
    ("frost2.png", 299002, "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137"),
    ("frost3.png", 299002, "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504"),
    ("frost4.jpg", 36734, "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e"),
    ("frost5.jpg", 155150, "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2"),
)
# As the checkpoints of a card.
CHECKPOINTS: tuple[dict[str, Any], ...] = tuple(
    {
        "file": f"{NAME}/{file}",
        "bytes": size,
        "sha256": digest,
        "package": {"name": "imagecorruptions", "version": "1.1.2", "member": f"imagecorruptions/frost/{file}"},
    }
    for file, size, digest in _FILES
)


def textures(folders: Iterable[Path]) -> list[Path]:
    """The photographs, each in the first of the weights folders that has it; none where one is missing."""
    folders = list(folders)
    found = [
        next((folder / NAME / file for folder in folders if is_file(folder / NAME / file)), None) for file, *_ in _FILES
    ]
    return [path for path in found if path] if all(found) else []
