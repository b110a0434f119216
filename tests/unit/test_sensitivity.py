"""Prompts that lie beside where they should, by hand, and the table of what that costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sambench.clicks import first_click
from sambench.errors import InputError
from sambench.prompt_names import COUNTED, counted, is_box
from sambench.prompts import COUNTED_TYPES, Instance, prompt_function
from sambench.results.table import typed
from sambench.results.tables.sensitivity import SCHEMA, draw, lines, prompt_sets
from sambench.status import NO_WEIGHTS, OK

BOX = np.array([20.0, 10.0, 60.0, 30.0])  # 40 x 20
BOOTSTRAP = {"resamples": 100, "seed": 0}


def instance(number: int = 1, size: tuple[int, int] = (100, 100)) -> Instance:
    """A ring around (40, 20): its centre is outside of the mask."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot((columns - 40) / 20, (rows - 20) / 10)
    return Instance("d", number, BOX, (distance < 1) & (distance > 0.5))


def box_of(name: str, of: Instance) -> np.ndarray:
    box = prompt_function(name)(of).box
    assert box is not None
    return box


def test_names() -> None:
    assert set(COUNTED) == set(COUNTED_TYPES)
    assert counted("box_pad_10") == ("box_pad", 10) and counted("noisy_box") == ("", 0) == counted("box_pad_100")
    names = ["box", "box_pad_5", "box_jitter_20", "box_shift_1", "box_center", "point_shift_5", "sample_3"]
    assert [name for name in names if is_box(name)] == names[:4]
    with pytest.raises(InputError, match="did you mean box_pad_10"):
        prompt_function("box_pat_10")


def test_a_padded_box() -> None:
    # A tenth of 40 and of 20 on every side; at the image's border it is cut.
    assert box_of("box_pad_10", instance()).tolist() == [16, 8, 64, 32]
    assert box_of("box_pad_60", instance(size=(40, 100))).tolist() == [0, 0, 84, 40]


def test_a_shifted_box_keeps_its_size() -> None:
    moves = np.array([box_of("box_shift_20", instance(number)) - BOX for number in range(200)])
    np.testing.assert_allclose(moves[:, :2], moves[:, 2:])
    np.testing.assert_allclose(np.hypot(moves[:, 0] / 40, moves[:, 1] / 20), 0.2)
    assert np.abs(moves.mean(axis=0)).max() < 1.5, "in all directions"


def test_a_jittered_box_moves_each_side_within_its_bounds() -> None:
    moves = np.array([box_of("box_jitter_20", instance(number)) - BOX for number in range(300)]) / [40, 20, 40, 20]
    assert np.abs(moves).max() <= 0.2 + 1e-12 and np.abs(moves).max() > 0.19
    np.testing.assert_allclose(moves.std(axis=0), 0.2 / np.sqrt(3), rtol=0.1)  # of a uniform variable
    assert abs(np.corrcoef(moves[:, 0], moves[:, 2])[0, 1]) < 0.2
    again = box_of("box_jitter_20", instance(7))
    assert again.tolist() == box_of("box_jitter_20", instance(7)).tolist()


def test_moved_points_stay_in_the_mask_and_go_further_with_more() -> None:
    start = np.array(first_click(instance().mask))
    lengths = []
    for percent in (5, 20, 60):
        points = []
        for number in range(40):
            ((x, y),) = prompt_function(f"point_shift_{percent}")(instance(number)).points  # type: ignore[misc]
            assert instance().mask[int(y), int(x)]
            points.append((x, y))
        lengths.append(np.linalg.norm(np.array(points) - start, axis=1).mean())
    assert lengths[0] < lengths[1] < lengths[2]


def test_samples_are_different_pixels_of_the_mask() -> None:
    points = [prompt_function(f"sample_{i}")(instance()).points[0] for i in range(1, 9)]  # type: ignore[index]
    assert all(instance().mask[int(y), int(x)] for x, y in points)
    assert len({tuple(point) for point in points}) > 5


def rows(*ious: float, status: str = OK) -> pd.DataFrame:
    numbers = range(len(ious))
    return pd.DataFrame({"annotation_id": numbers, "image_id": numbers, "iou": ious, "status": status})


def test_the_table_by_hand() -> None:
    sets = {
        "box": rows(0.9, 0.7),
        "box_pad_20": rows(0.5, 0.1),
        "box_pad_10": rows(0.8, 0.6),
        "point_shift_10": rows(0.4, 0.2),
        "sample_1": rows(0.9, 0.5),
        "sample_2": rows(0.3, 0.4),
    }
    table = typed(lines(sets, **BOOTSTRAP), SCHEMA).set_index(["change", "strength"])
    pad = table.loc["box_pad"]
    np.testing.assert_allclose(pad["miou"], [80, 70, 30])
    np.testing.assert_allclose(pad["drop"], [0, 10, 50])
    np.testing.assert_allclose(pad["worst_decile"], [70, 60, 10])
    np.testing.assert_allclose(pad["area"], (75 * 10 + 50 * 10) / 20)
    alone = table.loc["point_shift", 10]
    assert alone["miou"] == pytest.approx(30) and np.isnan(alone["drop"]) and np.isnan(alone["area"])
    sample = table.loc["sample", 2]
    # The first instance has 90 and 30, the second 50 and 40.
    assert [sample[name] for name in ("miou", "spread", "lowest", "worst_decile")] == pytest.approx([52.5, 35, 35, 30])
    assert (sample["instances"], sample["images"]) == (2, 2)


def test_without_numbers_there_is_a_status_and_a_figure_that_says_so() -> None:
    sets = {"box": rows(np.nan, status=NO_WEIGHTS), "box_pad_10": rows(np.nan, status=NO_WEIGHTS)}
    table = typed(
        ({"dataset": "d", "variant": "v", "runtime": "r"} | line for line in lines(sets, **BOOTSTRAP)), SCHEMA
    )
    assert table["status"].tolist() == [NO_WEIGHTS] * 2 and table["miou"].isna().all()
    assert draw(table).empty


def test_the_unchanged_prompt_may_be_in_another_group() -> None:
    plan = {
        "jobs": [["d", "v", "eager", "one"], ["d", "v", "eager", "two"]],
        "groups": {"one": ["box", "random_1"], "two": ["box_pad_10", "sample_1"]},
    }
    assert dict(prompt_sets(plan)) == {("d", "v", "eager"): {"box": "one", "box_pad_10": "two", "sample_1": "two"}}
