"""Make the prompts of one group from ground truth."""

import json
from pathlib import Path

from sambench.prompts import make_prompts
from sambench.provenance import provenance
from sambench.results.schemas import INSTANCES, PROMPTS, read_parquet, write_parquet
from sambench.script import run


def main(*, dataset: str, instances: Path, types: str, output: Path) -> None:
    """Write the prompts of every instance, the same for all variants.

    Parameters
    ----------
    dataset
        the dataset's name, part of the seed of random prompts
    instances
        Parquet file of instances
    types
        JSON list of prompt types, such as ["box", "random_3"]
    output
        Parquet file to write
    """
    names = json.loads(types)
    table = read_parquet(instances, INSTANCES).to_pandas()
    write_parquet(output, make_prompts(dataset, table, names), PROMPTS, provenance([dataset, names]))


if __name__ == "__main__":
    run(main)
