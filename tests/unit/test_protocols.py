"""Protocols of papers: what a study takes over, and which published figures compare like with like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sambench.config import merge, read_registries, read_study
from sambench.errors import InputError
from sambench.protocols import protocol_of
from sambench.results.table import find_table, typed
from sambench.results.tables.reproduction import COLUMNS, read_published, reproduction


@pytest.fixture(scope="module")
def registries() -> dict[str, Any]:
    return read_registries()


def study_of(registries: dict[str, Any], **study: Any) -> Any:
    return read_study(merge(registries, {"study": study}))


def test_a_protocol_brings_prompts_and_rules(registries: dict[str, Any]) -> None:
    study = study_of(registries, protocols=["edgesam"], prompt_groups=[], selections=["argmax"])
    assert study["prompt_groups"] == ["box+mask_center"]
    assert study.prompt_types("box+mask_center") == ["box", "mask_center"]
    assert study["selections"] == ["argmax", "single"]
    assert study.segany_files()[0].endswith("/box+mask_center/0-of-1.parquet")


def test_what_is_there_is_not_decoded_twice(registries: dict[str, Any]) -> None:
    study = study_of(registries, protocols=["edgesam", "efficientvit_sam"])
    assert study["prompt_groups"] == ["ground_truth", "click_1+click_3+click_5"]
    assert study["selections"] == ["argmax", "single", "oracle"]
    assert study_of(registries, protocols=["edgesam"])["prompt_groups"] == ["ground_truth"]


def test_an_unknown_protocol_is_one_line(registries: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"study.protocols: .* found edgsam; did you mean edgesam"):
        study_of(registries, protocols=["edgsam"])
    broken = merge(registries, {"protocols": {"mine": {"prompts": "box"}}, "study": {"protocols": ["mine"]}})
    with pytest.raises(InputError, match=r"protocols\.mine"):
        read_study(broken)


def test_the_protocols_are_those_of_their_figures(registries: dict[str, Any], root: Path) -> None:
    """A figure of a source has a prompt and a rule of the protocol that its source belongs to."""
    protocols, seen = registries["protocols"], set()
    for line in read_published(root / "config/published.csv"):
        name = protocol_of(line["source"], protocols)
        if name and line["table"] in ("accuracy_boxes", "accuracy_points"):
            prompt, rule = line["setting"].split("/")
            assert prompt in protocols[name]["prompts"] and rule in protocols[name]["selections"], line
            seen.add(name)
    assert seen == {*protocols}, "each has figures"


def test_reproduction_says_what_compares_like_with_like(registries: dict[str, Any]) -> None:
    def figure(source: str, note: str = "") -> dict[str, str]:
        base = {"table": "accuracy_boxes", "variant": "v", "dataset": "d", "setting": "box/argmax", "metric": "miou"}
        return dict.fromkeys(COLUMNS, "") | base | {"published": "70", "runtime": "r", "note": note, "source": source}

    row = {"dataset": "d", "variant": "v", "runtime": "r", "prompt": "box", "selection": "argmax", "miou": 73.0}
    tables = {"accuracy_boxes": typed([row], find_table("accuracy_boxes").schema)}
    sources = ["EfficientViT-SAM arXiv 2402.05008, Table 3", "EdgeSAM arXiv 2312.06660, Table 2", "a paper"]
    figures = [*map(figure, sources), figure(sources[0], "four_tokens")]
    found = reproduction(figures, tables, registries["protocols"])
    assert found["protocol"].tolist() == ["efficientvit_sam", "edgesam", "", "efficientvit_sam"]
    assert found["like_with_like"].tolist() == [True, False, False, False]
    assert "1024" in found["explanation"][1] and found["explanation"][2].startswith("the source does not say")
    efficiency = typed([{"variant": "v", "params_m": 9.0, "status": "ok"}], find_table("efficiency").schema)
    counted = {**figure("a paper"), "table": "efficiency", "metric": "params_m", "published": "9"}
    assert pd.isna(reproduction([counted], {"efficiency": efficiency}, registries["protocols"])["like_with_like"][0])
