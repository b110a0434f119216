"""A first comparison on the user's own data: what is sampled, what fits the time, and the study that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sambench import quick
from sambench.cli import app
from sambench.config import read_study, read_study_file
from sambench.errors import InputError
from sambench.quick import Question, candidates, choose, part, sampled_order, study_text
from sambench.variants.cards import Card


def document(count: int = 40) -> dict[str, Any]:
    return {
        "info": {"year": 2026},
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 30, "height": 20}
            | {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
            for i in range(1, count + 2)  # the last one has no annotation
        ],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": 1, "bbox": [5, 5, 6, 4], "area": 24, "iscrowd": 0}
            | {"segmentation": [[5, 5, 11, 5, 11, 9, 5, 9]]}
            for i in range(1, count + 1)
            for k in (1, 2)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Question:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for i in range(1, 42):
        Image.fromarray(np.full((20, 30, 3), i, dtype=np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "my data.json").write_text(json.dumps(document()))
    return Question(Path("my data.json"), Path("pictures"))


def test_the_sample_is_random_repeatable_and_grows() -> None:
    path = Path("x.json")
    order = sampled_order(document(), path, 0)
    assert sorted(order) == list(range(1, 41)), "every image with annotations, each once"
    assert order == sampled_order(document(), path, 0) != sampled_order(document(), path, 1)
    assert order != sorted(order)
    small = part(document(), order[:3])
    assert {image["id"] for image in small["images"]} == set(order[:3]) and len(small["annotations"]) == 6
    assert small["info"] == {"year": 2026} and small["images"][0]["neg_category_ids"] == [2]
    with pytest.raises(InputError, match="annotations: expected at least one"):
        sampled_order({"annotations": []}, path, 0)


def cards(**seconds: float) -> list[Card]:
    return [Card(name, "F", builder="m:b", prompts=["box"]) for name in seconds]


def chosen(question: Question, images: int = 1000, **seconds: float) -> tuple[list[str], int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick.time, "monotonic", lambda: 100.0)
        return choose(question, cards(**seconds), images, Path("s.json"), 100.0, lambda card, _: seconds[card.name])


def test_as_many_images_as_fit(data: Question) -> None:
    # 900 s less 60 s of the study and 40 s per variant; 0.5 + 1.5 s per image.
    kept, count = chosen(data, fast=0.5, slow=1.5)
    assert kept == ["fast", "slow"] and count == pytest.approx((900 - 60 - 80) / 2, abs=1)
    assert chosen(data, images=25, fast=0.5, slow=1.5)[1] == 25
    assert chosen(replace(data, minutes=30), fast=0.5, slow=1.5)[1] == pytest.approx((1800 - 140) / 2, abs=1)


def test_what_leaves_too_few_images_is_left_out_unless_it_was_named(data: Question) -> None:
    assert chosen(data, fast=1.0, slow=100.0)[0] == ["fast"]
    kept, count = chosen(replace(data, variants=("fast", "slow")), fast=1.0, slow=100.0)
    assert (kept, count) == (["fast", "slow"], quick.FEWEST)


def test_a_variant_without_weights_says_how_to_get_them(data: Question, capsys: pytest.CaptureFixture[str]) -> None:
    files = [{"file": "gone.pt", "url": "https://x.example/gone.pt"}]
    missing = Card("gone", "F", builder="m:b", checkpoints=files, params_m=1.0)
    start = quick.time.monotonic()
    found = choose(data, [*cards(here=1.0), missing], 9, Path("s"), start, lambda *_: 1.0, lambda _: False)
    assert found[0] == ["here"]
    assert "gone: `sambench download gone` brings the weights" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected one that can run here"):
        choose(data, [missing], 9, Path("s"), 0.0, lambda *_: 1.0, lambda _: False)


def test_candidates_are_permissive_take_boxes_and_come_by_size(data: Question, tmp_path: Path) -> None:
    assert [card.name for card in candidates(data)] == ["box_fill"], "offline, and no weights are here"
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in ("mobile_sam.pt", "sam_vit_b_01ec64.pth", "FastSAM-s.pt", "Prompt_guided_Mask_Decoder.pt"):
        (folder / file).write_bytes(b"x")
    names = [card.name for card in candidates(data)]
    assert names[:2] == ["box_fill", "mobilesam"] and names[-1] == "sam_vit_b"
    assert not {"fastsam_s", "mobilesamv2", "grabcut"} & set(names)
    assert [card.name for card in candidates(replace(data, variants=("sam_vit_b", "grabcut")))] == [
        "sam_vit_b",
        "grabcut",
    ]
    with pytest.raises(InputError, match="did you mean mobilesam"):
        candidates(replace(data, variants=("mobilesan",)))


def test_it_measures_and_writes_a_study_to_go_on_from(
    data: Question, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Path] = []

    def run(study: Path) -> None:
        started.append(study)
        tables = study.parent / "tables"
        tables.mkdir()
        (tables / "overview.md").write_text("**summary**")

    monkeypatch.setattr(quick, "start_study", run)
    with pytest.raises(SystemExit):
        app(["quick", "my data.json", "pictures", "--variants", "box_fill,ground_truth", "--seed", "3"])
    (file,) = started
    assert file == Path("results/quick/quick.yaml")
    study = read_study(read_study_file(file))
    assert study["variants"] == ["box_fill", "ground_truth"] and study["datasets"] == ["my_data"]
    sample = json.loads(Path("results/quick/annotations.json").read_text())
    assert len(sample["images"]) == 40, "all of them fit"
    said = capsys.readouterr()
    assert "box_fill: 0." in said.err and "s per image" in said.err
    assert "**summary**" in said.out and "go on from results/quick/quick.yaml" in said.out


def test_an_own_variant_is_part_of_the_study(data: Question) -> None:
    config = {**data.config, "variants": {**data.config["variants"]}}
    config["variants"]["mine"] = {"family": "own", "builder": "sambench.variants.baselines:BoxFill", "prompts": ["box"]}
    (Path("results") / "quick").mkdir(parents=True)
    sample = Path("results/quick/annotations.json")
    sample.write_text("{}")
    text = study_text(replace(data, config=config), sample, 3, 40, ["mine", "box_fill"])
    own: Mapping[str, Any] = yaml.safe_load(text)
    assert list(own["variants"]) == ["mine"] and own["datasets"]["my_data"]["image_count"] == 3
    assert "3 of 40 images" in text.splitlines()[0] and "snakemake --configfile results/quick/quick.yaml" in text
