"""The box file of a detector and a dataset, from its shards."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from sambench.parquet import inputs, read_parquet, read_provenance, write_parquet
from sambench.provenance import REASON, provenance
from sambench.records import BOXES
from sambench.script import run
from sambench.status import OK, RANDOM_WEIGHTS

# What is about a single shard and its process; the rest are facts about the boxes, the same in all shards.
OWN = (
    *("schema_version", "stage", "shard", "sambench_version", "git_commit", "git_dirty", "libraries", "device"),
    "config_digest",
)


def main(*, shards: list[Path], boxes: Path) -> None:
    """Write one row per box, sorted by image and there best first; no rows where a shard could not be made."""
    origins = [read_provenance(file) for file in shards]
    facts = {name: value for name, value in origins[0].items() if name not in OWN}
    facts["images"] = str(sum(int(origin["images"]) for origin in origins))
    failed = next((origin for origin in origins if origin["status"] != OK), origins[0])
    facts |= {name: failed[name] for name in ("status", REASON) if name in failed}
    table = pa.concat_tables([read_parquet(file, BOXES).replace_schema_metadata(None) for file in shards])
    if facts["status"] not in (OK, RANDOM_WEIGHTS):
        table = table.slice(0, 0)
    images = table["image_id"].to_numpy()
    if (images[1:] < images[:-1]).any():
        table = table.take(np.argsort(images, kind="stable"))
    origin = provenance([each["config_digest"] for each in origins], origins[0]["device"], **facts)
    write_parquet(boxes, table, BOXES, origin | inputs(shards=shards))


if __name__ == "__main__":
    run(main)
