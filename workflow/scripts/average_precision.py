"""Average precision of the boxes of detectors, or of the masks that a variant gave for them."""

from pathlib import Path

from sambench.digests import digest
from sambench.evaluate.average_precision import BBOX, SEGM
from sambench.evaluate.instances import box_precision, mask_precision, truth_of
from sambench.jobs import mask_selections, shard_images
from sambench.parquet import read_parquet, read_provenance, write_parquet
from sambench.provenance import provenance
from sambench.records import AVERAGE_PRECISION_BOXES, AVERAGE_PRECISION_MASKS, BOXES, IMAGES, MASKS
from sambench.results.table import typed
from sambench.script import run
from sambench.status import OK


def main(
    *,
    dataset: str,
    annotations: Path,
    images: Path,
    detectors: dict[str, Path],
    class_agnostic: bool,
    precision: Path,
    masks: list[Path] | None = None,
    selections: list[str] | None = None,
) -> None:
    """Write one row per detector, or with masks, one row per detector and selection rule.

    detectors: name -> Parquet file of its boxes. masks: Parquet files of masks, one per shard in their order; without
    them the boxes are judged.
    """
    pictures = read_parquet(images, IMAGES).to_pandas()
    truth = truth_of(annotations, SEGM if masks else BBOX, pictures)
    rules = truth.rules.name + (", class-agnostic" if class_agnostic else "")
    # Why a detector has no boxes, such as `no weights`.
    states = {detector: read_provenance(file).get("status", OK) for detector, file in detectors.items()}
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
    origin = provenance([dataset, list(detectors), selections, class_agnostic])
    if masks is None:
        lines = []
        for detector, file in detectors.items():
            found = read_parquet(file, BOXES).to_pandas()
            scores = box_precision(truth, found, class_agnostic=class_agnostic) if states[detector] == OK else {}
            lines.append({**facts[detector], "detections": len(found), **scores})
        write_parquet(precision, typed(lines, AVERAGE_PRECISION_BOXES), AVERAGE_PRECISION_BOXES, origin)
        return
    parts = ((shard_images(pictures, k, len(masks))["image_id"].tolist(), path) for k, path in enumerate(masks))
    keys = [(detector, rule) for detector in detectors for rule in mask_selections(selections or [])]
    scored = mask_precision(
        truth,
        [key for key in keys if states[key[0]] == OK],
        ((ids, read_parquet(path, MASKS).to_pandas()) for ids, path in parts),
        class_agnostic=class_agnostic,
    )
    lines = [{**facts[detector], "selection": rule, **scored.get((detector, rule), {})} for detector, rule in keys]
    write_parquet(precision, typed(lines, AVERAGE_PRECISION_MASKS), AVERAGE_PRECISION_MASKS, origin)


if __name__ == "__main__":
    run(main)
