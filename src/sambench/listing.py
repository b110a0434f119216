"""Lists of variants and detectors for people and programs: what each is, and what is missing here to run it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sambench.detectors.registry import Detector, overview
from sambench.status import OK
from sambench.variants.cards import Card

HEAD = ("family", "licence (code / weights)", "params, M")


def variants_as_json(cards: Iterable[Card], folders: Sequence[Path]) -> str:
    """A list of objects, one per variant, as JSON; `state` is `ok` or why it cannot give an accuracy here."""
    return json.dumps([_facts(card, folders) for card in cards], indent=1)


def _facts(card: Card, folders: Sequence[Path]) -> dict[str, Any]:
    return {
        "name": card.name,
        "family": card.family,
        "prompts": list(card.prompts),
        "input_size": card.input_size,
        "params_m": card.params_m,
        "licence_code": card.licence_code,
        "licence_weights": card.licence_weights,
        "permissive": card.permissive,
        "files": [str(checkpoint["file"]) for checkpoint in card.checkpoints],
        "like": card.like,
        "paper": card.paper,
        "code": card.code,
        "state": card.availability(folders),
        "origin": card.origin(folders),
        "remedy": card.explain(folders),
    }


def variants_as_table(cards: Iterable[Card], folders: Sequence[Path]) -> None:
    """Print a table of variants, and below it what is missing."""
    table = Table("variant", *HEAD, "size", "state", box=None, pad_edge=False)
    hints = []
    for card in cards:
        state, origin = card.availability(folders), card.origin(folders)
        size = "" if card.input_size is None else str(card.input_size)
        shown = f"{state}, {origin}" if origin else state
        table.add_row(card.name, *_shared(card), size, f"[{_colour(state)}]{shown}[/]")
        if state != OK:
            hints.append((card.name, card.explain(folders)))
    _show(table, hints)


def detectors_as_table(cards: Mapping[str, Detector], folders: Sequence[Path]) -> None:
    """Print a table of detectors, and below it what is missing."""
    table = Table("detector", *HEAD, "state", box=None, pad_edge=False)
    lines = overview(cards, folders)
    for line in lines:
        params = "" if line.params_m is None else f"{line.params_m:.3f}"
        table.add_row(line.name, line.family, line.licence, params, f"[{_colour(line.status)}]{line.status}[/]")
    _show(table, [(line.name, line.reason) for line in lines if line.status != OK])


def _shared(card: Card) -> tuple[str, str, str]:
    licences = " / ".join(filter(None, (card.licence_code, card.licence_weights)))
    return card.family, licences, "" if card.params_m is None else f"{card.params_m:.3f}"


def _colour(state: str) -> str:
    return "green" if state == OK else "yellow"


def _show(table: Table, hints: Iterable[tuple[str, str]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    hints = list(hints)
    if hints:
        console.print("\nwhat is missing:")
    for name, hint in hints:
        console.print(f"  {name}: {hint}", soft_wrap=True, highlight=False, markup=False)
