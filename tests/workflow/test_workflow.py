"""The workflow on a tiny dataset: what runs, what runs again, and what does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]

PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs", "src")
CONFIG = {
    "shards": 2,
    "datasets": {"tiny": {"annotations": "tiny/instances.json", "images": "tiny"}},
    "prompt_groups": {"boxes": ["box"], "more": ["random_1"]},
    "study": {
        "datasets": ["tiny"],
        "variants": ["box_fill", "ground_truth"],
        "prompt_groups": ["boxes"],
        "selections": ["argmax"],
    },
}


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on a copy of the project, which uses its own copy of the library."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "tiny.yaml"],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        timeout=500,
    )


def environment(project: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(project / "src"), "XDG_CACHE_HOME": str(project / ".cache")}
    return {**os.environ, **own}


def planned(project: Path, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule a dry run names."""
    done = snakemake(project, *arguments, "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr + done.stdout
    jobs = re.findall(r"^(\w+) +(\d+)$", done.stdout.split("Job stats:")[-1], re.MULTILINE)
    return {name: int(count) for name, count in jobs if name not in ("total", "all", "tables")}


def write_dataset(folder: Path) -> None:
    """Two images, one rectangle of 6x4 pixels in each, with a box of 6x8 around it: IoU of the box one half."""
    folder.mkdir()
    images, annotations = [], []
    for number in (1, 2):
        Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 30, "height": 20})
        polygon = [5, 5, 11, 5, 11, 9, 5, 9]
        box = {"segmentation": [polygon], "bbox": [5, 5, 6, 8], "area": 24, "iscrowd": 0, "category_id": 1}
        annotations.append({"id": number, "image_id": number, **box})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has run to the end once."""
    project = tmp_path_factory.mktemp("workflow") / "project"
    project.mkdir()
    for part in PARTS:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, project / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / part)
    write_dataset(project / "tiny")
    (project / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    done = snakemake(project)
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project that a test may change."""
    copy = tmp_path / "project"
    shutil.copytree(finished, copy)
    return copy


def test_a_run_gives_tables_figures_report_and_database(finished: Path) -> None:
    results = finished / "results" / "tiny"
    boxes = pd.read_parquet(results / "tables" / "accuracy_boxes.parquet").set_index("variant")
    assert boxes["miou"].to_dict() == {"box_fill": 50.0, "ground_truth": 100.0}
    assert boxes["instances"].tolist() == [2, 2]
    for name in (
        "tables/accuracy_boxes.csv",
        "tables/accuracy_points.md",
        "figures/accuracy_boxes.svg",
        "report/index.html",
        "../mlflow.db",
        "mlflow.json",
    ):
        assert (results / name).stat().st_size > 0, name
    page = (results / "report" / "index.html").read_text()
    assert "box_fill" in page and "<svg" in page
    assert not re.search(r'(src|href)="(https?:)?//', page), "the report needs no network"


def test_the_report_shows_the_masks_of_picked_instances(finished: Path) -> None:
    """Both instances are shown, though they are small, with the box as the mask of one variant."""
    folder = finished / "results/tiny/gallery"
    picks = pd.read_parquet(folder / "tiny.parquet")
    assert sorted(picks["annotation_id"]) == [1, 2] and {*picks["prompt"]} == {"box"}
    masks = pd.read_parquet(folder / "tiny/box_fill/eager.parquet")
    assert masks["annotation_id"].tolist() == picks["annotation_id"].tolist() and masks["iou"].tolist() == [0.5, 0.5]
    page = (finished / "results/tiny/report/index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2


def test_pictures_can_be_chosen_or_turned_off(project: Path) -> None:
    def study(**keys: object) -> dict[str, object]:
        return CONFIG | {"study": CONFIG["study"] | keys}

    (project / "tiny.yaml").write_text(yaml.safe_dump(study(gallery=False)))
    assert not {"gallery_pick", "gallery_masks"} & {*planned(project)}
    (project / "tiny.yaml").write_text(yaml.safe_dump(study(gallery=0, gallery_annotations={"tiny": [2]})))
    jobs = planned(project, "gallery")
    assert jobs == {"gallery": 1, "gallery_pick": 1, "gallery_masks": 1}, "nothing is scored again"
    assert snakemake(project, "gallery").returncode == 0
    picks = pd.read_parquet(project / "results/tiny/gallery/tiny.parquet")
    assert picks[["annotation_id", "reason"]].to_numpy().tolist() == [[2, "chosen"]]


def test_boxes_of_a_detector_give_masks_and_their_average_precision(project: Path) -> None:
    """Published boxes: one right, one half as high, so that only its box is found at an IoU threshold of 0.5."""
    found = [
        {"image_id": 1, "category_id": 1, "bbox": [5, 5, 6, 8], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [5, 5, 6, 4], "score": 0.8},
    ]
    (project / "tiny" / "boxes.json").write_text(json.dumps(found))
    detectors = {"mine": {"family": "mine", "published": {"tiny": "tiny/boxes.json"}}, "absent": {"family": "mine"}}
    groups = {"found": ["mine", "absent"]}
    study = {**CONFIG["study"], "prompt_groups": ["boxes", "found"]}  # type: ignore[dict-item]
    own = {**CONFIG, "detectors": detectors, "prompt_groups": {**CONFIG["prompt_groups"], **groups}, "study": study}  # type: ignore[dict-item]
    (project / "tiny.yaml").write_text(yaml.safe_dump(own))
    done = snakemake(project, "average_precision", "coco_results")
    assert done.returncode == 0, done.stderr
    tables = project / "results" / "tiny" / "tables"
    detectors_table = pd.read_parquet(tables / "boxes.parquet").set_index("detector")
    # Recall is 1 at the threshold 0.5 and 1/2 at the nine others, where the first 51 of 101 recalls have precision 1.
    assert detectors_table.loc["mine", "ap"] == pytest.approx(100 * (1 + 9 * 51 / 101) / 10)
    assert detectors_table.loc["absent", "status"] == "not available"
    table = pd.read_parquet(tables / "average_precision.parquet").set_index(["detector", "variant"])
    assert table.loc[("mine", "ground_truth"), "ap"] == pytest.approx(100)
    # The filled boxes are the masks of 6x8 and 6x4 pixels: the truth is the latter.
    assert table.loc[("mine", "box_fill"), "ap50"] == pytest.approx(100)
    assert table.loc[("mine", "box_fill"), "box_ap"] == detectors_table.loc["mine", "ap"]
    assert table.loc[("absent", "ground_truth"), "status"] == "not available"
    assert table["ap"].isna().tolist() == [False, False, True, True]
    file = project / "results/coco_results/tiny/box_fill/eager/found/mine.argmax.json"
    assert [(row["image_id"], row["score"]) for row in json.loads(file.read_text())] == [(1, 0.9), (2, 0.8)]
    assert len(pd.read_parquet(project / "results/segany/tiny/ground_truth/eager/found/0-of-2.parquet")) == 0
    # Masks have gone with their use. Nothing misses them; what needs them again makes those of one variant.
    masks = project / "results/masks"
    assert not list(masks.rglob("*.parquet"))
    assert planned(project, "average_precision", "coco_results", "segany") == {}
    file.unlink()
    made = {"segany_shard_with_masks": 2, "coco_results_file": 2, "coco_results": 1}
    assert planned(project, "coco_results") == made


def test_a_second_run_has_nothing_to_do(project: Path) -> None:
    done = snakemake(project)
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout


def test_a_second_study_plans_only_what_is_its_own(project: Path) -> None:
    config = CONFIG | {"study": CONFIG["study"] | {"name": "other"}}
    (project / "tiny.yaml").write_text(yaml.safe_dump(config))
    own = planned(project)
    jobs = {"gallery_pick", "gallery_masks", "overview", "report_page", "tracking"}
    assert {name for name in own if not name.startswith(("table", "figure"))} == jobs
    done = snakemake(project, "tables")
    assert done.returncode == 0, done.stderr
    first, second = (project / "results" / name / "tables/accuracy_boxes.csv" for name in ("tiny", "other"))
    assert first.read_bytes() == second.read_bytes()


MODULE = """
module sambench:
    snakefile: "{project}/Snakefile"
    config: {config}

use rule * from sambench as sambench_*

rule mine:
    default_target: True
    input: "results/tiny/tables/summary.csv"
"""


def dry_run(project: Path, folder: Path, *arguments: str) -> str:
    """A dry run of a checkout in another folder, started from a third one."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2", "--directory", str(folder), *arguments]
    start = folder.parent / "start"
    start.mkdir()
    done = subprocess.run(command, cwd=start, env=environment(project), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(start.iterdir())
    return done.stdout + done.stderr


def test_a_checkout_serves_studies_in_other_folders(finished: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    paths = {"annotations": str(finished / "tiny/instances.json"), "images": str(finished / "tiny")}
    (study / "mine.yaml").write_text(yaml.safe_dump(CONFIG | {"datasets": {"tiny": paths}}))
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    said = dry_run(finished, study, "--snakefile", str(finished / "Snakefile"), "--configfile", "../study/mine.yaml")
    assert "results/mine/tables/summary.parquet" in said and str(finished / "config/published.csv") in said
    assert {path.name for path in study.iterdir()} == {"mine.yaml", ".snakemake"}
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_another_workflow_takes_the_rules_as_a_module(finished: Path, tmp_path: Path) -> None:
    """With the same configuration nothing runs again: code and settings are found to be the same."""
    config = CONFIG | {"study": CONFIG["study"] | {"name": "tiny"}}
    (tmp_path / "Snakefile").write_text(MODULE.format(project=finished, config=config))
    folder = tmp_path / "link"
    folder.symlink_to(finished)
    triggers = ["--rerun-triggers", "input", "mtime", "params", "--max-checksum-file-size", "1000000000"]
    assert "Nothing to be done" in dry_run(finished, folder, "--snakefile", str(tmp_path / "Snakefile"), *triggers)


def test_touched_and_copied_files_run_nothing(project: Path) -> None:
    for path in project.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            path.touch()
    assert planned(project) == {}


def test_an_edit_runs_what_it_can_change_and_a_release_runs_nothing(project: Path) -> None:
    """The digest itself is tested in tests/unit/test_code_digest.py; here, what Snakemake makes of it."""
    version = project / "src/sambench/__init__.py"
    version.write_text(version.read_text().replace('__version__ = "', '__version__ = "9'))
    for file in ("src/sambench/errors.py", "src/sambench/parquet.py", "src/sambench/script.py"):
        (project / file).write_text((project / file).read_text() + "\nEDITED = True\n")
    assert planned(project) == {}
    baselines = project / "src/sambench/variants/baselines.py"
    baselines.write_text(baselines.read_text() + "\nEDITED = True\n")
    # A dry run names what follows from new outputs too; the reason tells cause from consequence.
    done = snakemake(project, "--dry-run")
    caused = set()
    for rule, reason in re.findall(r"^(?:local)?rule (\w+):.*?reason: (.*?)$", done.stdout, re.MULTILINE | re.DOTALL):
        if "changed" in reason or "Updated input" in reason or "Params" in reason:
            caused.add(rule)
    assert caused == {"segany_shard"}, done.stdout


def test_a_table_is_one_module(project: Path) -> None:
    """A new file in results/tables/ appears among the tables, in the report and in MLflow."""
    shutil.copy(project / "src/sambench/results/tables/accuracy_points.py", project / "points.txt")
    text = (project / "points.txt").read_text().replace('name="accuracy_points"', 'name="accuracy_again"')
    text = text.replace('drawn_from=("accuracy_points",)', 'drawn_from=("accuracy_again",)')
    text = text.replace("lambda prompt: not accuracy.is_box(prompt)", "accuracy.is_box")
    text = text.replace('metrics="', 'metrics="again_')
    (project / "src/sambench/results/tables/accuracy_again.py").write_text(text.replace("Point prompts", "Once more"))
    done = snakemake(project)
    assert done.returncode == 0, done.stderr
    results = project / "results" / "tiny"
    assert pd.read_parquet(results / "tables" / "accuracy_again.parquet")["miou"].tolist() == [50.0, 100.0]
    assert "Once more" in (results / "report" / "index.html").read_text()
    assert (results / "figures" / "accuracy_again.svg").is_file()
    with sqlite3.connect(results.parent / "mlflow.db") as database:
        query = "select run_uuid from latest_metrics where key = 'again_miou/box' order by value"
        assert len(database.execute(query).fetchall()) == 2


def test_a_job_runs_again_by_hand(project: Path) -> None:
    job = project / "results/logs/segany/tiny/box_fill/eager/boxes/0-of-2.json"
    output = project / json.loads(job.read_text())["arguments"]["segany"]
    output.unlink()
    command = [sys.executable, "-m", "sambench.cli", "stage", str(job)]
    subprocess.run(command, cwd=project, env=environment(project), check=True, capture_output=True)
    assert pd.read_parquet(output)["iou"].tolist() == [0.5]


def test_nothing_of_a_configuration_reaches_a_shell(project: Path) -> None:
    """Names that a shell would take apart, for results, data, images and weights; letters of any alphabet elsewhere."""
    odd = "a b'c\"d $(touch pwned);touch pwned2&|>`touch pwned3`ü#%"
    data = project / f"data {odd}"
    write_dataset(data)
    document = json.loads((data / "instances.json").read_text())
    for image in document["images"]:
        (data / image["file_name"]).rename(data / f"{odd}{image['file_name']}")
        image["file_name"] = f"{odd}{image['file_name']}"
    (data / f"{odd}.json").write_text(json.dumps(document))
    own = {
        "results": f"results {odd}",
        "weights": [f"weights {odd}"],
        "datasets": {"Größe": {"annotations": f"data {odd}/{odd}.json", "images": f"data {odd}"}},
        "variants": {
            "Fülle": {"family": "baseline", "builder": "sambench.variants.baselines:BoxFill", "plain_only": True}
        },
        "prompt_groups": {"Kästen": ["box"]},
        "study": {"name": "Müller", "datasets": ["Größe"], "variants": ["Fülle"], "prompt_groups": ["Kästen"]},
    }
    (project / "tiny.yaml").write_text(yaml.safe_dump(own | {"shards": 1}, allow_unicode=True))
    table = f"results {odd}/Müller/tables/accuracy_boxes"
    done = snakemake(project, f"{table}.parquet")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(project / f"{table}.parquet")["miou"].iloc[0] == 50.0
    assert not list(project.rglob("pwned*"))


def test_a_new_prompt_group_runs_only_its_own_jobs(project: Path) -> None:
    config = CONFIG | {"study": CONFIG["study"] | {"prompt_groups": ["boxes", "more"]}}
    (project / "tiny.yaml").write_text(yaml.safe_dump(config))
    made = {"prompts_group": 1, "segany_shard": 4, "parts": 2}
    jobs = planned(project, "tables")
    assert made.items() <= jobs.items() and {*jobs} == {*made, "table", "table_large", "overview"}
    assert planned(project, "segany") == {"prompts_group": 1, "segany_shard": 4, "segany": 1}
    done = snakemake(project, "tables")
    assert done.returncode == 0, done.stderr
    points = pd.read_parquet(project / "results" / "tiny" / "tables" / "accuracy_points.parquet").set_index("variant")
    assert points.loc["box_fill", "status"] == "unsupported prompt"
    assert points.loc["ground_truth", "miou"] == 100.0


def test_a_variant_without_weights_is_a_status_not_a_failure(project: Path) -> None:
    config = CONFIG | {"study": CONFIG["study"] | {"variants": ["box_fill", "sam_vit_b"]}}
    (project / "tiny.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(project, "tables")
    assert done.returncode == 0, done.stderr
    assert "put sam_vit_b_01ec64.pth into weights" in done.stderr + done.stdout
    boxes = pd.read_parquet(project / "results" / "tiny" / "tables" / "accuracy_boxes.parquet").set_index("variant")
    assert boxes.loc["sam_vit_b", "status"] == "no weights" and pd.isna(boxes.loc["sam_vit_b", "miou"])


def test_costs_are_measured_drawn_and_put_beside_published_figures(project: Path) -> None:
    config = CONFIG | {
        "study": CONFIG["study"] | {"measures": ["efficiency", "latency", "throughput", "agreement"]},
        "latency": {"images": 2, "boxes": 11, "warmup": 1, "min_seconds": 0},
        "throughput": {"images": None, "batches": [1, 2], "min_seconds": 0},
        "agreement": {"images": 1, "boxes": 2},
    }
    (project / "tiny.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(project, "tables", "report")
    assert done.returncode == 0, done.stderr
    tables = project / "results" / "tiny" / "tables"
    times = pd.read_parquet(tables / "latency.parquet").set_index("variant")
    assert (
        times.loc["box_fill", "boxes"].tolist() == [1, 10, 11] and times.loc["ground_truth", "status"] == "no network"
    )
    rates = pd.read_parquet(tables / "throughput.parquet").set_index("variant").loc["box_fill"]
    best = rates[rates["best"]]
    assert rates["batch"].tolist() == [1, 2] and rates["boxes_per_image"].tolist() == [1.0, 1.0] and len(best) == 1
    assert (times.loc["box_fill", "throughput_img_s"] == best["throughput_img_s"].iloc[0]).all()
    agreement = pd.read_parquet(tables / "agreement.parquet").set_index("variant")
    assert agreement.loc["box_fill", ["miou", "prompts"]].tolist() == [100.0, 2]
    assert pd.read_parquet(tables / "reproduction.parquet").empty, "nobody published figures of the box"
    page = (project / "results" / "tiny" / "report" / "index.html").read_text()
    assert "cumulative time, ms" in page and "Published figures" not in page, "what is empty is left out"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"shard": 1}, "config: expected a known key, found shard; did you mean shards?"),
        (
            lambda c: c | {"study": c["study"] | {"variants": ["boxfill"]}},
            "config: study.variants: expected a name of the registry `variants`, found boxfill; did you mean box_fill?",
        ),
    ],
)
def test_a_mistake_in_the_config_is_one_line_before_anything_runs(
    project: Path, change: Callable[[dict[str, object]], dict[str, object]], message: str
) -> None:
    (project / "tiny.yaml").write_text(yaml.safe_dump(change(CONFIG)))
    done = snakemake(project, "--dry-run")
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_tables(project: Path) -> None:
    tables = project / "results" / "tiny" / "tables"
    before = {path.name: path.read_bytes() for path in tables.glob("*.csv")}
    for moment in (12,):
        shutil.rmtree(project / "results" / "segany")
        shutil.rmtree(tables)
        command = [sys.executable, "-m", "snakemake", "tables", "--cores", "2", "--configfile", "tiny.yaml"]
        process = subprocess.Popen(
            command, cwd=project, env=environment(project), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not list((project / "results").rglob("*.parquet.*")), "a name that looks finished"
        assert snakemake(project, "--unlock").returncode == 0
        done = snakemake(project, "tables")
        assert done.returncode == 0, done.stderr
        assert {path.name: path.read_bytes() for path in tables.glob("*.csv")} == before
