"""Make the prompts of one group from ground truth."""

from pathlib import Path

from sambench.parquet import inputs, read_parquet, write_parquet
from sambench.prompts import make_prompts
from sambench.provenance import provenance
from sambench.records import INSTANCES, PROMPTS
from sambench.script import run


def main(*, dataset: str, instances: Path, types: list[str], prompts: Path) -> None:
    """Write the prompts of every instance, the same for all variants.

    dataset: its name is part of the seed of random prompts. types: such as box, random_3.
    """
    table = read_parquet(instances, INSTANCES).to_pandas()
    origin = provenance([dataset, types]) | inputs(instances=instances)
    write_parquet(prompts, make_prompts(dataset, table, types), PROMPTS, origin)


if __name__ == "__main__":
    run(main)
