"""`sambench check`: what stops a study or will be missing, each with the command that mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sambench import check as module
from sambench.check import Finding, check
from sambench.cli import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one image, in the working directory, offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMBENCH_OFFLINE", "1")
    monkeypatch.setenv("SAMBENCH_CACHE", str(tmp_path / "cache"))
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save("1.png")
    image = {"id": 1, "file_name": "1.png", "width": 30, "height": 20}
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 6, 4], "area": 24, "iscrowd": 0}
    row["segmentation"] = [[5, 5, 11, 5, 11, 9, 5, 9]]
    document = {"images": [image], "annotations": [row], "categories": [{"id": 1, "name": "thing"}]}
    Path("instances.json").write_text(json.dumps(document))
    return tmp_path


def study(**changes: Any) -> Path:
    """A study of the data set; changes go into `study`, others by their own key, `entry` is the data set's."""
    own: dict[str, Any] = {
        "datasets": {"mine": {"annotations": "instances.json", "images": "."}},
        "prompt_groups": {"boxes": ["box"], "points": ["random_3"]},
        "study": {
            "datasets": ["mine"],
            "variants": ["box_fill"],
            "runtimes": ["eager"],
            "prompt_groups": ["boxes"],
            "measures": [],
            "samplers": [],
        },
    }
    for key, value in changes.items():
        (own["study"] if key in own["study"] else own)[key] = value
    own["datasets"] = {"mine": own.pop("entry")} if "entry" in own else own["datasets"]
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(own))
    return path


def of(findings: Sequence[Finding], about: str, level: str) -> Finding:
    (found,) = [finding for finding in findings if (finding.about, finding.level) == (about, level)]
    return found


def run(path: Path) -> list[Finding]:
    return list(check(path))


def test_a_study_that_can_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(study())
    assert {finding.level for finding in found} == {"ok"}
    assert [finding.about for finding in found] == ["data", "weights", "memory", "disk", "time"]
    assert of(found, "data", "ok").text == "mine: 1 images, 1 instances"
    with pytest.raises(SystemExit) as end:
        app(["check", "study.yaml"])
    assert end.value.code == 0 and "the study can run" in capsys.readouterr().out


def test_a_mistake_in_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = run(study(variants=["boxfill"]))
    assert found.level == "stop" and found.remedy == "did you mean box_fill?" and "boxfill" in found.text
    with pytest.raises(SystemExit) as end:
        app(["check", "study.yaml"])
    assert end.value.code == 1 and "1 of these stop the study" in capsys.readouterr().out
    (found,) = run(Path("absent.yaml"))
    assert found.level == "stop" and "expected a configuration file" in found.text


def test_data_that_would_stop_the_index(folder: Path) -> None:
    document = json.loads(Path("instances.json").read_text())
    document["annotations"][0]["image_id"] = 7
    Path("instances.json").write_text(json.dumps(document))
    found = of(run(study()), "data", "stop")
    assert "instances.json" in found.text and "found 7" in found.text and found.remedy
    Path("1.png").write_bytes(Path("1.png").read_bytes()[:40])
    document["annotations"][0]["image_id"] = 1
    Path("instances.json").write_text(json.dumps(document))
    assert "1.png" in of(run(study()), "data", "stop").text


def test_data_that_is_not_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"annotations": "absent.json", "images": "absent", "downloads": ["coco_annotations"]}
    found = of(run(study(entry=entry)), "data", "stop")
    assert "absent.json" in found.text and found.remedy == "sambench download coco_annotations"
    monkeypatch.setenv("SAMBENCH_OFFLINE", "0")
    found = of(run(study(entry=entry)), "data", "ok")
    assert "will be fetched" in found.text and found.remedy == "sambench download coco_annotations"


def test_weights_that_are_missing_or_another_variants(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of(run(study(variants=["mobilesam"])), "weights", "warn")
    assert "no weights" in found.text and found.remedy == "sambench download mobilesam"
    Path("weights").mkdir()
    torch.save({"a": torch.ones(1)}, "weights/mobile_sam.pt")
    found = of(run(study(variants=["mobilesam"])), "weights", "warn")
    assert "another file than the official one" in found.text
    shutil.copy("weights/mobile_sam.pt", "weights/tinysam_42.3.pth")
    monkeypatch.setattr("sambench.variants.origin._matches", lambda *_: None)  # as if no digest were known
    found = of(run(study(variants=["mobilesam"])), "weights", "warn")
    assert "known as tinysam" in found.text and "bad weights" in found.text and "sambench download" in found.remedy


def test_the_file_of_the_variant_that_mine_is_like_is_right(folder: Path) -> None:
    Path("weights").mkdir()
    torch.save({"a": torch.ones(1)}, "weights/mobile_sam.pt")
    shutil.copy("weights/mobile_sam.pt", "weights/tinysam_42.3.pth")
    shutil.copy("weights/mobile_sam.pt", "weights/mine.pt")
    path = study(variants=["mine"])
    path.write_text(path.read_text() + "\nvariants: {mine: {like: tinysam, file: mine.pt}}\n")
    assert of(run(path), "weights", "ok").text == "mine: known as tinysam"


def test_published_boxes_are_looked_at(folder: Path) -> None:
    own = yaml.safe_load(study(prompt_groups=["boxes"]).read_text())
    own["prompt_groups"] = {"boxes": ["box", "theirs"]}
    own["detectors"] = {"theirs": {"family": "theirs", "published": {"mine": "theirs.json"}}}
    Path("study.yaml").write_text(yaml.safe_dump(own))
    box = {"image_id": 1, "category_id": 1, "score": 95}

    def found(bbox: list[float]) -> list[Finding]:
        Path("theirs.json").write_text(json.dumps([box | {"bbox": bbox}]))
        return [each for each in check(Path("study.yaml")) if each.about == "boxes"]

    right, warning = found([5, 5, 6, 4])
    assert right.level == "ok" and warning.level == "warn"
    assert warning.text == "theirs on mine: scores above 1, which thresholds between 0 and 1 keep (1)"
    (wrong,) = found([5, 5, 11, 9])
    assert wrong.level == "stop" and "1 of 1 boxes that are corners x0, y0, x1, y1" in wrong.text


def test_boxes_prompts_and_devices(folder: Path) -> None:
    path = study(
        variants=["grabcut"],
        detectors={"theirs": {"family": "theirs", "published": {"mine": "theirs.json"}}},
    )
    own = yaml.safe_load(path.read_text())
    own["prompt_groups"] = {"boxes": ["box", "theirs"], "points": ["random_3"]}
    own["runtimes"] = {"far": {"device": "cuda:7"}, "half": {"device": "cpu", "dtype": "bfloat16"}}
    own["study"] |= {"prompt_groups": ["boxes", "points"], "runtimes": ["far", "half"]}
    path.write_text(yaml.safe_dump(own))
    found = run(path)
    assert "put the published boxes at theirs.json" in of(found, "boxes", "warn").remedy
    assert "unsupported prompt: random_3" in of(found, "prompts", "warn").text
    assert "grabcut in half: unsupported runtime" in of(found, "runtime", "warn").text
    assert "grabcut in far: no device" in of(found, "device", "warn").text


@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_disk_that_is_full_or_may_not_be_written(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "full":
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    else:
        monkeypatch.setattr(module.os, "access", lambda *_: False)
    found = of(run(study()), "disk", "stop")
    assert ("0.0 GB" in found.text and "free some space" in found.remedy) if what == "full" else (
        "may not be written" in found.text
    )  # fmt: skip


def test_memory_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resources, "memory_mb", lambda *_: 10**9)
    found = of(run(study()), "memory", "warn")
    assert "asks for 1000000 GB" in found.text and "out of memory" in found.remedy


def test_time_follows_the_images_that_are_there(folder: Path) -> None:
    assert of(run(study(variants=["grabcut"])), "time", "ok").text.startswith("about ")
    longest = of(run(study(measures=["latency"])), "time", "ok").text
    assert ("latency" in longest and "the CPU" in longest) or "GPU" in longest
