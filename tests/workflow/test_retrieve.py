"""Retrieval as part of the graph: what a study lacks comes from a server on this machine, once, and is left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("retrieve")]

PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs", "src")
OWN = """
from sambench.variants.baselines import BoxFill

class Own(BoxFill):
    def load_files(self, paths):
        (path,) = paths
        self.content = path.read_bytes()

def build(runtime):
    return Own(runtime)
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the server."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(served: Path) -> Iterator[str]:
    """A server of an annotation file and a checkpoint."""
    folder = served
    box = {"segmentation": [[5, 5, 11, 5, 11, 9, 5, 9]], "bbox": [5, 5, 6, 8], "area": 24, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "1.png", "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **box}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "far.json").write_text(json.dumps(document))
    (folder / "own.bin").write_bytes(b"weights")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory, address: str) -> Path:
    folder = tmp_path_factory.mktemp("retrieve") / "project"
    folder.mkdir()
    for part in PARTS:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    (folder / "src" / "own.py").write_text(OWN)
    (folder / "images").mkdir()
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(folder / "images" / "1.png")
    row = ["far", "annotations", "far.json", f"{address}/far.json", "", "", "", "", "", "", "far/instances.json", ""]
    with (folder / "config" / "downloads.tsv").open("a") as file:
        file.write("\t".join(row) + "\n")
    checkpoint = {"file": "own.bin", "url": f"{address}/own.bin"}
    absent = {"file": "absent.bin", "url": f"{address}/absent.bin"}
    card = {"family": "own", "builder": "own:build", "prompts": ["box"], "plain_only": True}
    study = {
        "datasets": {"far": {"annotations": "far/instances.json", "images": "images", "downloads": ["far"]}},
        "variants": {"own": {**card, "checkpoints": [checkpoint]}, "gone": {**card, "checkpoints": [absent]}},
        "prompt_groups": {"boxes": ["box"]},
        "study": {
            "datasets": ["far"],
            "variants": ["own", "gone"],
            "prompt_groups": ["boxes"],
            "selections": ["argmax"],
            "measures": [],
        },
    }
    (folder / "far.yaml").write_text(yaml.safe_dump(study))
    return folder


def snakemake(
    project: Path, *arguments: str, offline: str = "", study: str = "far.yaml", targets: Sequence[str] = ("tables",)
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", "2", "--configfile", study, *arguments]
    own = {
        "PYTHONPATH": str(project / "src"),
        "SAMBENCH_CACHE": str(project / ".cache"),
        "SAMBENCH_OFFLINE": offline,
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        command, cwd=project, env={**os.environ, **own}, capture_output=True, text=True, timeout=500, check=False
    )


def planned(project: Path) -> dict[str, int]:
    done = snakemake(project, "--dry-run", "--quiet", "rules", offline="1")
    assert done.returncode == 0, done.stderr + done.stdout
    jobs = re.findall(r"^(\w+) +(\d+)$", done.stdout.split("Job stats:")[-1], re.MULTILINE)
    return {name: int(count) for name, count in jobs if name not in ("total", "all", "tables")}


def test_a_study_fetches_what_it_lacks_once_and_knows_files_by_content(project: Path, served: Path) -> None:
    said = snakemake(project, "--config", "download=false", "--dry-run")
    assert said.returncode != 0
    assert "datasets.far.annotations: expected a COCO-format JSON file" in said.stdout + said.stderr
    assert "`sambench download far` or `download: true` brings it" in said.stdout + said.stderr

    done = snakemake(project)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(project / "results/far/tables/accuracy_boxes.parquet").set_index("variant")
    assert table["status"].to_dict() == {"own": "ok", "gone": "no weights"}
    assert table.loc["own", "miou"] == 50.0
    assert (project / "weights" / "own.bin").read_bytes() == b"weights"
    assert "absent.bin: missing" in (project / "results/retrieve/variants/gone.txt").read_text()
    assert planned(project) == {}, "what was fetched is here, and offline the rest is not tried again"

    # A retrieval that failed is tried again, and whatever waits for it still runs.
    shutil.rmtree(project / "results/far")
    shutil.rmtree(project / "results/segany")
    done = snakemake(project)
    assert done.returncode == 0, done.stderr
    again = pd.read_parquet(project / "results/far/tables/accuracy_boxes.parquet").set_index("variant")
    assert again["status"].to_dict() == {"own": "ok", "gone": "no weights"}
    # It is there at last: the same run measures with it.
    (served / "absent.bin").write_bytes(b"late weights")
    done = snakemake(project)
    assert done.returncode == 0, done.stderr
    late = pd.read_parquet(project / "results/far/tables/accuracy_boxes.parquet").set_index("variant")
    assert late["status"].to_dict() == {"own": "ok", "gone": "ok"}
    assert planned(project) == {}

    weights = project / "weights" / "own.bin"
    weights.unlink()
    weights.write_bytes(b"others!")
    assert planned(project)["segany_shard"] == 1, "of the variant whose file was replaced"
    # A file of the user's own is no output of any rule: nothing deletes it.
    done = snakemake(project, "--forceall", offline="1")
    assert done.returncode == 0, done.stderr
    assert weights.read_bytes() == b"others!" and (project / "far/instances.json").is_file()


def test_the_archive_of_a_suite_is_fetched_once_for_all_its_data_sets(
    project: Path, served: Path, address: str
) -> None:
    """SGinW's registry as it is, with an archive laid out as the real one at an address of this machine."""
    document = json.loads((served / "far.json").read_text())
    document["annotations"][0] |= {"segmentation": [[5, 5, 11, 5, 11, 13, 5, 13]], "area": 48}
    with zipfile.ZipFile(served / "seginw.zip", "w") as packed:
        for name in ("Airplane-Parts", "Cows"):
            packed.writestr(f"seginw/{name}/valid/_annotations_min1cat.coco.json", json.dumps(document))
            packed.write(project / "images" / "1.png", f"seginw/{name}/valid/1.png")
    table = project / "config" / "downloads.tsv"
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    (row,) = (line for line in lines if line[0] == "sginw")
    row[3] = f"{address}/seginw.zip"
    table.write_text("\n".join(map("\t".join, lines)) + "\n")
    names = ("sginw_airplane_parts", "sginw_cows")
    study = {"study": {"datasets": [*names], "variants": ["box_fill"], "prompt_groups": [], "measures": []}}
    (project / "two.yaml").write_text(yaml.safe_dump(study))
    indexes = [f"results/datasets/{name}/instances.parquet" for name in names]
    done = snakemake(project, study="two.yaml", targets=indexes)
    assert done.returncode == 0, done.stderr
    assert [pd.read_parquet(project / file)["area"].tolist() for file in indexes] == [[48.0], [48.0]]
    assert (project / "data" / "sginw").resolve().is_relative_to(project / ".cache")
