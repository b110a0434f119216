"""The check of names: each retired name is found where it stands for what was renamed, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import check_names
import pytest


def found(folder: Path, path: str, text: str) -> list[str]:
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text(text, encoding="utf-8")
    return check_names.check(folder)


@pytest.mark.parametrize(
    ("path", "text", "old", "new"),
    [
        ("rules/a.smk", 'f"{RESULTS}/tables/segany_time.parquet"', "segany_time", "latency"),
        ("rules/a.smk", 'table=["instances"]', "instances", "average_precision"),
        ("src/a.py", '"""The tables `average_precision` and `detectors`."""', "detectors", "boxes"),
        ("src/results/tables/a.py", 'TABLE = Table(\n    name="points",\n)', "points", "accuracy_points"),
        ("rules/a.smk", "rule index_dataset:", "index_dataset", "index"),
        ("rules/a.smk", "rule latency_variant:", "latency_variant", "measure"),
        ("docs/a.md", "    snakemake --cores 2 instances --configfile config/a.yaml", "instances", "average_precision"),
        ("docs/a.md", "`snakemake download --configfile config/a.yaml`", "download", "retrieve"),
        ("config/a.yaml", "study:\n  variants: [box_fill,\n    oracle]", "oracle", "ground_truth"),
        ("config/variants.yaml", "  oracle:\n    builder: x", "oracle", "ground_truth"),
        ("docs/a.md", "| scenes | `oracle` | 100.0 |", "oracle", "ground_truth"),
        ("src/a.py", "from sambench.score import recall", "sambench.score", "sambench.evaluate.score"),
        ("src/a.py", "from sambench.evaluate import masks", "evaluate.masks", "masks"),
        ("src/a.py", "def normalise(x): ...", "normalise", "normalize"),
        ("docs/a.md", "Synchronisation costs time.", "Synchronisation", "Synchronization"),
        ("tests/unit/a.py", "def test_layouts_are_recognised(): ...", "recognised", "recognized"),
    ],
)
def test_finds_a_retired_name(tmp_path: Path, path: str, text: str, old: str, new: str) -> None:
    lines = text.splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if old.rpartition(".")[2] in line)
    assert found(tmp_path, path, text) == [f"{path}:{number}: {old} -> {new}"]


def test_finds_a_retired_name_of_a_file(tmp_path: Path) -> None:
    assert found(tmp_path, "workflow/scripts/merge_boxes.py", "") == [
        "workflow/scripts/merge_boxes.py:1: merge_boxes -> boxes_merge"
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("config/a.yaml", "selections: [argmax, single, oracle]\nsamplers: [oracle_boxes]"),
        ("src/a.py", 'SELECTIONS = ("argmax", "single", "oracle")\nCOLUMN = {"oracle": "iou_oracle"}'),
        ("docs/a.md", "- `oracle`: the best IoU of all tokens"),
        ("src/a.py", 'config["detectors"], instances = table("instances"), boxes'),
        ("docs/a.md", "annotations: /data/instances.json; `sambench score instances.json`"),
        ("docs/a.md", "noise, raises, otherwise, precise, a compromise, analysed, an organism, exercises"),
        ("config/a.yaml", "file: yolov8n_coco_dequantised.safetensors"),
        ("docs/renames.md", "| `segany_time` | `latency` |"),
        ("tests/unit/a.py", 'old = "tables/segany_time.parquet"'),
    ],
)
def test_leaves_other_uses_alone(tmp_path: Path, path: str, text: str) -> None:
    assert found(tmp_path, path, text) == []
