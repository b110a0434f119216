"""Variants that are another one with a file of the user's own: `mine: {like: mobilesam, file: mine.pt}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sambench.errors import InputError, near_matches

Entries = Mapping[str, Mapping[str, Any]]
# What is said of the other one's files and holds for no other file.
ITS_OWN = ("checkpoints", "licence_weights", "counts", "notes", "checked", "file")


def complete(entries: Entries, known: Entries | None = None) -> dict[str, Mapping[str, Any]]:
    """The entries of the registry `variants`, those with `like` filled up from the one that they name.

    Keys that an entry gives itself win. known: further entries that may be named.

    Raises InputError for an unknown name, a circle, and a `file` where the other one has several.
    """
    every = {**(known or {}), **entries}
    return {name: _filled(name, entry, every) for name, entry in entries.items()}


def _filled(name: str, entry: Mapping[str, Any], every: Entries, above: tuple[str, ...] = ()) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping) or "like" not in entry:
        return entry
    field, base = f"variants.{name}", entry["like"]
    if base not in every:
        remedy = near_matches(str(base), every)
        raise InputError("config", f"{field}.like", expected="a variant of the registry", found=base, remedy=remedy)
    if base == name or base in above:
        raise InputError(
            "config", f"{field}.like", expected="another variant", found=" like ".join((*above, name, base))
        )
    other = _filled(base, every[base], every, (*above, name))
    own = dict(entry)
    if "file" not in own and "checkpoints" not in own:
        remedy = "name your checkpoint: `file: PATH`"
        raise InputError("config", field, expected="file, beside like", found="none", remedy=remedy)
    if "file" in own:
        files = other.get("checkpoints", ())
        if len(files) != 1 or "checkpoints" in own:
            found = f"file, and {len(files)} files of {base}" if len(files) != 1 else "both"
            raise InputError(
                "config", field, expected="file or checkpoints", found=found, remedy="name all files under checkpoints"
            )
        own["checkpoints"] = [{"file": own.pop("file")}]
    # The variant at the end of the chain: whose architecture it is, and whose file it may be a copy of.
    own["like"] = other.get("like", base)
    return {**{key: value for key, value in other.items() if key not in ITS_OWN}, **own}
