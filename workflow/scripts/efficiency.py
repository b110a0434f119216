"""Count what one variant costs: parameters, FLOPs and MACs of its parts, and the size of its checkpoint."""

import json
import sys
from pathlib import Path

import pandas as pd

from sambench.errors import InputError
from sambench.provenance import provenance
from sambench.results.schemas import COST, write_parquet
from sambench.script import run
from sambench.status import NO_NETWORK, NO_WEIGHTS, OK, OUT_OF_MEMORY
from sambench.variants.registry import Card


def main(*, variant: str, card: str, weights: str, height: int, width: int, output: Path) -> None:
    """Write one row a part, or one row with a status. Weights are random: they change no count.

    Parameters
    ----------
    variant
        the variant's name
    card
        JSON, the part of its card that decides what it computes
    weights
        JSON list of the folders with checkpoint files
    height
        of the image, pixels
    width
        of the image, pixels
    output
        Parquet file to write
    """
    what, folders = Card(name=variant, family="", **json.loads(card)), [Path(folder) for folder in json.loads(weights)]
    state = what.availability(folders)
    facts = {"variant": variant, "checkpoint_bytes": checkpoint_bytes(what, folders)}
    rows: list[dict[str, object]] = []
    if state == OK and not what.checkpoints:
        state = NO_NETWORK
    elif state in (OK, NO_WEIGHTS):
        # The counters are slow to import, and a baseline needs none.
        from sambench.measure.cost import count
        from sambench.memory import is_out_of_memory

        try:
            cost = count(what, (height, width), folders)
            state = OK
            rows = [
                {
                    **facts,
                    "part": part,
                    "parameters": cost.parameters[part],
                    "flops": counted.flops,
                    "macs": counted.macs,
                    "products": counted.products,
                    "unseen": json.dumps(counted.unseen, sort_keys=True),
                    "status": OK,
                }
                for part, counted in cost.operations.items()
            ]
        except InputError as error:
            print(error, file=sys.stderr)
            state = NO_WEIGHTS
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            print(error, file=sys.stderr)
            state = OUT_OF_MEMORY
    else:
        print(f"efficiency {variant}: {state}: {what.explain(folders)}", file=sys.stderr)
    table = pd.DataFrame(rows or [{**facts, "status": state}], columns=COST.names)
    write_parquet(output, table, COST, provenance([card, height, width]))


def checkpoint_bytes(card: Card, folders: list[Path]) -> int | None:
    """The size of the files that are here, else the size that the card names; None when neither is known."""
    paths = card.weights(folders)
    if paths:
        return sum(path.stat().st_size for path in paths)
    sizes = [checkpoint.get("bytes") for checkpoint in card.checkpoints]
    return sum(sizes) if sizes and None not in sizes else None


if __name__ == "__main__":
    run(main)
