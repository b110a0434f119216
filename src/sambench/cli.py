"""The command `sambench`: what one wants to know or try without running a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import cyclopts

import sambench
from sambench.script import guarded

app = cyclopts.App(
    name="sambench",
    help="Measure every Segment Anything variant the same way. A study is run by Snakemake (see README.md); the "
    "commands here show, try and check variants.",
    version=sambench.__version__,
    help_format="plaintext",
)

WeightsFolders = Annotated[
    list[Path] | None, cyclopts.Parameter(name="--weights", help="folder with checkpoint files; may be repeated")
]
DEFAULT_WEIGHTS = [Path("weights")]


@app.command
def variants(*, weights: WeightsFolders = None) -> None:
    """List every variant of the registry: family, licences, parameters, and whether its weights are here.

    A variant without weights shows which file to put where; one that cannot be run shows the reason.
    """
    from rich.console import Console
    from rich.table import Table

    from sambench.config import read_registries
    from sambench.status import OK
    from sambench.variants.registry import read_cards

    folders = weights or DEFAULT_WEIGHTS
    table = Table("variant", "family", "licence (code / weights)", "params, M", "size", "state", box=None, pad_edge=False)
    cards = read_cards(read_registries(["variants"])["variants"])
    hints = []
    for card in cards.values():
        state = card.availability(folders)
        licences = " / ".join(filter(None, (card.licence_code, card.licence_weights)))
        params = "" if card.params_m is None else f"{card.params_m:.3f}"
        size = "" if card.input_size is None else str(card.input_size)
        style = "green" if state == OK else "yellow"
        table.add_row(card.name, card.family, licences, params, size, f"[{style}]{state}[/]")
        if state != OK:
            hints.append((card.name, card.explain(folders)))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print("\nwhat is missing:")
    for name, hint in hints:
        console.print(f"  {name}: {hint}", soft_wrap=True, highlight=False, markup=False)


@app.command
def parity(*fixtures: Path) -> None:
    """Check adapters, generators and clicks against numbers that the official code gave.

    Prints the largest error of every stage; the exit status is 1 when one is over its tolerance.

    Parameters
    ----------
    fixtures: parity fixtures, JSON files of any kind, or folders of them
    """
    from sambench import parity as checks

    sys.exit(checks.main(list(fixtures)))


def main() -> None:
    """The entry point."""
    guarded(app)


if __name__ == "__main__":
    main()
