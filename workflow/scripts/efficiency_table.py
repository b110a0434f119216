"""Condense the counts of all variants of a study into the tables `efficiency` and `efficiency_parts`."""

import json
from pathlib import Path

from sambench.provenance import provenance
from sambench.results.efficiency_table import DECIMALS, PARTS_DECIMALS, by_part, efficiency
from sambench.results.schemas import COST, EFFICIENCY, EFFICIENCY_PARTS, read_parquet
from sambench.results.tables import write_table
from sambench.script import run


def main(*, cards: str, results: Path, reference: str = "") -> None:
    """Write tables/efficiency.* and tables/efficiency_parts.*.

    Parameters
    ----------
    cards
        JSON object, for each variant in the order of the table its input_size and params_m
    results
        the results folder
    reference
        the variant that the EER relates to; none when there is nothing to relate
    """
    facts = json.loads(cards)
    folder = results / "efficiency"
    costs = [read_parquet(folder / f"{name}.parquet", COST).to_pandas() for name in facts]
    against = read_parquet(folder / f"{reference}.parquet", COST).to_pandas() if reference else None
    origin = provenance([facts, reference])
    write_table(results / "tables", "efficiency", efficiency(costs, against, facts), EFFICIENCY, origin, DECIMALS)
    write_table(results / "tables", "efficiency_parts", by_part(costs), EFFICIENCY_PARTS, origin, PARTS_DECIMALS)


if __name__ == "__main__":
    run(main)
