"""The box file of a detector and a dataset, from its shards."""

import json
from pathlib import Path

import pandas as pd

from sambench.provenance import provenance
from sambench.results.schemas import BOXES, read_parquet, read_provenance, write_parquet
from sambench.script import run
from sambench.status import OK

# What is about a whole shard's process; the rest are facts about the boxes, the same in all shards.
OWN = ("schema_version", "sambench_version", "git_commit", "git_dirty", "libraries", "device", "config_digest")


def main(*, shards: str, output: Path) -> None:
    """Write one row a box, sorted by image and there best first; no rows at all where a shard could not be made.

    Parameters
    ----------
    shards
        JSON list of Parquet files
    output
        Parquet file to write
    """
    files = [Path(file) for file in json.loads(shards)]
    origins = [read_provenance(file) for file in files]
    facts = {name: value for name, value in origins[0].items() if name not in OWN}
    facts["images"] = str(sum(int(origin["images"]) for origin in origins))
    facts["status"] = next((origin["status"] for origin in origins if origin["status"] != OK), OK)
    table = pd.concat([read_parquet(file, BOXES).to_pandas() for file in files], ignore_index=True)
    if facts["status"] != OK:
        table = table.iloc[:0]
    table = table.sort_values("image_id", kind="stable", ignore_index=True)
    origin = provenance([each["config_digest"] for each in origins], origins[0]["device"], **facts)
    write_parquet(output, table, BOXES, origin)


if __name__ == "__main__":
    run(main)
