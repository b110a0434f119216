"""Interactive segmentation: trajectories of a variant that answers by a script, and the table by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sambench import masks
from sambench.measure.interactive import measure
from sambench.measure.session import MeasuringJob, observe
from sambench.records import INTERACTIVE
from sambench.results.tables.interactive import SCHEMA, draw, lines
from sambench.status import NO_WEIGHTS, OK, OUT_OF_MEMORY, UNSUPPORTED_PROMPT
from sambench.variants.base import MaskCandidates, Prompts, Runtime, Upsampling, Variant
from sambench.variants.baselines import GroundTruth
from sambench.variants.cards import Card

HEIGHT, WIDTH = 8, 10
FACTS = {"dataset": "d", "variant": "v", "runtime": "eager", "device": "x", "weights": "checkpoint", "busy": False}
BOOTSTRAP = {"resamples": 100, "seed": 0}


class Script(Variant):
    """After a box and k points it answers with the first `columns[k]` columns, as logits of 3 and -3."""

    name = "script"

    def __init__(self, columns: Sequence[int]) -> None:
        self.columns, self.seen = columns, list[Prompts]()

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Any]:
        return [image.shape[:2] for image in prepared]

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        self.seen.append(prompts)
        n, clicks = len(prompts), 0 if prompts.points is None else prompts.points.shape[1]
        logits = torch.full((n, 1, *features), -3.0)
        logits[..., : self.columns[clicks]] = 3.0
        return MaskCandidates(logits, torch.ones(n, 1), (0,), torch.zeros(n).long(), Upsampling(features))


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two images, in each the first 5 columns as an instance."""
    truth = np.zeros((HEIGHT, WIDTH), dtype=bool)
    truth[:, :5] = True
    for k in (1, 2):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / f"{k}.png")
    images = pd.DataFrame({"image_id": [1, 2], "path": [str(tmp_path / f"{k}.png") for k in (1, 2)]})
    instances = pd.DataFrame(
        {"annotation_id": [11, 12], "image_id": [1, 2], "category_id": 1, "x": 0.0, "y": 0.0, "w": 5.0, "h": 8.0}
        | {"area": 40.0, "iscrowd": [False, True], "rle_size": [[HEIGHT, WIDTH]] * 2}
        | {"rle_counts": [masks.encode_rle(truth)] * 2}
    )
    return images.assign(width=WIDTH, height=HEIGHT), instances


def test_every_click_is_decoded_once_and_scored(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    variant = Script([8, 10, 2, 4])
    rows = measure(variant, *dataset, clicks=3, protocols=["clicks", "box_clicks"])
    assert list(rows.columns) == INTERACTIVE.names
    assert rows["protocol"].tolist() == ["clicks", "box_clicks"] * 2
    assert rows["annotation_id"].tolist() == [11, 11, 12, 12] and rows["iscrowd"].tolist() == [False, False, True, True]
    # A truth of 5 columns: 10, 2, 4 of them are 1/2, 2/5, 4/5; the box alone gives 8, 5/8.
    assert rows["iou"].tolist() == [[0.5, 0.4, 0.8], [0.625, 0.5, 0.4, 0.8]] * 2
    assert rows["first"].tolist() == [1, 0, 1, 0]
    assert all(seconds > 0 for row in rows["seconds"] for seconds in row)
    assert len(variant.seen) == 2 * (3 + 4), "one decode per answer"
    # Columns 2 to 4 are missed after the second click: the third is positive and in their middle.
    last = variant.seen[2]
    assert last.points is not None and last.labels is not None
    assert last.labels[0].tolist() == [1, 0, 1] and last.points[0, 2].tolist() == [3, 1]
    assert variant.seen[6].boxes is not None, "the box stays"


def test_logits_go_back_where_they_are_taken(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    variant = Script([8, 10, 2])
    rows = measure(variant, *dataset, clicks=2, protocols=["clicks_fed", "clicks"])
    assert rows["status"].tolist() == [UNSUPPORTED_PROMPT, OK] * 2
    assert all(prompts.masks is None for prompts in variant.seen)
    variant.takes_masks, variant.seen = True, []
    rows = measure(variant, *dataset, clicks=2, protocols=["clicks_fed"])
    assert rows["iou"].tolist() == [[0.5, 0.4]] * 2
    first, second = variant.seen[:2]
    assert first.masks is None and second.masks is not None
    assert second.masks.tolist() == torch.full((1, HEIGHT, WIDTH), 3.0).tolist(), "the answer to the first click"


def test_a_variant_stops_where_it_takes_no_more_clicks(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    variant = Script([8, 10, 2, 4])
    variant.max_points = 3  # the corners of a box are two
    rows = measure(variant, *dataset, clicks=3, protocols=["clicks", "box_clicks"])
    assert [len(iou) for iou in rows["iou"]] == [3, 2] * 2
    variant.takes_background = False
    assert [len(iou) for iou in measure(variant, *dataset, clicks=3, protocols=["clicks"])["iou"]] == [1, 1]
    variant.prompt_kinds = frozenset({"box"})
    rows = measure(variant, *dataset, clicks=3, protocols=["clicks", "box_clicks"])
    assert rows["status"].tolist() == [UNSUPPORTED_PROMPT] * 4


def test_exhausted_memory_is_a_status(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    class Greedy(Script):
        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            if len(self.seen) == 1:
                self.seen.append(prompts)
                raise MemoryError
            return super().decode(features, prompts)

    rows = measure(Greedy([8, 10, 2]), *dataset, clicks=2, protocols=["clicks"])
    assert rows["status"].tolist() == [OUT_OF_MEMORY, OK]


def test_the_ground_truth_needs_one_click(dataset: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = measure(GroundTruth(Runtime(device="cpu")), *dataset, clicks=2, protocols=["clicks", "box_clicks"])
    assert rows["iou"].tolist() == [[1.0, 1.0], [1.0, 1.0, 1.0]] * 2
    table = lines(FACTS, rows, clicks=2, protocols=["clicks", "box_clicks"], **BOOTSTRAP)
    assert table.groupby("protocol")["noc_90"].first().to_dict() == {"clicks": 1.0, "box_clicks": 0.0}


def test_random_weights_have_no_accuracy() -> None:
    card = Card(
        name="absent",
        family="SAM",
        builder="sambench.variants.sam:build_mobile_sam",
        prompts=["point"],
        checkpoints=[{"file": "nowhere.pt"}],
    )
    job = MeasuringJob(card, Runtime(device="cpu"), [], {})

    def measurement(*_: Any) -> Any:
        raise AssertionError("nothing to measure")

    table, _, _ = observe("interactive", job, INTERACTIVE, measurement, accuracy=True)
    assert table["status"].tolist() == [NO_WEIGHTS]
    line = lines(FACTS, table, clicks=3, protocols=["clicks", "box_clicks"], **BOOTSTRAP)
    assert line["status"].tolist() == [NO_WEIGHTS] * 2 and line["miou"].isna().all()


def rows_of(*ious: list[float], **columns: object) -> pd.DataFrame:
    n = len(ious)
    base = {"annotation_id": range(n), "image_id": range(n), "area": 9.0, "iscrowd": False, "protocol": "clicks"}
    other = {"first": 1, "iou": list(ious), "seconds": [[0.2] * len(iou) for iou in ious], "status": OK}
    return pd.DataFrame(base | other | columns)


def test_the_table_by_hand() -> None:
    rows = rows_of([0.5, 0.86, 0.7], [0.2, 0.3, 0.4])
    table = lines(FACTS, rows, clicks=20, protocols=["clicks"], **BOOTSTRAP)
    assert list(table.columns) == SCHEMA.names
    assert table["clicks"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table["miou"], [35, 58, 55])
    # The first instance has 80 % and 85 % after two clicks, and has had them after three; the second never.
    assert table["reached_85"].tolist() == [0, 50, 50] and table["reached_90"].tolist() == [0, 0, 0]
    assert table[["noc_80", "noc_85", "noc_90"]].iloc[0].tolist() == [11, 11, 20]
    assert table[["failed_80", "failed_85", "failed_90"]].iloc[0].tolist() == [50, 50, 100]
    np.testing.assert_allclose(table["seconds_per_click"], 0.2)


def test_a_box_alone_is_no_click() -> None:
    rows = rows_of([0.9, 0.95], [0.7, 0.8], protocol="box_clicks", first=0, seconds=[[5.0, 0.1], [5.0, 0.3]])
    table = lines(FACTS, rows, clicks=20, protocols=["box_clicks"], **BOOTSTRAP)
    assert table["clicks"].tolist() == [0, 1]
    assert table["noc_80"].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(table["seconds_per_click"], 0.2)


def test_the_figure_has_a_line_per_variant_and_a_panel_per_protocol() -> None:
    table = lines(FACTS, rows_of([0.5, 0.9], [0.2, 0.4]), clicks=2, protocols=["clicks", "box_clicks"], **BOOTSTRAP)
    two = draw(pd.concat([table, table.assign(variant="w")]))
    (row,) = two.static["vconcat"]
    assert [panel["title"]["text"] for panel in row["hconcat"]] == ["d, eager: clicks"], "nothing began with boxes"
    assert "w,1," in str(two.static)
    assert draw(table.iloc[:0]).empty
