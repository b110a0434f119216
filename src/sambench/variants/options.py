"""A variant and how to run it, as the workflow says it to a script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sambench.variants.base import Runtime
from sambench.variants.cards import Card


def configured(model: Mapping[str, Any], threads: int) -> tuple[Card, Runtime, list[Path]]:
    """The card, the runtime with its threads, and the folders with checkpoint files.

    model: `name`, `card` (the part that decides what it computes), `runtime` and `weights`, the folders. threads: of
    the CPU, unless the runtime fixes them.
    """
    runtime = Runtime(**{**model["runtime"], "threads": model["runtime"].get("threads") or threads})
    return named_card(model["name"], model["card"]), runtime, [Path(folder) for folder in model["weights"]]


def named_card(name: str, card: Mapping[str, Any]) -> Card:
    """A card from the part of it that decides what the variant computes."""
    return Card(name=name, family="", **card)
