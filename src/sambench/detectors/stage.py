"""The stage `boxes`: the boxes of one detector in one shard of a dataset, whatever they come from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sambench.datasets.annotations import read_document
from sambench.datasets.merging import RENUMBERED
from sambench.detectors.boxes import Limits, find_boxes, import_boxes, no_boxes
from sambench.detectors.classes import UNKNOWN, Category, category_ids, known_ids, read_categories
from sambench.detectors.registry import Detector, build
from sambench.digests import digest
from sambench.errors import BadWeights, InputError
from sambench.evaluate.score import rules_of
from sambench.jobs import parse_shard, shard_images
from sambench.parquet import read_parquet
from sambench.records import IMAGES
from sambench.status import BAD_WEIGHTS, NO_COMMON_CLASS, NO_WEIGHTS, OK, OUT_OF_MEMORY, RANDOM_WEIGHTS
from sambench.variants.base import Runtime


@dataclass(frozen=True)
class ShardBoxes:
    """Boxes, columns of records.BOXES; the status and its reason; the GPU's name; facts for the file's provenance."""

    table: pd.DataFrame
    facts: Mapping[str, str]
    status: str = OK
    reason: str = ""
    device: str = ""


def published_boxes(
    published: Path, document: dict[str, Any], annotations: Path, images: pd.DataFrame, limits: Limits
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The boxes of a published file in some images, and what looks wrong with the whole file, and how often.

    document: the annotations of the data set, of the file `annotations`. Raises InputError as `import_boxes` does.
    """
    if document.get(RENUMBERED):
        expected = "image ids that differ in all annotation files of the dataset"
        remedy = "give the images ids of their own, so that it is clear which ones the boxes are of"
        raise InputError(annotations, "images", expected=expected, found="the same ids", remedy=remedy)
    known = [Category(each, "") for each in sorted(known_ids(document, annotations))]
    warnings: dict[str, int] = {}
    return import_boxes(published, document, annotations, known, images, limits, warnings), warnings


def shard_boxes(
    detector: Detector,
    dataset: str,
    annotations: Path | Sequence[Path],
    images: Path,
    shard: str,
    folders: Sequence[Path],
    settings: Mapping[str, Any],
    threads: int,
) -> ShardBoxes:
    """Import or find the boxes of a shard, such as 0-of-4, of the images of a Parquet file.

    settings: device, batch_size, score_threshold, top_k (by rules) and random_weights. Raises InputError for unusable
    annotations or a published file that does not belong to them.
    """
    runtime = Runtime(device=settings["device"], threads=threads)
    part: pd.DataFrame = shard_images(read_parquet(images, IMAGES).to_pandas(), *parse_shard(shard))
    document = read_document(annotations, segmentations=False)
    annotations = annotations if isinstance(annotations, Path) else annotations[0]
    threshold = settings["score_threshold"] if detector.score_threshold is None else detector.score_threshold
    limits = Limits(threshold, detector.top_k or settings["top_k"][rules_of(document).name])
    facts = {"detector": detector.name, "score_threshold": str(threshold), "top_k": str(limits.top_k)}
    facts["images"] = str(len(part))
    if detector.licence_weights:
        facts["licence_weights"] = detector.licence_weights
    state, published = detector.state(dataset, folders), detector.result_file(dataset)
    random = state == NO_WEIGHTS and not published and bool(settings.get("random_weights"))
    if state != OK and not random:
        return ShardBoxes(no_boxes(), facts, state, detector.remedy(dataset, folders))
    if published:
        facts["published_sha256"] = digest(published)
        table, warnings = published_boxes(published, document, annotations, part, limits)
        for text, count in warnings.items():
            print(f"boxes {detector.name}: {published}: warning: {text}: {count}", file=sys.stderr)
        return ShardBoxes(table, facts | {"warnings": json.dumps(warnings)})
    categories = read_categories(document, annotations)

    # Needs torch, which importing published boxes does not, and which is slow to start with.
    from sambench.memory import OutOfMemory, memory_guard

    facts["weights_sha256"] = ",".join(digest(path) for path in detector.weights(folders) or [])
    device, title = runtime.device_name(), f"boxes {detector.name} {shard}"
    try:
        with memory_guard():
            network = build(detector, runtime, folders, random_weights=random)
            names = network.choose_classes([category.name for category in categories])
            ids = category_ids(names, categories, annotations)
            unmatched = [name for name, category in zip(names, ids, strict=True) if category == UNKNOWN]
            facts |= {"classes": str(len(names)), "unmatched_classes": json.dumps(unmatched)}
            if unmatched:
                print(f"{title}: no category of {dataset} has the name of: {', '.join(unmatched)}", file=sys.stderr)
            if len(unmatched) == len(names):
                reason = f"the detector knows none of the categories of {dataset}"
                return ShardBoxes(no_boxes(), facts, NO_COMMON_CLASS, reason, device)
            table = find_boxes(network, part, ids, limits, settings["batch_size"], title)
            if random:
                reason = "its boxes come from random weights and are not scored"
                return ShardBoxes(table, facts, RANDOM_WEIGHTS, reason, device)
            return ShardBoxes(table, facts, device=device)
    except BadWeights as error:
        return ShardBoxes(no_boxes(), facts, BAD_WEIGHTS, str(error), device)
    except OutOfMemory as error:
        return ShardBoxes(no_boxes(), facts, OUT_OF_MEMORY, str(error), device)
