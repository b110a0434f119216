"""A variant like another one, with a file of the user's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sambench.cli import app
from sambench.config import read_registries, read_study, read_study_file
from sambench.errors import BadWeights, InputError
from sambench.variants.cards import Card
from sambench.variants.likes import complete
from sambench.variants.registry import refuse_mistaken_files

BASE = {"family": "F", "builder": "m:b", "params_m": 1.5, "licence_code": "MIT", "licence_weights": "MIT"}
REGISTRY: dict[str, Any] = {
    "base": {**BASE, "checkpoints": [{"file": "base.pt", "url": "https://x.example/base.pt", "sha256": "0" * 64}]},
    "two": {**BASE, "checkpoints": [{"file": "a.pt"}, {"file": "b.pt"}]},
    "none": {**BASE},
}


def mine(**entry: object) -> Any:
    return complete({**REGISTRY, "mine": entry})["mine"]


def test_it_takes_what_it_does_not_say_itself() -> None:
    made = mine(like="base", file="own.pt", input_size=512)
    assert made["builder"] == "m:b" and made["params_m"] == 1.5 and made["input_size"] == 512
    assert made["checkpoints"] == [{"file": "own.pt"}], "neither the address nor the digest of the official file"
    assert "licence_weights" not in made and made["licence_code"] == "MIT"
    files = [{"file": "x.pt", "weights_key": "ema"}, {"file": "y.pt"}]
    assert mine(like="two", checkpoints=files)["checkpoints"] == files


def test_one_may_be_like_one_that_is_like_another() -> None:
    entries = {**REGISTRY, "first": {"like": "base", "file": "1.pt"}, "second": {"like": "first", "file": "2.pt"}}
    second = complete(entries)["second"]
    assert second["like"] == "base" and second["checkpoints"] == [{"file": "2.pt"}]
    assert complete({"mine": {"like": "base", "file": "1.pt"}}, REGISTRY)["mine"]["builder"] == "m:b"


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"like": "bass", "file": "x"}, r"variants.mine.like: .* found bass; did you mean base\?"),
        ({"like": "mine", "file": "x"}, "expected another variant, found mine like mine"),
        ({"like": "base"}, "variants.mine: expected file, beside like"),
        ({"like": "two", "file": "x"}, "found file, and 2 files of two; name all files under checkpoints"),
        ({"like": "none", "file": "x"}, "found file, and 0 files of none"),
        ({"like": "base", "file": "x", "checkpoints": [{"file": "y"}]}, "found both"),
    ],
)
def test_mistakes_are_told(entry: dict[str, object], found: str) -> None:
    with pytest.raises(InputError, match=found):
        mine(**entry)


def test_a_circle_is_told() -> None:
    with pytest.raises(InputError, match="expected another variant"):
        complete({"a": {"like": "b", "file": "x"}, "b": {"like": "a", "file": "x"}})


@pytest.fixture
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best.pth").write_bytes(b"weights")
    own = {"variants": {"mine": {"like": "mobilesam", "file": "runs/best.pth"}}, "study": {"variants": ["mine"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    return tmp_path / "mine.yaml"


def test_a_study_knows_it_by_its_own_name(study_file: Path) -> None:
    study = read_study(read_study_file(study_file))
    assert {job.variant for job in study.jobs()} == {"mine"}
    assert study.weights("mine") == ["runs/best.pth"], "by its path, where no folder of weights has it"
    assert study.card("mine")["checkpoints"] == [{"file": "runs/best.pth"}]
    assert study.card("mine")["builder"] == study.card("mobilesam")["builder"]
    folder = study_file.parent / "weights" / "runs"
    folder.mkdir(parents=True)
    (folder / "best.pth").write_bytes(b"others")
    assert study.weights("mine") == ["weights/runs/best.pth"]


def test_commands_know_it(study_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["variants", "--config", str(study_file), "--json"])
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["mine"]["state"] == "ok" and entries["mine"]["like"] == "mobilesam"
    assert entries["mobilesam"]["state"] == "no weights" and "`sambench download" in entries["mobilesam"]["remedy"]
    with pytest.raises(InputError, match="expected a variant of the registry"):
        app(["segment", "photo.png", "--variant", "mine", "--box", "0,0,9,9", "-o", "out.png"])
    study_file.write_text("variants: {mine: {like: mobilesam, file: 3}}")
    with pytest.raises(InputError, match=r"variants.mine.checkpoints.0.file"):
        app(["variants", "--config", str(study_file)])


def test_a_missing_file_is_named(study_file: Path) -> None:
    (study_file.parent / "runs" / "best.pth").unlink()
    card = read_study(read_study_file(study_file)).cards["mine"]
    assert card.explain([Path("weights")]) == "no file runs/best.pth here or in weights: correct variants.mine.file"


def test_filters_of_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["variants", "--json", "--prompts", "point", "--licence", "permissive"])
    entries = json.loads(capsys.readouterr().out)
    assert {"mobilesam", "ground_truth"} <= {entry["name"] for entry in entries}
    assert not {"fastsam_s", "box_fill", "mobilesamv2"} & {entry["name"] for entry in entries}
    every = read_registries(["variants"])["variants"]
    assert all("point" in every[entry["name"]]["prompts"] for entry in entries)


def test_a_copy_of_the_official_file_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.pt").write_bytes(b"the official file")
    published = {"file": "official.pt", "sha256": hashlib.sha256(b"the official file").hexdigest()}
    # Two variants have that file, as MobileSAM and MobileSAMv2 have.
    known = (Card("other", "F", checkpoints=[published]), Card("base", "F", checkpoints=[published]))
    monkeypatch.setattr("sambench.variants.cards.shipped_cards", lambda: known)
    own = [{"file": "own.pt"}]
    refuse_mistaken_files(Card("mine", "F", checkpoints=own, like="base"), [tmp_path / "own.pt"], [tmp_path])
    with pytest.raises(BadWeights, match="found that of other"):
        refuse_mistaken_files(Card("mine", "F", checkpoints=own, like="third"), [tmp_path / "own.pt"], [tmp_path])
