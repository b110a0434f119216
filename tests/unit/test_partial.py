"""A job that was killed goes on where it was, and what it writes is what an undisturbed one writes."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from sambench import masks, partial, records
from sambench.evaluate import segany
from sambench.files import write_text
from sambench.parquet import write_parquet
from sambench.partial import Partial, partial_folder

ROWS = pa.schema([("number", pa.int64()), ("text", pa.list_(pa.int32()))])
IMAGES, KILLED_AT = 9, 6
# Notes every image that it sees, and dies at one of them, as it would by the system's hand.
SLOW = """
import os
from pathlib import Path
from sambench.variants.baselines import BoxFill

class Slow(BoxFill):
    def load_files(self, paths):
        pass

    def encode_prepared(self, prepared):
        note = Path(os.environ["SEEN"])
        seen = note.read_text() if note.exists() else ""
        note.write_text(seen + "x")
        if len(seen) + 1 == int(os.environ.get("KILLED_AT", 0)):
            os.kill(os.getpid(), 9)
        return super().encode_prepared(prepared)
"""


def piece(*numbers: int) -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame({"number": numbers, "text": [[number] * number for number in numbers]}, dtype=object)
    return {"one": frame, "two": frame[::-1].reset_index(drop=True)}


def rows(finished: Partial, name: str = "one") -> list[list[int]]:
    return [batch.column(0).to_pylist() for batch in finished.batches(name)]


def finished_of(folder: Path, key: str = "key") -> Partial:
    return Partial(folder, key, {"one": ROWS, "two": ROWS}, "job")


@pytest.fixture
def every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "KEEP_SECONDS", 0)


@pytest.mark.usefixtures("every_piece")
def test_what_is_finished_is_there_for_the_next_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "partial" / "job"
    first = finished_of(folder)
    assert first.pieces == 0 and not folder.exists()
    for numbers in ([1, 2], [], [3]):
        first.add(piece(*numbers))
    second = finished_of(folder)
    assert second.pieces == 3 and rows(second) == [[1, 2], [], [3]] and rows(second, "two") == [[2, 1], [], [3]]
    assert [batch.column(0).to_pylist() for batch in second.batches("one", [1])] == [[[1], [2, 2]], [], [[3] * 3]]
    second.add(piece(4))
    assert rows(finished_of(folder)) == [[1, 2], [], [3], [4]]
    assert capsys.readouterr().err == ""


def test_files_are_written_by_time_and_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(partial.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(partial, "KEEP_ROWS", 10)
    finished = finished_of(tmp_path / "job")
    finished.add(piece(1))
    now[0] += partial.KEEP_SECONDS - 1
    finished.add(piece(2))
    assert not (tmp_path / "job").exists() and rows(finished) == [[1], [2]]
    now[0] += 1
    finished.add(piece(3))
    assert finished_of(tmp_path / "job").pieces == 3
    monkeypatch.undo()
    monkeypatch.setattr(partial, "KEEP_ROWS", 10)
    finished = finished_of(tmp_path / "job")
    finished.add(piece(4, 5, 6, 7))
    assert finished_of(tmp_path / "job").pieces == 3, "eight rows of two tables"


@pytest.mark.usefixtures("every_piece")
@pytest.mark.parametrize("what", ["cut", "flipped", "other rows", "gone", "other pieces"])
def test_a_damaged_file_is_not_used_nor_what_follows_it(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = finished_of(tmp_path)
    for number in range(4):
        finished.add(piece(number, 10))
    (victim,) = tmp_path.glob("2.*.two.arrow")
    data = victim.read_bytes()
    if what == "cut":
        victim.write_bytes(data[:-100])
    elif what == "flipped":
        at = data.index(b"ARROW1", 8) - 700
        victim.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    elif what == "gone":
        victim.unlink()
    else:
        (other,) = tmp_path.glob("1.*.two.arrow" if what == "other pieces" else "2.*.one.arrow")
        shutil.copy(other, victim)
    again = finished_of(tmp_path)
    assert rows(again) == [[0, 10], [1, 10]] and len(list(tmp_path.iterdir())) == 4
    assert capsys.readouterr().err == "job: what an earlier run had finished is not used: 1 broken\n"


@pytest.mark.usefixtures("every_piece")
def test_files_of_something_else_are_dropped_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished = finished_of(tmp_path)
    for number in range(3):
        finished.add(piece(number))
    assert finished_of(tmp_path, "another").pieces == 0 and not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "3 of another configuration, weights, code or machine" in said


@pytest.mark.usefixtures("every_piece")
def test_a_process_that_lives_on_takes_nothing_away(tmp_path: Path) -> None:
    """Its Snakemake was killed, the next one starts the job again, and both write."""
    orphan = finished_of(tmp_path / "job")
    orphan.add(piece(1))
    orphan.add(piece(2))
    heir = finished_of(tmp_path / "job")
    orphan.add(piece(3))
    heir.add(piece(3))
    with pytest.raises(FileNotFoundError):
        rows(orphan)
    orphan.remove()
    assert rows(heir) == [[1], [2], [3]]
    heir.remove()
    assert not (tmp_path / "job").exists()


def test_what_is_finished_lies_below_the_results() -> None:
    file = Path("out/segany/coco/sam/eager/boxes/0-of-4.parquet")
    assert partial_folder(file) == Path("out/partial/segany/coco/sam/eager/boxes/0-of-4")
    assert partial_folder(Path("somewhere/else.parquet")) == Path("somewhere/partial/else")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The values of a job with ground truth and the boxes of a detector."""
    folder = tmp_path_factory.mktemp("shard")
    truth = np.zeros((20, 30), dtype=bool)
    truth[2:12, 3:13] = True
    ids = np.arange(1, IMAGES + 1)
    for number in ids:
        Image.fromarray(np.full((20, 30, 3), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    images = pd.DataFrame({"image_id": ids, "path": [str(folder / f"{number}.png") for number in ids]})
    sizes = {"width": 30, "height": 20, "judged_category_ids": None}
    box = {"x": 3.0, "y": 2.0, "w": 10.0, "h": 10.0}
    instances = pd.DataFrame({"annotation_id": ids + 100, "image_id": ids}).assign(**box, category_id=1, area=100.0)
    instances = instances.assign(iscrowd=False, rle_size=[[20, 30]] * IMAGES, rle_counts=masks.encode_rle(truth))
    prompts = instances[["annotation_id", "image_id"]].assign(points=None, labels=None)
    # Set after set, as the stage of prompts has them: the rows of an image are not beside one another.
    prompts = pd.concat([prompts.assign(prompt=name) for name in ("box", "tight_box")], ignore_index=True)
    prompts["box"] = [np.array([3, 2, 13 - number % 4, 12], np.float32) for number in prompts["image_id"]]
    boxes = pd.DataFrame({"image_id": np.tile(ids, 3), "category_id": np.repeat([1, 2, 1], IMAGES)}).assign(**box)
    boxes["w"] += np.arange(len(boxes)) % 5
    boxes["score"] = np.linspace(1, 0.1, len(boxes))
    tables = {
        "images": (fill(images.assign(**sizes), records.IMAGES), records.IMAGES),
        "instances": (fill(instances, records.INSTANCES), records.INSTANCES),
        "prompts": (fill(prompts, records.PROMPTS), records.PROMPTS),
        "found": (boxes, records.BOXES),
    }
    for name, (table, schema) in tables.items():
        write_parquet(folder / f"{name}.parquet", table, schema, {})
    (folder / "weights.pt").write_bytes(b"one")
    write_text(folder / "slow.py", SLOW)
    card = {"builder": "slow:Slow", "prompts": ["box"], "checkpoints": [{"file": "weights.pt"}]}
    runtime = {"name": "eager", "device": "cpu"}
    return {
        "model": {"name": "slow", "card": card, "runtime": runtime, "weights": [str(folder)]},
        "threads": 1,
        **{name: folder / f"{name}.parquet" for name in ("images", "instances", "prompts")},
        "selections": ["argmax", "single", "oracle"],
        "shard": "0-of-1",
        "detectors": {"d": folder / "found.parquet"},
        "keep_unjudged": True,
        "code": "digest",
    }


def fill(table: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """A table with the columns that nothing here looks at."""
    return table.assign(**{name: None for name in schema.names if name not in table})


def outputs(folder: Path) -> dict[str, Path]:
    return {kind: folder / kind / "tiny/slow/eager/boxes/0-of-1.parquet" for kind in ("segany", "masks")}


CHILD = """
import json, runpy, sys
from pathlib import Path
from sambench import partial
from sambench.evaluate import segany
from sambench.script import call
partial.KEEP_SECONDS = 0
segany.BLOCK_ROWS["cpu"] = 6
script, values = sys.argv[1:]
call(runpy.run_path(script)["main"], json.loads(values))
"""


@pytest.fixture(scope="module")
def killed(root: Path, shard: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a job that was killed by SIGKILL at its sixth image."""
    folder = tmp_path_factory.mktemp("killed")
    values = json.dumps({**shard, **outputs(folder)}, default=str)
    command = [sys.executable, "-c", CHILD, str(root / "workflow/scripts/segany.py"), values]
    paths = os.pathsep.join([str(root / "src"), str(shard["images"].parent)])
    own = {"PYTHONPATH": paths, "SEEN": str(folder / "seen"), "KILLED_AT": str(KILLED_AT)}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


@pytest.fixture
def run(
    root: Path, shard: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., int]]:
    """Runs the job in a folder and says how many images it decoded."""
    monkeypatch.syspath_prepend(str(shard["images"].parent))
    monkeypatch.setattr(partial, "KEEP_SECONDS", 0)
    monkeypatch.setitem(segany.BLOCK_ROWS, "cpu", 6)
    main = runpy.run_path(str(root / "workflow/scripts/segany.py"))["main"]

    def call(folder: Path, **other: Any) -> int:
        seen = tmp_path / "seen"
        seen.unlink(missing_ok=True)
        monkeypatch.setenv("SEEN", str(seen))
        main(**{**shard, **other}, **outputs(folder))
        return len(seen.read_text())

    yield call
    sys.modules.pop("slow", None)


def test_a_killed_shard_goes_on_and_writes_the_same(
    killed: Path, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any(file.exists() for file in outputs(killed).values())
    there = shutil.copytree(killed, tmp_path / "there")
    seen = run(there)
    assert seen == IMAGES - (KILLED_AT - 1), "what was finished is not decoded again"
    assert f"resuming: {KILLED_AT - 1} of {IMAGES} images are there" in capsys.readouterr().err
    assert run(tmp_path / "undisturbed") == IMAGES
    for mine, other in zip(outputs(there).values(), outputs(tmp_path / "undisturbed").values(), strict=True):
        assert mine.read_bytes() == other.read_bytes()
    assert not list((there / "partial").rglob("*.arrow"))
    # In one block, and without anything on disk, the rows are these too.
    segany.BLOCK_ROWS["cpu"] = 10_000
    run(tmp_path / "whole")
    one, two = (pd.read_parquet(outputs(tmp_path / name)["segany"]) for name in ("whole", "undisturbed"))
    pd.testing.assert_frame_equal(one, two)
    assert one["prompt"].tolist() == ["box"] * IMAGES + ["tight_box"] * IMAGES


@pytest.mark.parametrize("other", ["code", "weights", "selections", "prompts", "keep_unjudged"])
def test_what_another_job_had_finished_is_not_used(
    killed: Path, run: Callable[..., int], shard: dict[str, Any], tmp_path: Path, other: str
) -> None:
    there = shutil.copytree(killed, tmp_path / "there")
    model, prompts = shard["model"], pd.read_parquet(shard["prompts"])
    (tmp_path / "weights.pt").write_bytes(b"two")
    write_parquet(tmp_path / "prompts.parquet", prompts[prompts["prompt"] == "box"], records.PROMPTS, {})
    values = {
        "code": "other",
        "weights": {**model, "weights": [str(tmp_path)]},
        "selections": ["argmax", "single"],
        "prompts": tmp_path / "prompts.parquet",
        "keep_unjudged": False,
    }
    assert run(there, **{"model" if other == "weights" else other: values[other]}) == IMAGES
