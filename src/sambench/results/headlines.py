"""The prompt sets that stand for all of a study where one number has to do."""

from __future__ import annotations

from collections.abc import Iterable

# For boxes and for points: the first of these that the study has, else its first one.
HEADLINES = {"box": ("box", "tight_box"), "point": ("mask_center", "click_1", "box_center", "random_1")}


def headline(kind: str, prompts: Iterable[str]) -> str:
    """Of prompt sets of one kind, a key of HEADLINES, the one that stands for them; empty without any."""
    present = list(prompts)
    return next((name for name in HEADLINES[kind] if name in present), present[0] if present else "")


def headlines(prompts: Iterable[str]) -> list[str]:
    """The prompt sets that stand for boxes and for points; without either, the first one of all."""
    present = list(dict.fromkeys(prompts))
    chosen = [next((name for name in names if name in present), "") for names in HEADLINES.values()]
    return [name for name in chosen if name] or present[:1]
