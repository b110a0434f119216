"""A part of 20,000 shards reaches its table: nothing about it passes through a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sambench.parquet import write_parquet
from sambench.records import INSTANCES, PROMPTS, SEGANY

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("boxes")]

SNAKEFILE = """
folder = "results/segany/tiny/box_fill/eager/boxes"


rule parts:
    input:
        shards=[f"{{folder}}/{{shard}}-of-{shards}.parquet" for shard in range({shards})],
        prompts="results/prompts/tiny/boxes.parquet",
        instances="results/datasets/tiny/instances.parquet",
    output:
        "results/parts/tiny/box_fill/eager/boxes/accuracy_boxes.parquet",
    log:
        "results/logs/parts.log",
    params:
        dataset="tiny",
        variant="box_fill",
        runtime="eager",
        group="boxes",
        tables=["accuracy_boxes"],
        results="results",
        settings={settings},
    script:
        "{script}"
"""


# One argument of a process takes 128 KiB at most: about 2,000 of these names.
@pytest.mark.parametrize("shards", [4_000, pytest.param(20_000, marks=pytest.mark.long)])
def test_a_table_of_many_shards_is_made(
    shards: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "types": ["box"],
        "selections": ["argmax"],
        "statistics": {"resamples": 100, "seed": 0},
        "config_digest": "c",
    }
    masks = {
        "category_id": 1,
        "x": 0.0,
        "y": 0.0,
        "w": 4.0,
        "h": 4.0,
        "area": 16.0,
        "iscrowd": False,
        "frequency": None,
    }
    masks |= {"rle_size": [[4, 4]] * 2, "rle_counts": b"0@"}
    instances = pd.DataFrame({"annotation_id": [1, 2], "image_id": [1, 2], **masks})
    write_parquet(tmp_path / "results/datasets/tiny/instances.parquet", instances, INSTANCES, {})
    rows = {"annotation_id": [1, 2], "image_id": [1, 2], "prompt": ["box"] * 2}
    boxes = pd.DataFrame({**rows, "points": None, "labels": None, "box": [[0.0, 0.0, 4.0, 4.0]] * 2})
    write_parquet(tmp_path / "results/prompts/tiny/boxes.parquet", boxes, PROMPTS, {})
    found = {"category_id": 1, "area": 16.0, "iscrowd": False, "iou": [0.5, 1.0], "predicted_iou": None}
    scored = pd.DataFrame(
        {
            **rows,
            **found,
            "iou_single": None,
            "iou_oracle": None,
            "boundary_iou": None,
            "selected_token": 0,
            "status": "ok",
        }
    )
    folder = tmp_path / "results/segany/tiny/box_fill/eager/boxes"
    write_parquet(folder / f"0-of-{shards}.parquet", scored, SEGANY, {"config_digest": "c"})
    nothing = SEGANY.empty_table()
    monkeypatch.setattr("os.fsync", lambda file: None)
    for shard in range(1, shards):  # shards without an image
        write_parquet(folder / f"{shard}-of-{shards}.parquet", nothing, SEGANY, {"config_digest": "c"})
    script = root / "workflow" / "scripts" / "parts.py"
    text = SNAKEFILE.format(shards=shards, settings=json.dumps(settings), script=script)
    (tmp_path / "Snakefile").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"],
        cwd=tmp_path, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = pd.read_parquet(tmp_path / "results/parts/tiny/box_fill/eager/boxes/accuracy_boxes.parquet").to_dict(
        "records"
    )
    assert (line["miou"], line["instances"]) == (75.0, 2)
