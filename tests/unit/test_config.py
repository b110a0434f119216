"""The configuration: every mistake is one line that names file, field, expected, found and remedy."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sambench.config import read_registries, read_study
from sambench.errors import InputError


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
        ("study/runtimes", [], "config: study.runtimes: found \\[\\]"),
        ("study/selections", ["single"], "config: study.selections"),
        ("shards", 0, "config: shards: found 0 is less than the minimum"),
        ("shards", "2", "config: shards: found '2' does not match '\\^auto\\$'"),
        ("prompt_groups/ground_truth", ["bax"], "prompts: bax: expected a prompt type or a detector; did you mean box"),
        ("runtimes/eager/dtype", "fp32", "config: runtimes.eager.dtype: found 'fp32' is not one of"),
        ("datasets/mine", {"annotations": "a.json"}, "config: datasets.mine"),
        ("datasets/a b", {"generator": "scenes"}, "config: datasets: found 'a b' does not match"),
    ],
)
def test_mistakes_are_named(registries: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_study(changed(registries, path, value))
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
