"""What the jobs of config/survey.yaml ask SLURM for, as a dry run with the profile shows it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("boxes")]


LOCAL = {"all", "scenes", "retrieve_files", "table", "overview", "figure", "report_page", "tracking"}


class Planned(NamedTuple):
    """A job of a dry run."""

    rule: str
    threads: int
    wildcards: dict[str, str]
    resources: dict[str, str]


@pytest.fixture(scope="module")
def survey(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes config/survey.yaml run here: files that a download would bring are empty, three variants are left."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "instances.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    datasets = yaml.safe_load((root / "config" / "survey.yaml").read_text())["study"]["datasets"]
    here = {"annotations": str(folder / "instances.json"), "images": str(folder)}
    own = {
        "results": str(folder / "results"),
        "datasets": dict.fromkeys(datasets, here),
        # Of what the survey limits, segment everything is for all of them here.
        "study": {
            "variants": ["box_fill", "mobilesam", "sam_vit_h"],
            "only": {"grid_16": {"variants": ["box_fill", "mobilesam", "sam_vit_h"]}},
        },
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    return folder / "own.yaml"


@pytest.fixture(scope="module")
def jobs(root: Path, survey: Path) -> list[Planned]:
    """All jobs of the survey, as a dry run has them."""
    return planned_by(root, survey, survey.parent)


def planned_by(root: Path, own: Path, cache: Path) -> list[Planned]:
    """The jobs of config/survey.yaml with a file of one's own on top."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--workflow-profile", "profiles/slurm",
         "--configfile", "config/survey.yaml", str(own)],
        cwd=root, env={**os.environ, "XDG_CACHE_HOME": str(cache)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [
        Planned(
            rule,
            int(fields.get("threads", 1)),
            pairs(fields.get("wildcards", "")),
            pairs(fields["resources"]),
        )
        for rule, body in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", done.stdout, re.MULTILINE)
        for fields in [dict(re.findall(r"^    (\w+): (.*)$", body, re.MULTILINE))]
    ]


def pairs(text: str) -> dict[str, str]:
    """`a=1, b=--x --y=2` -> {a: 1, b: --x --y=2}."""
    return dict(re.findall(r"(\w+)=([^,]+)", text))


def of(jobs: list[Planned], rule: str, **wildcards: str) -> list[Planned]:
    chosen = [job for job in jobs if job.rule == rule and wildcards.items() <= job.wildcards.items()]
    assert chosen, f"no job of {rule} {wildcards}"
    return chosen


def test_every_job_on_the_cluster_says_how_much_memory_and_how_many_minutes(jobs: list[Planned]) -> None:
    asked = [job for job in jobs if job.rule not in LOCAL]
    assert len(asked) > 100
    for job in asked:
        assert int(job.resources.get("mem_mb", 0)) >= 4000 and 20 <= int(job.resources["runtime"]) <= 1440, job


def test_light_rules_and_the_database_stay_on_the_head(root: Path, jobs: list[Planned]) -> None:
    text = "".join(path.read_text() for path in (root / "rules").glob("*.smk"))
    named = re.findall(r"^rule (\w+):\n(?:    .*\n|\n(?=    ))*?    localrule: True\n", text, re.MULTILINE)
    assert set(named) == LOCAL - {"all"}
    assert not any("mem_mb" in job.resources for job in jobs if job.rule in LOCAL)


@pytest.mark.parametrize("rule", ["segany_shard", "segany_shard_with_masks", "segevery_quality"])
def test_networks_take_one_gpu_and_baselines_none(jobs: list[Planned], rule: str) -> None:
    assert {(job.resources["gpu"], job.threads) for job in of(jobs, rule, variant="sam_vit_h")} == {("1", 8)}
    assert {(job.resources["gpu"], job.threads) for job in of(jobs, rule, variant="box_fill")} == {("0", 1)}


def test_large_variants_get_more_memory_and_time_and_start_first(jobs: list[Planned]) -> None:
    small, large = (
        of(jobs, "segany_shard", variant=variant, dataset="lvis_v1_val", runtime="eager")[0].resources
        for variant in ("mobilesam", "sam_vit_h")
    )
    assert int(large["mem_mb"]) > 2 * int(small["mem_mb"])
    assert int(large["runtime"]) > int(small["runtime"])
    nice = [int(job["slurm_extra"].removeprefix("--nice=")) for job in (large, small)]
    assert nice[0] < nice[1]


@pytest.mark.parametrize(("rule", "wildcards"), [("segevery_time", {}), ("measure", {"measure": "latency"})])
def test_jobs_with_a_clock_have_their_node_to_themselves(
    jobs: list[Planned], rule: str, wildcards: dict[str, str]
) -> None:
    assert all(job.resources["slurm_extra"].startswith("--exclusive ") for job in of(jobs, rule, **wildcards))
    assert not any("--exclusive" in job.resources.get("slurm_extra", "") for job in of(jobs, "segany_shard"))


def test_shards_follow_the_images_of_a_dataset(jobs: list[Planned]) -> None:
    for dataset, shards in {"coco_val2017": 4, "lvis_v1_val": 16}.items():
        chosen = of(jobs, "segany_shard", variant="mobilesam", runtime="eager", dataset=dataset)
        assert {job.wildcards["shard"] for job in chosen} == {f"{shard}-of-{shards}" for shard in range(shards)}


def test_a_site_adds_options_and_gives_cpu_jobs_no_gpu(root: Path, survey: Path, tmp_path: Path) -> None:
    own = yaml.safe_load(survey.read_text())
    own["study"] |= {"datasets": ["coco_val2017"], "variants": ["box_fill", "mobilesam"], "samplers": [], "only": {}}
    own["study"] |= {"prompt_groups": ["ground_truth"], "measures": ["latency"], "runtimes": ["eager"]}
    own["site"] = {"slurm_extra": "--reservation=r", "exclusive": False, "max_runtime": 15, "gpu_model": "a100"}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(own))
    found = planned_by(root, tmp_path / "site.yaml", tmp_path)
    for job in found:
        if job.rule in LOCAL:
            continue
        network = job.wildcards.get("variant") == "mobilesam"
        options = job.resources["slurm_extra"].split()
        assert options[0] == "--reservation=r" and "--exclusive" not in options and job.resources["runtime"] == "15"
        if job.rule in ("segany_shard", "measure"):
            assert (job.resources["gpu"], job.resources.get("gpu_model", "")) == (
                ("1", "a100") if network else ("0", "")
            )
            assert options[1].startswith("--nice=")
