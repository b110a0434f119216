"""What a study of full size costs by stage: stand-ins for COCO 2017 val and LVIS v1 val, from index to tables and AP.

    python benchmarks/full_size.py /tmp/full                    # both: minutes to make, an hour to run
    python benchmarks/full_size.py /tmp/full --scale 0.05       # a twentieth of the images
    python benchmarks/full_size.py /tmp/full --datasets coco

Counts are the real ones: 36,781 instances in 5,000 images of 80 categories, and 244,707 in 19,809 of 1,203, with 100
and 300 boxes of a detector per image, 5.9 million. Objects are drawn polygons of 30 corners. All pictures are links to
one grey one, small so that masks are quick; a mask takes about the 147 bytes of a real one. The detector finds each
object, and everything else that it finds has a lower score, so the masks of `ground_truth` have an AP of 100.0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from tabulate import tabulate

from sambench.files import atomic
from sambench.script import command

WIDTH, HEIGHT, CORNERS = 160, 120, 30
PROJECT = Path(__file__).resolve().parents[1]
# images, instances, categories, boxes per image
SIZES = {"coco": (5_000, 36_781, 80, 100), "lvis": (19_809, 244_707, 1_203, 300)}


def main(
    folder: Path,
    /,
    *,
    datasets: Sequence[Literal["coco", "lvis"]] = ("coco", "lvis"),
    scale: float = 1.0,
    judged: float = 0.05,
    cores: int = 2,
) -> None:
    """Make the stand-ins, run the study and print what each stage took.

    Parameters
    ----------
    folder
        where everything is written, and what is there already is taken
    datasets
        which
    scale
        share of the images
    judged
        share of the further boxes that have a category that LVIS judges in their image
    cores
        of Snakemake
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for name in datasets:
        if not (folder / name / "boxes.json").exists():
            make(folder / name, name, scale, judged)
    print(f"stand-ins: {time.monotonic() - start:.0f} s", flush=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(study(datasets, scale)))
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
    profile = ["--workflow-profile", str(PROJECT / "profiles" / "default")]
    subprocess.run(
        [*snakemake, *profile, "tables", "--cores", str(cores), "--configfile", "study.yaml"], cwd=folder, check=True
    )
    print(tabulate(costs(folder / "results"), ["stage", "data set", "jobs", "seconds", "peak MiB"], floatfmt=".0f"))
    tables = folder / "results" / "full_size" / "tables"
    for table, columns in (("accuracy_boxes", ["miou", "instances"]), ("average_precision", ["ap", "detections"])):
        found = pd.read_parquet(tables / f"{table}.parquet")
        print(found[["dataset", "variant", *columns, "status"]].to_string(index=False))


def study(datasets: Sequence[str], scale: float) -> dict[str, Any]:
    """The configuration: the two baselines, one prompt set from ground truth and the boxes of the detector."""
    return {
        "datasets": {
            name: {
                "annotations": f"{name}/instances.json",
                "images": f"{name}/images",
                "image_count": round(SIZES[name][0] * scale),
            }
            for name in datasets
        },
        "detectors": {"standin": {"family": "none", "published": {name: f"{name}/boxes.json" for name in datasets}}},
        "prompt_groups": {"boxes": ["box"], "found": ["standin"]},
        "segany": {"boundary": False},
        "average_precision": {"boundary": False},
        "study": {
            "name": "full_size",
            "datasets": list(datasets),
            "variants": ["box_fill", "ground_truth"],
            "prompt_groups": ["boxes", "found"],
            "selections": ["argmax"],
            "measures": [],
        },
    }


def make(folder: Path, name: str, scale: float, judged: float) -> None:
    """Annotations, pictures and published boxes of one stand-in."""
    images, instances, categories, boxes = SIZES[name]
    images, instances = round(images * scale), round(instances * scale)
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 128, np.uint8)).save(folder / "grey.jpg")
    of_image = np.sort(random.integers(0, images, instances))
    counts = np.bincount(of_image, minlength=images)
    ids = random.integers(1, categories + 1, instances)
    centres = np.column_stack([random.uniform(20, WIDTH - 20, instances), random.uniform(20, HEIGHT - 20, instances)])
    radii = random.uniform(4, 19, instances)
    absent = random.integers(1, categories + 1, (images, 5))
    rows = []
    for at in range(images):
        file = folder / "images" / f"{at + 1:012}.jpg"
        file.unlink(missing_ok=True)
        file.symlink_to("../grey.jpg")
        row: dict[str, Any] = {"id": at + 1, "file_name": file.name, "width": WIDTH, "height": HEIGHT}
        if name == "lvis":
            row |= {"neg_category_ids": absent[at].tolist(), "not_exhaustive_category_ids": []}
        rows.append(row)
    listed = [
        {"id": at, "name": f"c{at}", **({"frequency": "f"} if name == "lvis" else {})}
        for at in range(1, categories + 1)
    ]
    xywh = np.empty((instances, 4))
    with atomic(folder / "instances.json") as path, path.open("w") as file_:
        file_.write(f'{{"images": {json.dumps(rows)}, "categories": {json.dumps(listed)}, "annotations": [')
        for at in range(instances):
            text, xywh[at] = annotation(at, int(of_image[at]), int(ids[at]), centres[at], radii[at], random)
            file_.write((",\n" if at else "") + text)
        file_.write("]}")
    with atomic(folder / "boxes.json") as path, path.open("w") as file_:
        ends = np.cumsum(counts)
        for at in range(images):
            own = slice(ends[at] - counts[at], ends[at])
            there = {*ids[own].tolist(), *(absent[at].tolist() if name == "lvis" else ())}
            entries = found(at + 1, ids[own], xywh[own], sorted(there), categories, boxes, judged, random)
            file_.write(("[" if not at else ",\n") + ",\n".join(entries))
        file_.write("]")


def annotation(
    at: int, image: int, category: int, centre: np.ndarray, radius: float, random: np.random.Generator
) -> tuple[str, np.ndarray]:
    """A star of CORNERS corners, and its box."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    distance = radius * random.uniform(0.6, 1.0, CORNERS)
    corners = (centre + np.column_stack([np.cos(angles), np.sin(angles)]) * distance[:, None]).round(2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    box = np.concatenate([low, high - low]).round(2)
    row = {"id": at + 1, "image_id": image + 1, "category_id": category, "iscrowd": 0, "bbox": box.tolist()}
    row |= {"area": float(radius**2 * 2), "segmentation": [corners.ravel().tolist()]}
    return json.dumps(row), box


def found(
    image: int,
    ids: np.ndarray,
    xywh: np.ndarray,
    there: Sequence[int],
    categories: int,
    most: int,
    judged: float,
    random: np.random.Generator,
) -> Iterator[str]:
    """A detector's boxes in one image: first all objects, then others with lower scores."""
    rest = max(0, most - len(ids))
    low = np.column_stack([random.uniform(0, WIDTH - 40, rest), random.uniform(0, HEIGHT - 40, rest)]).round(2)
    others = np.column_stack([low, random.uniform(5, 40, (rest, 2)).round(2)])
    known = np.array(there or [1])
    drawn = np.where(random.random(rest) < judged, random.choice(known, rest), random.integers(1, categories + 1, rest))
    scores = np.concatenate([random.uniform(0.6, 1.0, len(ids)), np.sort(random.uniform(0.0, 0.5, rest))[::-1]]).round(
        4
    )
    boxes = np.concatenate([xywh, others])
    for category, (x, y, w, h), score in zip([*ids, *drawn], boxes.tolist(), scores.tolist(), strict=True):
        yield f'{{"image_id": {image}, "category_id": {category}, "bbox": [{x}, {y}, {w}, {h}], "score": {score}}}'


def costs(results: Path) -> list[list[Any]]:
    """Stage, data set, jobs, seconds in all and the peak memory in MiB of the largest, from the records of the jobs."""
    groups = defaultdict(list)
    for file in sorted((results / "logs").rglob("*.json")):
        record = json.loads(file.read_text())
        if "peak_memory_mib" in record:
            stage, *parts = file.relative_to(results / "logs").with_suffix("").parts
            dataset = next((part for part in parts if part in SIZES), "both")
            groups[dataset, stage].append((record["ended"] - record["started"], record["peak_memory_mib"]))
    return [
        [stage, dataset, len(jobs), sum(seconds for seconds, _ in jobs), max(peak for _, peak in jobs)]
        for (dataset, stage), jobs in sorted(groups.items())
    ]


if __name__ == "__main__":
    command(main)
