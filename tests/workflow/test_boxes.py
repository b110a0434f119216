"""The stage `boxes` on a tiny dataset: imported, found by a user's own detector, and neither."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sambench.digests import digest as sha256
from sambench.parquet import read_parquet, read_provenance
from sambench.records import BOXES

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("boxes")]

PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs", "src")
SHARDS = 2
# A detector of one's own: the whole image is the object, an empty weights file is all it needs.
PLUGIN = """
import numpy as np
from sambench.detectors.base import BoxDetector, Detections

class Whole(BoxDetector):
    def load_files(self, paths):
        assert [path.name for path in paths] == ["whole.bin"]
    def choose_classes(self, wanted):
        return ["unheard of", "Thing"]
    def prepare(self, image):
        return image
    def shape(self, prepared):
        return prepared.shape
    def detect(self, prepared):
        return [Detections(np.array([[0.0, 0, *p.shape[1::-1]]] * 3), np.array([0.2, 0.9, 0.5]), np.array([1, 1, 0]))
                for p in prepared]

def build(runtime):
    return Whole()
"""
CONFIG: dict[str, Any] = {
    "shards": SHARDS,
    "datasets": {"tiny": {"annotations": "tiny/instances.json", "images": "tiny"}},
    "detectors": {
        "mine": {"family": "mine", "published": {"tiny": "mine.json"}, "top_k": 2},
        "absent": {"family": "mine", "published": {"tiny": "absent.json"}},
        "whole": {"family": "mine", "builder": "whole:build", "checkpoints": [{"file": "whole.bin"}]},
    },
    "prompt_groups": {"found": ["mine", "absent", "whole"]},
    "study": {"datasets": ["tiny"], "variants": ["box_fill"], "prompt_groups": ["found"]},
}


def environment(project: Path) -> dict[str, str]:
    path = os.pathsep.join([str(project / "src"), str(project)])
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(project / ".cache")}


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "boxes", *arguments, "--cores", "2", "--configfile", "tiny.yaml"]
    return subprocess.run(
        command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=500, check=False
    )


def planned(project: Path) -> dict[str, int]:
    done = snakemake(project, "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr + done.stdout
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE) if name != "total"}


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project in which the stage has run, and what was printed."""
    project = tmp_path_factory.mktemp("boxes") / "project"
    project.mkdir()
    for part in PARTS:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, project / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / part)
    (project / "tiny").mkdir()
    images, rows = [], []
    for number in (1, 2, 3):
        Image.fromarray(np.full((20, 30 + number, 3), 90, dtype=np.uint8)).save(project / f"tiny/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 30 + number, "height": 20})
        rows.append({"id": number, "image_id": number, "category_id": 5, "segmentation": [[5, 5, 11, 5, 11, 9, 5, 9]]})
    categories = [{"id": 9, "name": "it"}, {"id": 5, "name": "thing"}]
    document = {"images": images, "annotations": rows, "categories": categories}
    (project / "tiny/instances.json").write_text(json.dumps(document))
    results = [
        {"image_id": image, "category_id": 9, "bbox": [1, 2, 3, 4], "score": score}
        for image, score in ((3, 0.1), (1, 0.2), (1, 0.9), (1, 0.5))
    ]
    (project / "mine.json").write_text(json.dumps(results))
    (project / "whole.py").write_text(PLUGIN)
    (project / "weights").mkdir()
    (project / "weights/whole.bin").write_bytes(b"weights")
    (project / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    done = snakemake(project)
    assert done.returncode == 0, done.stderr
    return project, done.stderr + done.stdout


def boxes(project: Path, detector: str) -> tuple[list[list[float]], dict[str, str]]:
    path = project / f"results/boxes/tiny/{detector}.parquet"
    return read_parquet(path, BOXES).to_pandas().to_numpy().tolist(), read_provenance(path)


def test_a_published_file_is_imported(finished: tuple[Path, str]) -> None:
    project, _ = finished
    rows, origin = boxes(project, "mine")
    assert rows == [[1, 9, 1, 2, 3, 4, 0.9], [1, 9, 1, 2, 3, 4, 0.5], [3, 9, 1, 2, 3, 4, 0.1]]
    assert origin["status"] == "ok" and origin["top_k"] == "2" and origin["images"] == "3"
    assert origin["published_sha256"] == sha256(project / "mine.json")


def test_a_detector_of_ones_own_runs_shard_by_shard(finished: tuple[Path, str]) -> None:
    project, text = finished
    rows, origin = boxes(project, "whole")
    assert rows == [[i, 5, 0, 0, 30 + i, 20, score] for i in (1, 2, 3) for score in (0.9, 0.2)]
    assert origin["status"] == "ok" and origin["images"] == "3" and origin["detector"] == "whole"
    assert origin["weights_sha256"] == sha256(project / "weights/whole.bin")
    assert json.loads(origin["unmatched_classes"]) == ["unheard of"]
    assert "no category of tiny has the name of: unheard of" in text
    assert len(list((project / "results/boxes/tiny/whole").glob("*-of-2.parquet"))) == SHARDS


def test_a_published_file_that_is_not_here_is_a_status(finished: tuple[Path, str]) -> None:
    project, text = finished
    rows, origin = boxes(project, "absent")
    assert rows == [] and origin["status"] == "no boxes"
    assert "put the published boxes at absent.json" in text


def test_what_comes_or_changes_runs_again_and_nothing_else_does(finished: tuple[Path, str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(finished[0], project)
    for path in project.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            path.touch()
    assert planned(project) == {}
    shutil.copy(project / "mine.json", project / "absent.json")
    assert planned(project) == {"boxes": 1, "boxes_shard": 1, "boxes_merge": 1}


def shard(project: Path, detector: str, card: dict[str, Any], output: Path) -> subprocess.CompletedProcess[str]:
    """Run the stage by hand, with the values that a job leaves beside its log."""
    arguments = {
        "dataset": "tiny",
        "detector": detector,
        "card": card,
        "settings": {"device": "cpu", "batch_size": 1, "score_threshold": 0.0, "top_k": {"COCO": 9}},
        "folders": ["weights"],
        "annotations": "tiny/instances.json",
        "images": "results/datasets/tiny/images.parquet",
        "shard": "0-of-1",
        "threads": 1,
        "boxes": str(output),
    }
    job = output.with_suffix(".json")
    job.write_text(json.dumps({"stage": "boxes", "arguments": arguments}))
    command = [sys.executable, "-m", "sambench.cli", "stage", str(job)]
    return subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True, check=False)


def test_a_missing_checkpoint_is_a_status_not_a_failure(finished: tuple[Path, str], tmp_path: Path) -> None:
    card = {"builder": "whole:build", "checkpoints": [{"file": "other.bin"}]}
    done = shard(finished[0], "other", card, tmp_path / "boxes.parquet")
    assert done.returncode == 0, done.stderr
    assert "boxes other 0-of-1: no weights: put other.bin into weights (no public address is known)" in done.stderr
    assert read_provenance(tmp_path / "boxes.parquet")["status"] == "no weights"
    assert read_parquet(tmp_path / "boxes.parquet", BOXES).num_rows == 0


def test_a_wrong_entry_fails_in_one_line(finished: tuple[Path, str], tmp_path: Path) -> None:
    results = json.loads((finished[0] / "mine.json").read_text())
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([*results, {**results[0], "image_id": 4}]))
    done = shard(finished[0], "mine", {"published": {"tiny": str(wrong)}}, tmp_path / "boxes.parquet")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "wrong.json: [4].image_id: expected an image id of instances.json, found 4; "
        "score against the file the results were made for"
    )
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "boxes.parquet").exists()
