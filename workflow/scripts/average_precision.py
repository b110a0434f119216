"""Average precision of the boxes of detectors, or of the masks that a variant gave for them."""

import json
from pathlib import Path

from sambench.evaluate.average_precision import BOXES as BOX
from sambench.evaluate.average_precision import MASKS as MASK
from sambench.evaluate.instances import box_precision, mask_precision, truth_of
from sambench.files import sha256
from sambench.jobs import mask_selections, shard_images
from sambench.provenance import provenance
from sambench.results.schemas import (
    BOXES,
    DETECTORS,
    IMAGES,
    MASK_PRECISION,
    MASKS,
    read_parquet,
    read_provenance,
    write_parquet,
)
from sambench.results.tables import typed
from sambench.script import run
from sambench.status import OK


def main(
    *,
    dataset: str,
    annotations: Path,
    images: Path,
    boxes: str,
    class_agnostic: bool = False,
    output: Path,
    masks: str = "[]",
    selections: str = "[]",
) -> None:
    """Write one line a detector, or with masks, one line a detector and selection rule.

    Parameters
    ----------
    dataset
        the dataset's name
    annotations
        its COCO or LVIS annotation file
    images
        Parquet file of its images
    boxes
        JSON, detector -> Parquet file of its boxes
    class_agnostic
        categories do not have to agree
    output
        Parquet file to write
    masks
        JSON list of the Parquet files of masks, one a shard in their order; empty: the boxes are judged
    selections
        JSON list of selection rules
    """
    pictures = read_parquet(images, IMAGES).to_pandas()
    truth = truth_of(annotations, MASK if masks != "[]" else BOX, pictures)
    rules = truth.rules.name + (", class-agnostic" if class_agnostic else "")
    files = {detector: Path(file) for detector, file in json.loads(boxes).items()}
    # Why a detector has no boxes, such as `no weights`.
    states = {detector: read_provenance(file).get("status", OK) for detector, file in files.items()}
    facts = {
        detector: {
            "dataset": dataset,
            "detector": detector,
            "images": len(pictures),
            "rules": rules,
            "boxes_sha256": sha256(file),
            "status": states[detector],
        }
        for detector, file in files.items()
    }
    origin = provenance([dataset, boxes, masks, selections, class_agnostic])
    if masks == "[]":
        lines = []
        for detector, file in files.items():
            found = read_parquet(file, BOXES).to_pandas()
            scores = box_precision(truth, found, class_agnostic=class_agnostic) if states[detector] == OK else {}
            lines.append({**facts[detector], "detections": len(found), **scores})
        write_parquet(output, typed(lines, DETECTORS), DETECTORS, origin)
        return
    paths = json.loads(masks)
    parts = ((shard_images(pictures, k, len(paths))["image_id"].tolist(), path) for k, path in enumerate(paths))
    keys = [(detector, rule) for detector in files for rule in mask_selections(json.loads(selections))]
    scored = mask_precision(
        truth,
        [key for key in keys if states[key[0]] == OK],
        ((ids, read_parquet(Path(path), MASKS).to_pandas()) for ids, path in parts),
        class_agnostic=class_agnostic,
    )
    lines = [{**facts[detector], "selection": rule, **scored.get((detector, rule), {})} for detector, rule in keys]
    write_parquet(output, typed(lines, MASK_PRECISION), MASK_PRECISION, origin)


if __name__ == "__main__":
    run(main)
