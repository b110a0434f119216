"""Images per second, the agreement of runtimes, and what becomes of both."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sambench.measure import agreement, throughput
from sambench.measure.batches import ImageBoxes, plan
from sambench.measure.session import MeasuringJob, observe
from sambench.memory import total_mib
from sambench.parquet import read_parquet, write_parquet
from sambench.records import AGREEMENT, THROUGHPUT
from sambench.results.presentation import write_table
from sambench.results.tables import agreement as agreement_table
from sambench.results.tables import throughput as throughput_table
from sambench.status import MEMORY_LIMIT, NO_NETWORK, OK, OUT_OF_MEMORY, UNSUPPORTED_RUNTIME
from sambench.variants.base import MaskCandidates, Prompts, Runtime
from sambench.variants.baselines import BoxFill
from sambench.variants.cards import Card

CPU = torch.device("cpu")
FACTS = {"dataset": "d", "variant": "v", "runtime": "eager", "device": "x", "weights": "random", "threads": 1}


@pytest.fixture
def tasks(tmp_path: Path) -> list[ImageBoxes]:
    """Three images of 40 x 30 pixels, with one, two and three boxes."""
    images = pd.DataFrame(
        [{"image_id": k, "path": str(tmp_path / f"{k}.png"), "width": 40, "height": 30} for k in (1, 2, 3)]
    )
    for path in images["path"]:
        Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(path)
    instances = pd.DataFrame(
        [{"image_id": k, "x": 2.0, "y": 3.0, "w": 4.0 + n, "h": 5.0} for k in (1, 2, 3) for n in range(k)]
    )
    return plan(images, instances)


class Steady(BoxFill):
    """Takes 10 ms to prepare, 20 ms to encode a batch; remembers batches and boxes; wants memory above a batch size."""

    def __init__(self, room: int = 100) -> None:
        super().__init__(Runtime(device="cpu"))
        self.name, self.room = "steady", room
        self.batches: list[int] = []
        self.boxes: list[np.ndarray] = []

    def prepare(self, image: np.ndarray) -> Any:
        time.sleep(0.01)
        return image

    def encode_prepared(self, prepared: Any) -> list[Any]:
        if len(prepared) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has")
        time.sleep(0.02)
        self.batches.append(len(prepared))
        return super().encode_prepared(prepared)

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        assert prompts.boxes is not None
        self.boxes.append(prompts.boxes)
        return super().decode(features, prompts)


def measure(variant: Steady, tasks: list[ImageBoxes], **settings: Any) -> pd.DataFrame:
    return throughput.measure(
        variant, tasks, CPU, **{"batches": [1, 2, 4], "memory_limit_mib": None, "min_seconds": 0} | settings
    )


def test_boxes_are_those_of_the_image_as_edges(tasks: list[ImageBoxes]) -> None:
    assert [len(task.boxes) for task in tasks] == [1, 2, 3]
    assert tasks[1].boxes.tolist() == [[2, 3, 6, 8], [2, 3, 7, 8]] and tasks[1].size == (30, 40)


def test_every_batch_size_goes_through_all_images(tasks: list[ImageBoxes], tmp_path: Path) -> None:
    variant = Steady()
    runs = measure(variant, tasks)
    # One batch to warm up, then until all three images are done.
    assert variant.batches == [1] * 4 + [2] * 3 + [4] * 2
    assert runs["images"].tolist() == [3, 4, 4] and runs["status"].tolist() == [OK] * 3
    # Images 2, 3, 1 after the warm-up; 3, 1, 2, 3 after a warm-up of 1 and 2; 2, 3, 1, 2 after one of 1, 2, 3, 1.
    assert runs["boxes"].tolist() == [6, 3 + 1 + 2 + 3, 2 + 3 + 1 + 2]
    assert sum(map(len, variant.boxes)) == (1 + 6) + (3 + 9) + (7 + 8)
    assert (runs["encode_seconds"] >= [0.06, 0.04, 0.02]).all()
    assert (runs["seconds"] >= runs["encode_seconds"] + runs["wait_seconds"]).all()
    table = throughput_table.lines(FACTS, runs)
    assert table["best"].tolist() == (table["throughput_img_s"] == table["throughput_img_s"].max()).tolist()
    assert table["throughput_img_s"][0] == pytest.approx(3 / runs["seconds"][0])
    assert table["boxes_per_image"].tolist() == [2.0, 2.25, 2.0]
    write_table(tmp_path, throughput_table.TABLE, table, {})
    assert read_parquet(tmp_path / "throughput.parquet", throughput_table.SCHEMA).num_rows == 3
    best = throughput_table.lent(table)["d", "v", "eager"]
    assert best["throughput_img_s"] == table["throughput_img_s"].max()


@pytest.mark.parametrize(("early", "word"), [(False, "per image"), (True, "per prompt")])
def test_the_table_says_where_the_encoder_runs_per_prompt(
    early: bool, word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(BoxFill, "encodes_prompts", early)
    fill = Card("box_fill", "", builder="sambench.variants.baselines:BoxFill", plain_only=True)
    run = {
        "batch": 1,
        "images": 4,
        "boxes": 8,
        "seconds": 2.0,
        "encode_seconds": 0.5,
        "wait_seconds": 0.0,
        "status": OK,
    }
    job = MeasuringJob(fill, Runtime(device="cpu"), [tmp_path], {})
    table, _, facts = observe("t", job, THROUGHPUT, lambda *_: (pd.DataFrame([run]), {}))
    (line,) = throughput_table.lines(FACTS | json.loads(facts["run"]), table).to_dict("records")
    assert line["encodes"] == word and line["throughput_img_s"] == 2
    # Where nothing is encoded but prompts, images per second of the encoder would be those of a resize.
    assert pd.isna(line["encode_img_s"]) if early else line["encode_img_s"] == 8


def test_it_goes_on_until_enough_time_has_passed(tasks: list[ImageBoxes]) -> None:
    (run,) = measure(Steady(), tasks, batches=[1], min_seconds=0.3).to_dict("records")
    assert run["seconds"] >= 0.3 and run["images"] > 6


def test_reading_goes_on_while_the_model_computes(tasks: list[ImageBoxes]) -> None:
    class Reader(Steady):
        def prepare(self, image: np.ndarray) -> Any:
            time.sleep(0.2)
            return image

    (hidden,) = measure(Steady(), tasks, batches=[1], min_seconds=0.3).to_dict("records")
    (waiting,) = measure(Reader(), tasks, batches=[1], min_seconds=0.6).to_dict("records")
    assert hidden["wait_seconds"] < 0.5 * hidden["seconds"] < waiting["wait_seconds"] / waiting["seconds"] * 10
    # Three readers at 0.2 s per image: 15 images per second at most, of which the model needs a third of the time.
    assert waiting["wait_seconds"] > 0.3 * waiting["seconds"]
    assert waiting["images"] / waiting["seconds"] > 1 / 0.2, "images are not read one after the other"


def test_batches_grow_until_memory_ends(tasks: list[ImageBoxes], tmp_path: Path) -> None:
    runs = measure(Steady(room=2), tasks, batches=[8, 1, 2, 4])
    assert runs["batch"].tolist() == [1, 2, 4] and runs["status"].tolist() == [OK, OK, OUT_OF_MEMORY]
    assert runs["requested_mib"].tolist()[2] == 1536.0 and runs["peak_memory_mib"][2] > 10
    write_parquet(tmp_path / "t.parquet", runs, THROUGHPUT, {})
    table = throughput_table.lines(FACTS, runs)
    assert table["best"].sum() == 1 and not table["best"][2]
    nothing = throughput_table.lines(FACTS, measure(Steady(room=0), tasks))
    assert nothing["status"].tolist() == [OUT_OF_MEMORY] and not nothing["best"].any()


def test_a_batch_over_the_limit_is_not_tried(tasks: list[ImageBoxes], monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([100.0, 300.0, 500.0])  # before, batch 1, batch 2: 200 MiB a step, 900 for batch 4
    monkeypatch.setattr(throughput, "peak_mib", lambda device: next(peaks))
    variant = Steady()
    runs = measure(variant, tasks, memory_limit_mib=800)
    assert runs["status"].tolist() == [OK, OK, MEMORY_LIMIT] and runs["requested_mib"].tolist()[2] == 900.0
    assert max(variant.batches) == 2
    assert 512 < total_mib(CPU) < 2**25


def test_a_bug_is_not_a_want_of_memory(tasks: list[ImageBoxes]) -> None:
    class Broken(Steady):
        def encode_prepared(self, prepared: Any) -> list[Any]:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        measure(Broken(), tasks)


def test_agreement_by_hand(tmp_path: Path) -> None:
    class Shifted(BoxFill):
        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            assert prompts.boxes is not None
            return super().decode(features, Prompts(boxes=prompts.boxes + np.float32([0, 0, 4, 0])))

    image = np.zeros((20, 40, 3), dtype=np.uint8)
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.4, 0.9]])  # 16 and 8 pixels wide, in an image of 40
    plain, other = BoxFill(Runtime(device="cpu")), Shifted(Runtime(device="cpu"))
    reference = agreement.answers(plain, [(7, image), (9, image)], boxes)
    tokens = [answer.chosen for answer in reference]
    rows = agreement.compare(reference, agreement.answers(other, [(7, image), (9, image)], boxes, tokens))
    assert rows["iou"].tolist() == pytest.approx([16 / 20, 8 / 12] * 2)
    assert rows["area"].tolist() == pytest.approx([16 * 8 / 800, 8 * 14 / 800] * 2)
    assert rows["image_id"].tolist() == [7, 7, 9, 9] and rows["same_token"].all()
    write_parquet(tmp_path / "a.parquet", rows, AGREEMENT, {})
    line = agreement_table.line(FACTS, rows, resamples=100, seed=0)
    assert line.loc[0, ["miou", "lowest", "same_token"]].tolist() == pytest.approx([100 * 11 / 15, 100 * 2 / 3, 100])
    assert line["prompts"].tolist() == [4] and line["images"].tolist() == [2]
    write_table(tmp_path, agreement_table.TABLE, line, {})
    same = agreement.compare(reference, agreement.answers(plain, [(7, image), (9, image)], boxes, tokens))
    assert (same["iou"] == 1).all()


def test_two_empty_masks_agree() -> None:
    empty = agreement.Answers(1, 64, np.array([0]), np.zeros((1, 8), dtype=np.uint8))
    full = agreement.Answers(1, 64, np.array([1]), np.full((1, 8), 255, dtype=np.uint8))
    assert agreement.compare([empty], [empty])["iou"].tolist() == [1.0]
    rows = agreement.compare([empty], [full])
    assert rows["iou"].tolist() == [0.0] and rows["same_token"].tolist() == [False]


def test_what_cannot_be_measured_is_a_row(tmp_path: Path) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("nothing to measure")

    oracle = Card("oracle", "", builder="sambench.variants.baselines:GroundTruth", plain_only=True)
    table, _, facts = observe("t", MeasuringJob(oracle, Runtime(device="cpu"), [tmp_path], {}), THROUGHPUT, never)
    assert table["status"].tolist() == [NO_NETWORK] and json.loads(facts["run"])["weights"] == "none"
    half = Runtime("bf16", device="cpu", dtype="bfloat16")
    table, _, _ = observe("t", MeasuringJob(oracle, half, [tmp_path], {}), AGREEMENT, never)
    assert table["status"].tolist() == [UNSUPPORTED_RUNTIME]


def test_a_variant_that_cannot_even_be_built_for_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4194304 bytes.")

    monkeypatch.setattr("sambench.measure.session.build_seeded", build)
    fill = Card("box_fill", "", builder="sambench.variants.baselines:BoxFill", plain_only=True)
    table, _, _ = observe("t", MeasuringJob(fill, Runtime(device="cpu"), [tmp_path], {}), THROUGHPUT, lambda *_: None)  # type: ignore[arg-type,return-value]
    assert table["status"].tolist() == [OUT_OF_MEMORY] and table["requested_mib"].tolist() == [4.0]
