"""Whether a checkpoint file is the one that a card is about: its digest tells what names and shapes cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sambench.digests import KINDS, digest
from sambench.files import is_file

if TYPE_CHECKING:
    from sambench.variants.cards import Card

OFFICIAL = "official file"  # the digest is that of the card
ANOTHER = "another file"  # it is not
UNKNOWN = "no digest known"  # the card has none to compare with
KNOWN_AS = "known as "  # it is that of the file of another variant, whose name follows
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def origins(card: Card, paths: Sequence[Path], cards: Iterable[Card], folders: Iterable[Path]) -> list[str]:
    """What each of the card's files is: OFFICIAL, ANOTHER, UNKNOWN, or KNOWN_AS with the name of another variant.

    paths: the files, in the order of the card. cards: the variants that it may be mistaken for. folders: where their
    files are looked for, since a file of no known digest may still be a copy of one of them.
    """
    cards, folders = list(cards), list(folders)
    return [
        _origin(path, checkpoint, card, cards, folders)
        for path, checkpoint in zip(paths, card.checkpoints, strict=True)
    ]


def summary(found: Sequence[str]) -> str:
    """One phrase for all files of a card: the worst one of them; empty without files."""
    for state in (*(f for f in found if f.startswith(KNOWN_AS)), ANOTHER, UNKNOWN, OFFICIAL):
        if state in found:
            return state
    return ""


def _origin(path: Path, checkpoint: Mapping[str, Any], card: Card, cards: list[Card], folders: list[Path]) -> str:
    if (own := _matches(path, checkpoint)) is True:
        return OFFICIAL
    # Other files of this card as well: two of its files may have changed places.
    # The variant whose architecture it has comes first: several may have the same file.
    cards = sorted(cards, key=lambda other: other.name != card.like)
    others = [(other, entry) for other in cards if other.name != card.name for entry in other.checkpoints]
    others += [(card, entry) for entry in card.checkpoints]
    others = [(other, entry) for other, entry in others if entry["file"] != checkpoint["file"]]
    for other, entry in others:
        if _matches(path, entry):
            return f"{KNOWN_AS}{_name(other, entry, card)}"
    if own is False:
        return ANOTHER
    for other, entry in others:
        if any(_same_content(path, folder / entry["file"]) for folder in folders):
            return f"{KNOWN_AS}{_name(other, entry, card)}"
    return UNKNOWN


def _name(other: Card, entry: Mapping[str, Any], card: Card) -> str:
    return str(entry["file"]) if other.name == card.name else other.name


def _matches(path: Path, checkpoint: Mapping[str, Any]) -> bool | None:
    """Whether a file is the published one; None when nothing is known about that one."""
    url = str(checkpoint.get("url", ""))
    if url.endswith(ARCHIVES) and not str(checkpoint["file"]).endswith(ARCHIVES):
        return None  # size and digests are those of the archive
    known = {kind: checkpoint[kind] for kind in KINDS if checkpoint.get(kind)}
    if not known:
        return None
    if "bytes" in checkpoint and checkpoint["bytes"] != path.stat().st_size:
        return False
    return all(digest(path, kind) == expected for kind, expected in known.items())


def _same_content(path: Path, other: Path) -> bool:
    return is_file(other) and other.stat().st_size == path.stat().st_size and digest(other) == digest(path)
