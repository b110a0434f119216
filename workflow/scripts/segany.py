"""Score one variant on one shard of a dataset with one group of prompts."""

import json
import sys
from pathlib import Path

import pandas as pd

from sambench.files import sha256
from sambench.jobs import parse_shard
from sambench.provenance import provenance
from sambench.results.schemas import IMAGES, INSTANCES, PROMPTS, SEGANY, read_parquet, write_parquet
from sambench.script import run
from sambench.status import OK
from sambench.variants.base import Runtime
from sambench.variants.registry import Card, build


def main(
    *,
    variant: str,
    card: str,
    runtime: str,
    weights: str,
    images: Path,
    instances: Path,
    prompts: Path,
    selections: str,
    shard: str,
    threads: int,
    output: Path,
) -> None:
    """Write one row a prompt: the IoU of the chosen mask with its instance, or a status that says why there is none.

    Parameters
    ----------
    variant
        the variant's name
    card
        JSON, the part of its card that decides what it computes
    runtime
        JSON: name, device, dtype, attention, compile, threads
    weights
        JSON list of the folders with checkpoint files
    images
        Parquet file of images
    instances
        Parquet file of instances
    prompts
        Parquet file of prompts
    selections
        JSON list of selection rules
    shard
        such as 0-of-4
    threads
        CPU threads, unless the runtime fixes them
    output
        Parquet file to write
    """
    from sambench.evaluate.segany import Scores, evaluate, plan, result_table, shard_images

    what, how = Card(name=variant, family="", **json.loads(card)), json.loads(runtime)
    rules, folders = json.loads(selections), [Path(folder) for folder in json.loads(weights)]
    part = shard_images(read_parquet(images, IMAGES).to_pandas(), *parse_shard(shard))
    truth, planned = (
        table[table["image_id"].isin(part["image_id"])].reset_index(drop=True)
        for table in (
            read_parquet(instances, INSTANCES).to_pandas(),
            read_parquet(prompts, PROMPTS).to_pandas(),
        )
    )

    device, digests = "", []
    execution = Runtime(**{**how, "threads": how.get("threads") or threads})
    state = what.availability(folders, execution)
    if state == OK:
        model = build(what, execution, folders)
        device = execution.device_name()
        digests = [sha256(path) for path in what.weights(folders) or []]
        tasks = plan(part, truth, planned)
        scores = evaluate(model, tasks, len(planned), rules, f"segany {variant} {shard}")
    else:
        print(f"segany {variant}: {state}: {what.explain(folders, execution)}", file=sys.stderr)
        scores = Scores(len(planned), state)
    table: pd.DataFrame = result_table(planned, truth, scores)
    origin = provenance([card, runtime, selections, shard], device, weights_sha256=",".join(digests))
    write_parquet(output, table, SEGANY, origin)


if __name__ == "__main__":
    run(main)
