"""The options that scripts running a variant have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cyclopts

from sambench.variants.base import Runtime
from sambench.variants.registry import Card


@cyclopts.Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class VariantOptions:
    """A variant and how to run it, as the workflow says it.

    Parameters
    ----------
    variant
        the variant's name
    card
        JSON, the part of its card that decides what it computes
    runtime
        JSON: name, device, dtype, attention, compile, engine, decoder, threads
    weights
        JSON list of the folders with checkpoint files
    threads
        CPU threads, unless the runtime fixes them
    """

    variant: str
    card: str
    runtime: str
    weights: str
    threads: int

    def parsed(self) -> tuple[Card, Runtime, list[Path]]:
        """The card, the runtime with its threads, and the folders with checkpoint files."""
        how = json.loads(self.runtime)
        runtime = Runtime(**{**how, "threads": how.get("threads") or self.threads})
        card = Card(name=self.variant, family="", **json.loads(self.card))
        return card, runtime, [Path(folder) for folder in json.loads(self.weights)]
