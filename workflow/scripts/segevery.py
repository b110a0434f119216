"""Segment everything with one variant and sampler on the first images of a dataset: quality, or time."""

import sys
from pathlib import Path
from typing import Any, Literal

from sambench.digests import digest
from sambench.evaluate import segevery as stage
from sambench.evaluate.filters import Settings
from sambench.evaluate.samplers import OBJECT_AWARE, parse_sampler
from sambench.parquet import inputs, read_parquet, write_parquet
from sambench.provenance import provenance, why_none
from sambench.records import IMAGES, INSTANCES, SEGEVERY, SEGEVERY_MASKS
from sambench.script import run
from sambench.variants.base import Variant
from sambench.variants.options import configured, named_card
from sambench.variants.registry import attempt


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
    tried = [attempt(card, execution, folders) for card in cards]
    models: list[Variant] = [variant for variant, _, _ in tried if variant]
    device, digests, why = "", [], {}
    if len(models) == len(cards):
        detect = stage.detector_of(models[1]) if len(models) > 1 else None
        device = execution.device_name()
        digests = [digest(path) for card in cards for path in card.weights(folders) or []]
        if kind == "time":
            rows = stage.measure_time(models[0], way, tasks, thresholds, detect, warmup)
        else:
            rows, kept = stage.measure_quality(models[0], way, tasks, thresholds, detect, masks is not None)
    else:
        card, state, reason = next((c, *why) for c, (variant, *why) in zip(cards, tried, strict=True) if not variant)
        print(f"segevery {card.name}: {state}: {reason}", file=sys.stderr)
        rows, why = stage.status_table(tasks, state), why_none(state, reason)
    decided = [model, sampler, detector, settings, image_count, warmup]
    origin = provenance(decided, device, weights_sha256=",".join(digests))
    origin |= inputs(images=images, instances=instances) | why
    write_parquet(segevery, rows, SEGEVERY, origin)
    if masks is not None:
        write_parquet(masks, stage.no_masks_table() if kept is None else kept, SEGEVERY_MASKS, origin)


if __name__ == "__main__":
    run(main)
