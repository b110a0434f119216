"""Segment everything with one variant and sampler on the first images of a dataset: quality, or time."""

import sys
from pathlib import Path
from typing import Any, Literal

from sambench.evaluate import segevery as stage
from sambench.evaluate.filters import Settings
from sambench.evaluate.samplers import OBJECT_AWARE, parse_sampler
from sambench.files import sha256
from sambench.parquet import read_parquet, write_parquet
from sambench.provenance import provenance
from sambench.records import IMAGES, INSTANCES, SEGEVERY, SEGEVERY_MASKS
from sambench.script import run
from sambench.status import OK
from sambench.variants.base import Variant
from sambench.variants.options import configured, named_card
from sambench.variants.registry import build


def main(
    *,
    kind: Literal["quality", "time"],
    model: dict[str, Any],
    detector: dict[str, Any],
    threads: int,
    sampler: str,
    settings: dict[str, Any],
    images: Path,
    instances: Path,
    image_count: int,
    warmup: int,
    segevery: Path,
    masks: Path | None = None,
) -> None:
    """Write one row per image: how many masks passed each filter, and either matches or times; or a status.

    detector: `name` and `card` of the variant whose boxes object_aware takes, else empty. settings: what differs from
    the generator's defaults. image_count: images, the first by id that have instances. warmup: images before the clock
    starts. masks: where to write the masks themselves, quality only.
    """
    (what, execution, folders), kept = configured(model, threads), None
    way, thresholds = parse_sampler(sampler), Settings(**settings)
    tasks = stage.plan(
        read_parquet(images, IMAGES).to_pandas(), read_parquet(instances, INSTANCES).to_pandas(), image_count
    )
    cards = [what, named_card(**detector)] if way.kind == OBJECT_AWARE else [what]
    missing = next((c for c in cards if c.availability(folders, execution) != OK), None)
    device, digests = "", []
    if missing is None:
        models: list[Variant] = [build(c, execution, folders) for c in cards]
        detect = stage.detector_of(models[1]) if len(models) > 1 else None
        device = execution.device_name()
        digests = [sha256(path) for c in cards for path in c.weights(folders) or []]
        if kind == "time":
            rows = stage.measure_time(models[0], way, tasks, thresholds, detect, warmup)
        else:
            rows, kept = stage.measure_quality(models[0], way, tasks, thresholds, detect, masks is not None)
    else:
        state = missing.availability(folders, execution)
        print(f"segevery {missing.name}: {state}: {missing.explain(folders, execution)}", file=sys.stderr)
        rows = stage.status_table(tasks, state)
    decided = [model, sampler, detector, settings, image_count, warmup]
    origin = provenance(decided, device, weights_sha256=",".join(digests))
    write_parquet(segevery, rows, SEGEVERY, origin)
    if masks is not None:
        write_parquet(masks, stage.no_masks_table() if kept is None else kept, SEGEVERY_MASKS, origin)


if __name__ == "__main__":
    run(main)
