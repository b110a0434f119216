"""The boxes of one detector in one shard of a dataset: found by its network, or out of a published file."""

import json
import sys
from pathlib import Path

import pandas as pd

from sambench.datasets.checks import read_annotations
from sambench.detectors.classes import UNKNOWN, category_ids, read_categories
from sambench.detectors.registry import Detector, build
from sambench.files import sha256
from sambench.jobs import parse_shard, shard_images
from sambench.provenance import provenance
from sambench.results.schemas import BOXES, IMAGES, read_parquet, write_parquet
from sambench.script import run
from sambench.status import NO_COMMON_CLASS, OK, OUT_OF_MEMORY
from sambench.variants.base import Runtime


def main(
    *,
    dataset: str,
    detector: str,
    card: str,
    settings: str,
    weights: str,
    annotations: Path,
    images: Path,
    shard: str,
    threads: int,
    output: Path,
) -> None:
    """Write one row a box. Where there can be none, the file is empty and its provenance says why.

    Parameters
    ----------
    dataset
        the dataset's name
    detector
        the detector's name
    card
        JSON, the part of its card that decides about the boxes
    settings
        JSON, `detection` of the config
    weights
        JSON list of the folders with checkpoint files
    annotations
        annotation file of the dataset: its categories, and whether COCO's or LVIS's rules hold
    images
        Parquet file of images
    shard
        such as 0-of-4
    threads
        CPU threads
    output
        Parquet file to write
    """
    from sambench.detectors.boxes import Limits, find_boxes, import_boxes, no_boxes
    from sambench.evaluate.score import rules_of

    what, how = Detector(name=detector, family="", **json.loads(card)), json.loads(settings)
    folders = [Path(folder) for folder in json.loads(weights)]
    runtime = Runtime(device=how["device"], threads=threads)
    part: pd.DataFrame = shard_images(read_parquet(images, IMAGES).to_pandas(), *parse_shard(shard))
    document = read_annotations(annotations)
    categories = read_categories(document, annotations)
    threshold = how["score_threshold"] if what.score_threshold is None else what.score_threshold
    limits = Limits(threshold, what.top_k or how["top_k"][rules_of(document).name])
    facts = {"detector": detector, "score_threshold": str(threshold), "top_k": str(limits.top_k)}
    if what.licence_weights:
        facts["licence_weights"] = what.licence_weights

    table, device = no_boxes(), ""
    state, published, title = what.state(dataset, folders), what.result_file(dataset), f"boxes {detector} {shard}"
    if state != OK:
        print(f"{title}: {state}: {what.remedy(dataset, folders)}", file=sys.stderr)
    elif published:
        facts["published_sha256"] = sha256(published)
        table = import_boxes(published, document, annotations, categories, part, limits)
    else:
        from sambench.memory import is_out_of_memory

        facts["weights_sha256"] = ",".join(sha256(path) for path in what.weights(folders) or [])
        device = runtime.device_name()
        try:
            network = build(what, runtime, folders)
            names = network.choose_classes([category.name for category in categories])
            ids = category_ids(names, categories, annotations)
            unmatched = [name for name, category in zip(names, ids, strict=True) if category == UNKNOWN]
            facts["classes"], facts["unmatched_classes"] = str(len(names)), json.dumps(unmatched)
            if unmatched:
                print(f"{title}: no category of {dataset} has the name of: {', '.join(unmatched)}", file=sys.stderr)
            if len(unmatched) < len(names):
                table = find_boxes(network, part, ids, limits, how["batch_size"], title)
            else:
                state = NO_COMMON_CLASS
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            print(f"{title}: {OUT_OF_MEMORY}: {error}", file=sys.stderr)
            state = OUT_OF_MEMORY
    origin = provenance([card, settings, shard], device, status=state, images=str(len(part)), **facts)
    write_parquet(output, table, BOXES, origin)


if __name__ == "__main__":
    run(main)
