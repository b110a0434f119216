"""The configuration: every mistake is one line that names file, field, expected, found and remedy."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import OrderedDict
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sambench.config import read_registries, read_study, read_study_file
from sambench.errors import InputError
from sambench.settings import MEASURES, SHARED


@pytest.fixture(scope="module")
def registries() -> dict[str, Any]:
    return read_registries()


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(config)
    *parents, last = path.split("/")
    node = result
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return result


def test_the_embedded_default_is_valid(registries: dict[str, Any]) -> None:
    study = read_study(registries)
    assert study["datasets"] == ["scenes"]
    assert len(study.segany_files()) == len(study["variants"]) * study.shards("scenes")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("shard", 2, "config: expected a known key, found shard; did you mean shards"),
        ("study/variant", [], "config: study: expected a known key, found variant; did you mean variants"),
        (
            "study/variants",
            ["sam_vitb"],
            "study.variants: expected a name .* found sam_vitb; did you mean sam_vit_b",
        ),
        ("study/datasets", ["coco"], "study.datasets: expected a name .* found coco; did you mean"),
        ("study/only", {"fsat": {}}, "config: study.only: expected a name .* found fsat; did you mean fast"),
        (
            "study/only",
            {"fast": {"variants": ["sam_vitb"]}},
            "study.only.fast.variants: expected a name .* found sam_vitb; did you mean sam_vit_b",
        ),
        ("study/only", {"fast": {"variant": []}}, "study.only.fast: expected a known key, found variant"),
        ("study/runtimes", [], "config: study.runtimes: expected 1 or more entries, found \\[\\]"),
        ("study/selections", ["single"], "config: study.selections: expected argmax among .* found \\[single\\]"),
        ("study/selections", ["argmax"] * 2, "study.selections: expected entries that differ, found argmax twice"),
        ("study/selections", ["argmax", "orcale"], "study.selections.1: expected argmax, .* did you mean oracle"),
        ("study/samplers", ["hierarchic"], "study.samplers.0: expected a sampler .* did you mean hierarchical"),
        ("study/measures", ["latence"], "study.measures.0: expected .* found latence; did you mean latency"),
        ("shards", 0, "config: shards: expected auto or at least 1, found 0"),
        ("shards", "2", "config: shards: expected auto or a whole number, found '2'"),
        ("prompt_groups/ground_truth", ["bax"], "prompts: bax: expected a prompt type or a detector; did you mean box"),
        ("runtimes/eager/dtype", "fp32", "runtimes.eager.dtype: expected float32, .* found fp32; did you mean float32"),
        ("runtimes/eager/device", "cud", "runtimes.eager.device: expected auto, cpu, mps, .* did you mean cuda"),
        ("runtimes/eager/threads", 0, "config: runtimes.eager.threads: expected at least 1, found 0"),
        (
            "runtimes/onnx/compile",
            True,
            "runtimes.onnx.compile: expected false with the engine onnxruntime, found true",
        ),
        ("runtimes/mine", {"engine": "onnxruntime"}, "runtimes.mine.device: expected cpu or cuda with .* found auto"),
        ("detection/device", "mps", "config: detection.device: expected auto, cpu, cuda or cuda:N, found mps"),
        (
            "datasets/mine",
            {"annotations": "a.json"},
            "config: datasets.mine: expected annotations and images, or a gen",
        ),
        ("datasets/scenes/images", "here", "datasets.scenes: expected .* found images and generator"),
        ("datasets/scenes/image_limit", None, "datasets.scenes.image_limit: expected a whole number, found null"),
        ("datasets/a b", {"generator": "scenes"}, "config: datasets: expected a name of letters.* found a b"),
        ("efficiency/image_size", [534], "config: efficiency.image_size: expected one more entry, found none"),
        (
            "efficiency/image_size",
            [534, 800, 3],
            "efficiency.image_size: expected at most 2 entries, found \\[534, 800, 3",
        ),
        ("efficiency/reference", "sam_vith", "efficiency.reference: expected a variant, .* did you mean sam_vit_h"),
        ("segevery/family_settings/SAM 2/use_mm", True, "segevery.family_settings.SAM 2: .* did you mean use_m2m"),
        ("segevery/settings", {"crop_overlap_ratio": 1}, "crop_overlap_ratio: expected less than 1, found 1"),
        ("segevery/settings", {"use_m2m": "yes"}, "segevery.settings.use_m2m: expected true or false, found 'yes'"),
        ("study/datasets", [2017], "study.datasets.0: expected a text, found 2017; put it in quotes"),
        ("statistics/seed", True, "config: statistics.seed: expected a whole number, found true"),
        ("statistics", None, "config: statistics: expected a mapping, found null"),
        (
            "variants/box_fill/checkpoints",
            [{"url": "x"}],
            "box_fill.checkpoints.0: expected the key `file`, found none",
        ),
        (
            "variants/box_fill/checked",
            date(2026, 11, 25),
            "checked: expected a text, found 2026-11-25; put it in quotes",
        ),
        ("variants/box_fill/counts", {"image_size": [534, 800]}, "box_fill.counts: expected the key `parameters`"),
        ("download", "maybe", "config: download: expected true or false, found maybe"),
        ("study/name", "a b", "config: study.name: expected a name of letters.* found a b"),
        ("study/name", "../up", "config: study.name: expected a name of letters.* found ../up"),
        ("study/name", "", "config: study.name: expected a name of letters.* found ''"),
        ("study/name", None, "config: study.name: expected a text, found null"),
        ("study/name", "n" * 101, "config: study.name: expected at most 100 characters, found n"),
        ("study/name", "Prompts", "study.name: expected a name that no folder of shared results has, found Prompts"),
        ("results", ["two\nlines " * 20], "config: results: expected a text, found"),
    ],
)
def test_mistakes_are_named(registries: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_study(changed(registries, path, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("study/prompt_groups", []),
        ("runtimes/mine", {"device": "mps", "decoder": "official"}),
        ("throughput/images", None),
        ("shards", 10_000),
        ("variants/box_fill/checked", "2026-11-25"),
        ("variants/box_fill/counts", {"image_size": [534, 800], "parameters": 1, "flops": 2, "macs": 1, "products": 2}),
        ("detectors/yolov8n/checked", "2026-11-25"),
    ],
)
def test_what_is_allowed(registries: dict[str, Any], path: str, value: Any) -> None:
    read_study(changed(registries, path, value))


def test_a_study_is_named_by_its_file(tmp_path: Path, registries: dict[str, Any]) -> None:
    assert read_study(registries).folder == "results/config"
    file = tmp_path / "my.study-2.yaml"
    file.write_text("results: out")
    assert read_study(read_study_file(file)).folder == "out/my.study-2"
    file.write_text("study: {name: other}")
    assert read_study(read_study_file(file)).folder == "results/other"
    spaced = tmp_path / "my study.yaml"
    spaced.write_text("shards: 2")
    with pytest.raises(InputError, match=r"my study.yaml: name of the file: .* found my study; rename it or give `stu"):
        read_study_file(spaced)
    spaced.write_text("study: {name: mine}")
    assert read_study(read_study_file(spaced)).name == "mine"


def test_the_configurations_of_the_project_are_studies(root: Path) -> None:
    """Each has the name of its file; latency.yaml and the like, whose folder belongs to all studies, a near one."""
    files = [file for file in (root / "config").glob("*.yaml") if "study:" in file.read_text()]
    names = {file.stem: read_study(read_study_file(file)).folder for file in files}
    assert names == {stem: f"results/{stem}{'_study' if stem in SHARED else ''}" for stem in names}
    assert names["latency"] == "results/latency_study" and names["survey"] == "results/survey"


def test_no_study_takes_the_name_of_a_folder_that_studies_share(root: Path) -> None:
    texts = [path.read_text() for path in [*(root / "rules").glob("*.smk"), root / "src/sambench/jobs.py"]]
    folders = {name for text in texts for name in re.findall(r"\{(?:RESULTS|results)\}/([\w.]+)", text)}
    assert {"datasets", "prompts", "segevery", "logs"} <= folders, "the pattern finds them"
    assert folders | set(MEASURES) | {"segany", "masks"} <= SHARED


def test_limits_of_a_study(registries: dict[str, Any]) -> None:
    config = changed(registries, "study/datasets", ["scenes", "coco_mini"])
    config = changed(config, "study/variants", ["box_fill", "mobilesam"])
    config = changed(config, "study/runtimes", ["eager", "fast"])
    config = changed(config, "study/prompt_groups", ["ground_truth", "found"])
    config = changed(config, "study/samplers", ["grid_16", "native"])
    config = changed(config, "prompt_groups/found", ["yolov8n", "yolov8s"])
    config = changed(
        config,
        "study/only",
        {
            "fast": {"variants": ["mobilesam"]},
            "yolov8s": {"datasets": ["coco_mini"]},
            "grid_16": {"datasets": ["scenes"], "runtimes": ["eager"]},
            "latency": {"datasets": ["scenes"], "variants": ["box_fill"]},
        },
    )
    study = read_study(config)
    assert len(study.jobs()) == 2 * 2 * 3, "every dataset and group, with three pairs of variant and runtime"
    assert ("box_fill", "fast") not in {(job.variant, job.runtime) for job in study.jobs()}
    assert study.detectors_on("scenes") == ["yolov8n"] and study.detectors_on("coco_mini") == ["yolov8n", "yolov8s"]
    grids = [job for job in study.everything_jobs() if job.sampler == "grid_16"]
    assert {(job.dataset, job.runtime) for job in grids} == {("scenes", "eager")} and len(grids) == 2
    assert study.measuring_jobs("latency") == [("scenes", "box_fill", "eager")]
    config = changed(config, "study/only/yolov8n", {"datasets": ["coco_mini"]})
    assert {job.dataset for job in read_study(config).jobs() if job.group == "found"} == {"coco_mini"}


def test_an_unknown_key_comes_before_what_is_missing_for_it(registries: dict[str, Any]) -> None:
    config = changed(registries, "latency/image", 4)
    del config["latency"]["images"], config["study"]["measures"]
    with pytest.raises(InputError, match=r"config: latency: expected a known key, found image; did you mean images"):
        read_study(config)


def test_settings_are_the_configuration_with_types(registries: dict[str, Any]) -> None:
    study = read_study(OrderedDict(registries, study=OrderedDict(registries["study"])))  # as Snakemake has it
    assert study.settings.study.variants == tuple(study["variants"])
    assert study.settings.latency.min_seconds == registries["latency"]["min_seconds"]
    assert study.settings.efficiency.image_size == (534, 800)
    assert study.settings.datasets["scenes"].image_limit is None
    assert "image_limit" not in study.plain["datasets"]["scenes"], "defaults of the models are not written back"
    with pytest.raises(ValueError, match="frozen"):
        study.settings.latency.images = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "download"), [({}, True), ({"download": False}, False), ({"download": "false"}, False)]
)
def test_downloads_are_switched_off_on_the_command_line(
    registries: dict[str, Any], given: dict[str, Any], download: bool
) -> None:
    """Snakemake reads `--config download=false` as a text."""
    assert read_study(registries | given).settings.download is download


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study:\n  datasets: [mine\nshards: 2\n", r"own.yaml: line 3: expected YAML, found .*; correct this line"),
        ("study:\n\tdatasets: [mine]\n", r"own.yaml: line 2: expected YAML, found .*character"),
        ("- scenes\n", r"own.yaml: expected keys and values, found list; see config/README.md"),
        (b"results: \xff\n", r"own.yaml: expected text in UTF-8"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as error:
        read_study_file(path)
    assert "\n" not in str(error.value)


def test_missing_files_are_found_before_anything_runs(registries: dict[str, Any], tmp_path: Path) -> None:
    config = changed(registries, "datasets/mine", {"annotations": str(tmp_path / "no.json"), "images": str(tmp_path)})
    with pytest.raises(
        InputError, match=r"datasets\.mine.annotations: expected a COCO-format JSON file, found .*no.json"
    ):
        read_study(changed(config, "study/datasets", ["mine"]))
    read_study(config)  # a dataset that is not selected may be anywhere


def test_a_prompt_type_may_not_be_in_two_groups(registries: dict[str, Any]) -> None:
    config = changed(registries, "prompt_groups/more", ["box"])
    config["study"]["prompt_groups"] = ["ground_truth", "more"]
    with pytest.raises(InputError, match=r"prompt_groups\.more: .* found box, also in ground_truth"):
        read_study(config)


def test_prose_of_a_card_decides_nothing(registries: dict[str, Any]) -> None:
    before = read_study(registries).card("sam_vit_b")
    assert read_study(changed(registries, "variants/sam_vit_b/notes", "other words")).card("sam_vit_b") == before
    after = read_study(changed(registries, "variants/sam_vit_b/arguments", {"encoder": "vit_l"})).card("sam_vit_b")
    assert after != before


def test_reading_the_configuration_imports_no_network() -> None:
    program = (
        "import sys; from sambench.config import *; s = read_study(read_registries());"
        "import sambench.cli; [c.availability(s.weights_folders) for c in s.cards.values()];"
        "print(*({'torch', 'transformers', 'timm', 'ultralytics', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
