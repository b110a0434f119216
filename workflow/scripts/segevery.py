"""Segment everything with one variant and sampler on the first images of a dataset: quality, or time."""

import json
import sys
from pathlib import Path
from typing import Literal

from sambench.files import sha256
from sambench.provenance import provenance
from sambench.results.schemas import EVERYTHING_MASKS, IMAGES, INSTANCES, SEGEVERY, read_parquet, write_parquet
from sambench.script import run
from sambench.status import OK
from sambench.variants.base import Variant
from sambench.variants.options import VariantOptions
from sambench.variants.registry import Card, build


def main(
    *,
    kind: Literal["quality", "time"],
    options: VariantOptions,
    sampler: str,
    detector: str = "{}",
    settings: str,
    images: Path,
    instances: Path,
    count: int,
    warmup: int,
    output: Path,
    masks: Path | None = None,
) -> None:
    """Write one row an image: how many masks passed each filter, and either matches or times; or a status.

    Parameters
    ----------
    kind
        quality or time
    options
        the variant and how to run it
    sampler
        such as grid_32
    detector
        JSON, the card of the variant whose boxes object_aware takes, with its name
    settings
        JSON, what differs from the generator's defaults
    images
        Parquet file of images
    instances
        Parquet file of instances
    count
        images, the first by id that have instances
    warmup
        images before the clock starts
    output
        Parquet file to write
    masks
        Parquet file for the masks themselves, quality only
    """
    from sambench.evaluate import segevery
    from sambench.evaluate.filters import Settings
    from sambench.evaluate.samplers import OBJECT_AWARE, parse_sampler

    (what, execution, folders), kept = options.parsed(), None
    way, thresholds = parse_sampler(sampler), Settings(**json.loads(settings))
    tasks = segevery.plan(
        read_parquet(images, IMAGES).to_pandas(), read_parquet(instances, INSTANCES).to_pandas(), count
    )

    cards = [what]
    if way.kind == OBJECT_AWARE:
        cards.append(Card(family="", **json.loads(detector)))
    missing = next((c for c in cards if c.availability(folders, execution) != OK), None)
    device, digests = "", []
    if missing is None:
        models: list[Variant] = [build(c, execution, folders) for c in cards]
        detect = segevery.detector_of(models[1]) if len(models) > 1 else None
        device = execution.device_name()
        digests = [sha256(path) for c in cards for path in c.weights(folders) or []]
        if kind == "time":
            records = segevery.measure_time(models[0], way, tasks, thresholds, detect, warmup)
        else:
            keep = masks is not None
            records, kept = segevery.measure_quality(models[0], way, tasks, thresholds, detect, keep)
    else:
        state = missing.availability(folders, execution)
        print(f"segevery {missing.name}: {state}: {missing.explain(folders, execution)}", file=sys.stderr)
        records = segevery.status_table(tasks, state)
    origin = provenance(
        [options.card, options.runtime, sampler, detector, settings, count, warmup],
        device,
        weights_sha256=",".join(digests),
    )
    write_parquet(output, records, SEGEVERY, origin)
    if masks is not None:
        write_parquet(masks, segevery.no_masks_table() if kept is None else kept, EVERYTHING_MASKS, origin)


if __name__ == "__main__":
    run(main)
