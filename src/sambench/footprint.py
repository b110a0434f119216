"""What a study leaves on a disk: bytes and files, estimated before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sambench import resources
from sambench.downloads.catalogue import Download, find, from_checkpoints, read_table, retrievals
from sambench.jobs import mask_selections

if TYPE_CHECKING:
    from sambench.graph import PlannedJob
    from sambench.study import Study

MASK_BYTES = 150  # of a mask on disk, with its scores (147 measured on COCO)
ROW_BYTES = 40  # of the results of one prompt, packed
BOX_BYTES = 45  # of a box
IMAGE_BYTES = 163_000  # of COCO: 815 MB of 5,000


@dataclass(frozen=True)
class Footprint:
    """Bytes and files. passing: of masks that go once their AP is known; these are not among the files."""

    data: float
    weights: float
    results: float
    passing: float
    files: int

    def __str__(self) -> str:
        words = f"disk: data {_gb(self.data)}, weights {_gb(self.weights)}, results {_gb(self.results)}"
        if self.passing:
            words += f", and while masks wait for their AP up to {_gb(self.passing)}"
        return f"{words}; {self.files:,} files"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def footprint(study: Study, jobs: Iterable[PlannedJob]) -> Footprint:
    """The estimate. jobs: of the study, for the number of files."""
    items: dict[str, tuple[str, Download]] = {}
    for retrieval in retrievals(study).values():
        found = find(retrieval.names, read_table(), {}, study.weights_folders)
        found += from_checkpoints(retrieval.checkpoints if retrieval.wanted else (), study.weights_folders)
        items |= {item.name: (retrieval.kind, item) for item in found}
    pictures = {dataset: study.images(dataset) for dataset in study["datasets"] if study.annotations(dataset)}
    # Two datasets of COCO's images share those of val2017; of train2017 LVIS takes what it names.
    data = sum(pictures.values()) * float(IMAGE_BYTES)
    data += sum(item.bytes or 0 for _, item in items.values() if item.kind in ("annotations", "boxes"))
    weights = sum(item.bytes or 0 for kind, item in items.values() if kind != "datasets" and item.kind != "boxes")
    rows = masks = boxes = 0.0
    for job in study.jobs():
        images = study.images(job.dataset)
        found_boxes = (
            images * resources.boxes_per_image(study, job.dataset) * len(study.detectors(job.group, job.dataset))
        )
        masks += found_boxes * len(mask_selections(study["selections"]))
        rows += images * resources.INSTANCES * len(study.prompt_types(job.group))
    for dataset in study["datasets"]:
        top = study.settings.detection.top_k
        limit = top.LVIS if dataset.startswith("lvis") else top.COCO
        boxes += study.images(dataset) * limit * len(study.detectors_on(dataset))
    kept = study.settings.average_precision.keep_masks
    results = rows * ROW_BYTES + 2 * boxes * BOX_BYTES + masks * MASK_BYTES * kept
    # Beside each result a log, a record and a benchmark.
    outputs = {file for job in jobs for file in job.outputs}
    gone = 0 if kept else sum("/masks/" in file for file in outputs)
    files = sum(pictures.values()) + 4 * len(outputs) - gone
    return Footprint(data, float(weights), results, masks * MASK_BYTES * (not kept), files)
