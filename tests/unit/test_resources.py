"""What jobs ask of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sambench import resources
from sambench.config import Study, read_registries, read_study, read_study_file
from sambench.schedule import OVERHEAD

# Counted by `snakemake efficiency --configfile config/efficiency.yaml`, in GFLOPs.
COUNTED = {
    "sam_vit_b": 746.4,
    "sam_vit_h": 5485.7,
    "mobilesam": 76.4,
    "edgesam": 44.0,
    "efficientvit_sam_l0": 73.1,
    "efficientvit_sam_xl0": 373.1,
    "nanosam": 90.9,
    "sam2.1_hiera_large": 1624.8,
    "efficienttam_s_512x512": 53.5,
    "fastsam_x": 577.7,
    "sam3": 4836.8,
    "yolov8n_seg": 8.4,
}


@pytest.fixture(scope="module")
def survey(root: Path) -> Study:
    return read_study(read_study_file(root / "config" / "survey.yaml"))


def job(variant: str, dataset: str = "coco_val2017", runtime: str = "eager", **more: str) -> dict[str, str]:
    return {"variant": variant, "dataset": dataset, "runtime": runtime, "group": "ground_truth", **more}


@pytest.mark.parametrize(("variant", "counted"), COUNTED.items())
def test_the_operations_of_a_card_are_within_a_factor_of_three(survey: Study, variant: str, counted: float) -> None:
    cards = survey.cards
    assert counted / 3 < resources.flops(cards[variant]) / 1e9 < counted * 3


def test_memory_grows_with_the_parameters_and_with_every_attempt(survey: Study) -> None:
    small, large = (survey.cards[name] for name in ("mobilesam", "sam_vit_h"))
    assert resources.memory_mb("segany", survey.cards["box_fill"]) == resources.BASE_MB
    assert resources.memory_mb("segany", small) < 5000
    # Twice the checkpoint of 2,564 MB, and the rest.
    assert resources.memory_mb("segany", large) > 2 * 2564 + resources.BASE_MB
    assert [resources.memory_mb("prompts", None, attempt) for attempt in (1, 2, 3)] == [8000, 16000, 32000]


def test_minutes_have_a_margin_a_floor_and_a_ceiling() -> None:
    assert resources.minutes(1) == resources.SHORTEST
    assert resources.minutes(3600) == 60 * resources.MARGIN
    assert resources.minutes(3600, 2) == 2 * 60 * resources.MARGIN
    assert resources.minutes(1e9) == resources.LONGEST
    assert resources.stage_minutes("index", 2) == 120


def test_estimates_follow_the_variant_the_dataset_and_the_prompts(survey: Study) -> None:
    def seconds(stage: str, variant: str, **more: str) -> float:
        return resources.estimate(survey, stage, job(variant, **more))

    assert seconds("segany", "sam_vit_h") > 2 * seconds("segany", "mobilesam")
    assert seconds("segany", "mobilesam", group="detectors") > seconds("segany", "mobilesam")
    assert seconds("segevery", "mobilesam", sampler="grid_64") > 3 * seconds("segevery", "mobilesam", sampler="grid_32")
    assert seconds("segany", "sam_vit_h", runtime="fast") > seconds("segany", "sam_vit_h") + 300, "compilation"
    assert seconds("segany", "box_fill", runtime="fast") == resources.LOADING_SECONDS, "an unsupported runtime"
    assert seconds("segevery", "grabcut", sampler="grid_64") == resources.LOADING_SECONDS, "it takes no points"


def test_longer_jobs_are_nicer_to_start_first(survey: Study) -> None:
    def nice(variant: str) -> int:
        return int(resources.niceness(survey, "segany", job(variant)).removeprefix("--nice="))

    assert 0 <= nice("sam_vit_h") < nice("mobilesam") <= resources.NICE_STEPS


def test_networks_ask_for_a_gpu_unless_their_runtime_is_bound_to_the_cpu(survey: Study) -> None:
    assert resources.on_gpu(survey, "sam_vit_b", "eager")
    assert not resources.on_gpu(survey, "box_fill", "eager")


def test_shards_follow_the_number_of_images(survey: Study) -> None:
    assert survey.shards("coco_val2017") == 4 and survey.shards("lvis_v1_val") == 16
    config: dict[str, Any] = read_registries()
    assert read_study(config).shards("scenes") == 1
    config["datasets"]["scenes"]["image_count"] = 2501
    assert read_study(config).shards("scenes") == 3
    config["datasets"]["scenes"]["image_limit"] = 10
    assert read_study(config).shards("scenes") == 1
    del config["datasets"]["scenes"]["image_count"]
    assert read_study(config).shards("scenes") == 1, "nothing is known: one job"
    assert read_study(config | {"shards": 7}).shards("scenes") == 7


def test_snakemake_costs_less_than_a_twentieth_of_every_sharded_job_of_the_survey(survey: Study) -> None:
    seconds = [resources.estimate(survey, "segany", job._asdict()) for job in survey.jobs()]
    sharded = [shard for shard in seconds if shard > 31]  # the others only say that a variant has no such runtime
    assert len(sharded) > 50
    assert OVERHEAD / min(sharded) < 0.05


def test_a_users_file_is_merged_as_by_snakemake(tmp_path: Path) -> None:
    own = {"study": {"variants": ["ground_truth"]}, "datasets": {"scenes": {"image_limit": 3}}, "shards": 2}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    merged = read_study_file(tmp_path / "own.yaml")
    assert merged["study"]["variants"] == ["ground_truth"] and merged["study"]["datasets"] == ["scenes"]
    assert merged["datasets"]["scenes"]["generator"] == "scenes" and merged["datasets"]["scenes"]["image_limit"] == 3
