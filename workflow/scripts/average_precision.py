"""Average precision of the boxes of detectors, or of the masks that a variant gave for them."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sambench.digests import digest
from sambench.evaluate.average_precision import BBOX, SEGM
from sambench.evaluate.boundary_precision import boundary_precision
from sambench.evaluate.instances import box_precision, mask_precision, only_crowds, truth_of
from sambench.evaluate.judged import indexed_truth, judged
from sambench.jobs import mask_selections, shard_images
from sambench.parquet import INPUT, inputs, read_parquet, read_provenance, refuse, write_parquet
from sambench.provenance import provenance
from sambench.record_checks import strange_boxes, strange_masks
from sambench.records import AVERAGE_PRECISION_BOXES, AVERAGE_PRECISION_MASKS, BOXES, IMAGES, MASKS
from sambench.results.table import typed
from sambench.script import run
from sambench.status import ALL_CROWDS, OK


def main(
    *,
    dataset: str,
    annotations: list[Path],
    images: Path,
    detectors: dict[str, Path],
    class_agnostic: bool,
    precision: Path,
    boundary: bool = False,
    masks: list[Path] | None = None,
    selections: list[str] | None = None,
    config_digest: str = "",
    keep_unjudged: bool = False,
) -> None:
    """Write one row per detector, or with masks, one row per detector and selection rule.

    detectors: name -> Parquet file of its boxes. masks: Parquet files of masks, one per shard in their order; without
    them the boxes are judged. config_digest: that of the masks; keep_unjudged: whether
    they are of all boxes. boundary: whether the boundary AP of masks is wanted too.
    """
    pictures = read_parquet(images, IMAGES).to_pandas()
    truth = truth_of(annotations, SEGM if masks else BBOX, pictures)
    rules = truth.rules.name + (", class-agnostic" if class_agnostic else "")
    # Why a detector has no boxes, such as `no weights`.
    states = {detector: read_provenance(file).get("status", OK) for detector, file in detectors.items()}
    if only_crowds(truth):
        states = {detector: ALL_CROWDS if state == OK else state for detector, state in states.items()}
    facts = {
        detector: {
            "dataset": dataset,
            "detector": detector,
            "images": len(pictures),
            "rules": rules,
            "boxes_sha256": digest(file),
            "status": states[detector],
        }
        for detector, file in detectors.items()
    }
    origin = provenance([dataset, list(detectors), selections, class_agnostic, boundary])
    origin |= inputs(annotations=annotations, images=images, masks=masks or [])
    origin |= inputs(**{f"boxes.{detector}": file for detector, file in detectors.items()})
    boxes = {}
    for detector, file in detectors.items():
        boxes[detector] = read_parquet(file, BOXES, made_of=inputs(images=images)).to_pandas()
        refuse(file, strange_boxes(boxes[detector], pictures))
    if masks is None:
        lines = []
        for detector, found in boxes.items():
            scores = box_precision(truth, found, class_agnostic=class_agnostic) if states[detector] == OK else {}
            lines.append({**facts[detector], "detections": len(found), **scores})
        write_parquet(precision, typed(lines, AVERAGE_PRECISION_BOXES), AVERAGE_PRECISION_BOXES, origin)
        return
    rules_of_masks = mask_selections(selections or [])
    keys = [(detector, rule) for detector in detectors for rule in rules_of_masks]
    made_of = {name: digest for name, digest in origin.items() if name.startswith((f"{INPUT}images", f"{INPUT}boxes."))}

    def shards() -> Iterator[tuple[list[int], pd.DataFrame]]:
        for number, path in enumerate(masks):
            part = shard_images(pictures, number, len(masks))
            found = read_parquet(path, MASKS, config_digest=config_digest, made_of=made_of).to_pandas()
            planned = {name: rows[rows["image_id"].isin(part["image_id"])] for name, rows in boxes.items()}
            if not keep_unjudged:
                judge = indexed_truth(part)
                planned = {name: rows[judged(judge, rows)] for name, rows in planned.items()}
            refuse(path, strange_masks(found, planned, part, rules_of_masks))
            yield part["image_id"].tolist(), found

    there = [key for key in keys if states[key[0]] == OK]
    scored = mask_precision(
        truth,
        there,
        shards(),
        class_agnostic=class_agnostic,
    )
    if boundary:
        wanted = [key for key in there if "ap" in scored[key]]
        found_again = boundary_precision(
            truth, wanted, lambda: (found for _, found in shards()), class_agnostic=class_agnostic
        )
        for key, value in found_again.items():
            scored[key]["boundary_ap"] = value
    lines = [{**facts[detector], "selection": rule, **scored.get((detector, rule), {})} for detector, rule in keys]
    write_parquet(precision, typed(lines, AVERAGE_PRECISION_MASKS), AVERAGE_PRECISION_MASKS, origin)


if __name__ == "__main__":
    run(main)
