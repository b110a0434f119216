"""Segment everything against segment-anything's own generator, on predictors that need no network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils import amg
from torchvision.ops import batched_nms

from sambench.errors import InputError
from sambench.evaluate import filters, samplers
from sambench.evaluate.filters import Settings, Trace
from sambench.evaluate.generator import generate
from sambench.evaluate.samplers import GRID, Sampler, parse_sampler
from sambench.masks import decode_rle
from sambench.parity.generators import ClosedForm, closed_form, xywh
from sambench.variants.base import BOX, MaskCandidates, Prompts, Upsampling, Variant


class OfficialPredictor:
    """The closed form instead of SamPredictor, as far as the official generator uses it."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.model = self.transform = self
        self.mask_threshold = 0.0

    def set_image(self, image: np.ndarray) -> None:
        self.size = image.shape[:2]

    def reset_image(self) -> None:
        pass

    def apply_coords(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return points

    def predict_torch(self, points: torch.Tensor, labels: torch.Tensor, **_: Any) -> tuple[torch.Tensor, ...]:
        found = [closed_form(float(x), float(y), self.size) for x, y in points[:, 0]]
        logits, scores = (torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True))
        return logits, scores, logits


def official(image: np.ndarray, side: int, **settings: Any) -> list[dict[str, Any]]:
    made = SamAutomaticMaskGenerator.__new__(SamAutomaticMaskGenerator)
    defaults = {"points_per_batch": 64, "output_mode": "coco_rle"} | {
        name: getattr(Settings(), name) for name in Settings.__dataclass_fields__ if name != "points_per_batch"
    }
    made.__dict__.update(defaults | settings)
    layers, factor = made.crop_n_layers, made.crop_n_points_downscale_factor
    made.point_grids = amg.build_all_layer_point_grids(side, layers, factor)
    made.predictor = OfficialPredictor()
    records: list[dict[str, Any]] = made.generate(image)
    return records


LOOSE = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.3}


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((60, 80), {}),
        ((60, 80), LOOSE),
        ((80, 60), LOOSE | {"box_nms_thresh": 0.2, "points_per_batch": 7}),
        ((90, 120), LOOSE | {"crop_n_layers": 1, "crop_nms_thresh": 0.5}),
        ((130, 90), LOOSE | {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "crop_overlap_ratio": 0.2}),
        ((60, 80), LOOSE | {"min_mask_region_area": 25}),
        ((60, 80), {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "stability_score_offset": 0.25}),
        ((1, 1), {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}),
        ((7, 300), {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}),
        ((60, 80), {"pred_iou_thresh": 1.0}),
    ],
)
def test_the_official_generator_gives_the_same_masks_in_the_same_order(
    size: tuple[int, int], settings: dict[str, Any]
) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    with np.errstate(all="ignore"):
        records = official(image, 6, **settings)
    masks = generate(ClosedForm(), image, Sampler(GRID, 6), Settings(**settings))
    assert [counts.decode() for counts in masks.counts] == [r["segmentation"]["counts"] for r in records]
    np.testing.assert_array_equal(masks.area, [r["area"] for r in records])
    np.testing.assert_array_equal(xywh(masks.boxes).tolist(), [r["bbox"] for r in records])
    np.testing.assert_array_equal(xywh(masks.crops).tolist(), [r["crop_box"] for r in records])
    np.testing.assert_array_equal(masks.predicted_iou, np.float32([r["predicted_iou"] for r in records]))
    np.testing.assert_array_equal(masks.stability, np.float32([r["stability_score"] for r in records]))
    np.testing.assert_allclose(masks.prompts.tolist(), [r["point_coords"][0] for r in records])


def test_the_cases_above_keep_some_masks_and_drop_others() -> None:
    trace = Trace()
    settings = Settings(**LOOSE, crop_n_layers=1, crop_nms_thresh=0.2)
    generate(ClosedForm(), np.zeros((90, 120, 3), np.uint8), Sampler(GRID, 6), settings, trace)
    left = [trace.left[name] for name in ("candidates", "predicted_iou", "stability", "crop_edge", "nms", "masks")]
    assert trace.left["prompts"] == 5 * 36
    assert left[0] == 3 * 5 * 36
    assert sorted(set(left), reverse=True) == left  # every filter took something
    assert left[-1] > 0
    assert set(trace.seconds) == {"encode", "decode", "postprocess"}


@pytest.mark.parametrize("side", [1, 2, 5, 16])
def test_grids_are_the_official_ones(side: int) -> None:
    np.testing.assert_array_equal(samplers.point_grid(side), amg.build_point_grid(side))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (37, 1001), (1, 1)])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_crops_are_the_official_ones(height: int, width: int, layers: int) -> None:
    boxes, depths = amg.generate_crop_boxes((height, width), layers, 512 / 1500)
    assert samplers.crop_boxes(height, width, layers, 512 / 1500) == [
        (depth, tuple(box)) for depth, box in zip(depths, boxes, strict=True)
    ]


@pytest.mark.parametrize(
    ("count", "scores", "side"), [(0, 1, 9), (1, 1, 9), (300, 8, 12), (900, 10**6, 900), (1500, 10**6, 60)]
)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.0])
def test_suppression_is_that_of_torchvision(count: int, scores: int, side: int, threshold: float) -> None:
    """Ties of scores, overlaps equal to the threshold, and boxes of no area included."""
    random = np.random.default_rng(count)
    corners = random.integers(0, side, (count, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    confidence = (random.permutation(max(count, scores))[:count] % scores / scores).astype(np.float32)
    expected = batched_nms(
        torch.from_numpy(boxes).float(), torch.from_numpy(confidence), torch.zeros(count), threshold
    ).numpy()
    np.testing.assert_array_equal(filters.suppress(boxes, confidence, threshold), expected)


@pytest.mark.parametrize("density", [0.02, 0.4, 0.6, 0.98])
@pytest.mark.parametrize("min_area", [1, 4, 10**6])
def test_small_regions_are_removed_as_the_official_code_does(density: float, min_area: int) -> None:
    random = np.random.default_rng(7)
    for shape in ((40, 50), (1, 9), (3, 1)):
        mask = random.random(shape) < density
        filled, holes = amg.remove_small_regions(mask, min_area, mode="holes")
        expected, islands = (
            amg.remove_small_regions(filled, min_area, mode="islands") if filled.any() else (filled, False)
        )
        found, changed = filters.remove_small_regions(mask, min_area)
        np.testing.assert_array_equal(found, expected)
        assert changed == (holes or islands)


def test_second_round_leaves_out_what_is_covered_and_stays_inside() -> None:
    coarse = samplers.point_grid(2)
    everywhere = samplers.second_round(coarse, 8, np.zeros((80, 160), bool))
    # Eighths of the image, each once, without the four coarse points: those at a quarter and at three quarters.
    expected = {(x, y) for x in range(1, 8) for y in range(1, 8)} - {(2, 2), (2, 6), (6, 2), (6, 6)}
    assert sorted(map(tuple, (everywhere * 8).tolist())) == sorted(expected)
    left = np.zeros((80, 160), bool)
    left[:, :80] = True
    fine = samplers.second_round(coarse, 8, left)
    assert (fine[:, 0] >= 0.5).all()
    assert len(fine) == (everywhere[:, 0] >= 0.5).sum()
    assert samplers.second_round(coarse, 8, np.ones((80, 160), bool)).shape == (0, 2)


def test_hierarchical_asks_less_where_the_first_round_was_confident() -> None:
    image = np.zeros((80, 160, 3), np.uint8)
    prompts = []
    for high in (0.0, 1e9):
        trace = Trace()
        settings = Settings(pred_iou_thresh=0.0, stability_score_thresh=0.0, high_score_thresh=high)
        generate(ClosedForm(), image, parse_sampler("hierarchical_16"), settings, trace)
        prompts.append(trace.left["prompts"])
    assert prompts[0] < prompts[1] == 15 * 15


class Blobs(Variant):
    """Low-resolution logits like SAM's: 64x64, enlarged to 256, cut, resized; a disc around each point or box."""

    def encode_prepared(self, prepared: Any) -> list[Any]:
        return [image.shape[:2] for image in prepared]

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        scale = 64 / max(features)
        given = prompts.points[:, 0] if prompts.points is not None else prompts.boxes.reshape(-1, 2, 2).mean(axis=1)
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        centre = torch.from_numpy(np.asarray(given, dtype=np.float32)) * scale
        distance = torch.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None])
        radius = torch.tensor([20.0, 3.0, 6.0, 30.0])
        logits = 4 * (radius[None, :, None, None] - distance[:, None])
        scores = torch.tensor([0.5, 0.99, 0.97, 0.95]).expand(len(prompts), -1)
        crop = tuple(max(1, int(side * 256 / max(features) + 0.5)) for side in features)
        return MaskCandidates(
            logits,
            scores,
            (1, 2, 3),
            torch.zeros(len(prompts), dtype=torch.int64),
            Upsampling(size=features, frame=(256, 256), crop=crop),
        )


@pytest.mark.parametrize("size", [(1, 1), (200, 20000), (3, 2), (333, 500)])
def test_images_of_odd_sizes_give_masks_of_their_size(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    for name in ("grid_4", "hierarchical_8"):
        masks = generate(Blobs(), image, parse_sampler(name), Settings(stability_score_thresh=0.5))
        assert len(masks) > 0
        for counts, area, (x0, y0, x1, y1) in zip(masks.counts, masks.area, masks.boxes, strict=True):
            mask = decode_rle(size, counts)
            assert mask.shape == size
            assert mask.sum() == area
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert (x0, y0, x1, y1) == (columns[0], rows[0], columns[-1], rows[-1])


def test_slices_do_not_change_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    whole = generate(Blobs(), image, Sampler(GRID, 4), Settings(stability_score_thresh=0.5))
    monkeypatch.setitem(filters.SLICE_BYTES, "cpu", 1)
    sliced = generate(Blobs(), image, Sampler(GRID, 4), Settings(stability_score_thresh=0.5))
    assert list(whole.counts) == list(sliced.counts)


def test_boxes_give_one_mask_each_in_order_and_nothing_is_dropped() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    boxes = np.array([[10, 10, 30, 30], [10, 10, 30, 30], [50, 20, 70, 50]], dtype=np.float32)
    masks = generate(Blobs(), image, parse_sampler("object_aware"), boxes=boxes)
    np.testing.assert_array_equal(masks.prompts, boxes)
    assert masks.predicted_iou.tolist() == [0.5, 0.5, 0.5]  # the single-mask token, below every threshold
    assert masks.counts[0] == masks.counts[1] != masks.counts[2]
    assert len(generate(Blobs(), image, parse_sampler("object_aware"), boxes=np.zeros((0, 4)))) == 0


def test_masks_without_predicted_iou_are_judged_by_stability_alone() -> None:
    class Silent(Blobs):
        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            made = super().decode(features, prompts)
            return MaskCandidates(
                made.logits, torch.full_like(made.scores, torch.nan), made.multimask, made.single, made.upsampling
            )

    masks = generate(Silent(), np.zeros((60, 80, 3), np.uint8), Sampler(GRID, 4), Settings(stability_score_thresh=0.5))
    assert len(masks) > 0
    np.testing.assert_allclose(masks.scores, masks.stability)


def test_empty_masks_are_dropped_whatever_the_variant_says_of_them() -> None:
    class Half(Blobs):
        """Bool masks: full for points in the left half, empty for the others."""

        def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
            n = len(prompts)
            left = torch.from_numpy(prompts.points[:, 0, 0] < features[1] / 2)
            masks = left[:, None, None, None].expand(n, 1, *features)
            scores = torch.full((n, 1), torch.nan)
            return MaskCandidates(masks, scores, (0,), torch.zeros(n, dtype=torch.int64), Upsampling(features))

    image = np.zeros((60, 80, 3), np.uint8)
    masks = generate(Half(), image, Sampler(GRID, 4))
    assert (masks.area.tolist(), masks.stability.tolist()) == ([60 * 80], [1.0])
    trace = Trace()
    generate(Half(), image, parse_sampler("hierarchical_8"), trace=trace)
    assert trace.left["prompts"] == 4  # the first round covers everything


class Echo(Blobs):
    """To a mask prompt the single answer, the third token, is its logits plus 4."""

    takes_masks = True

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        made = super().decode(features, prompts)
        if prompts.masks is None:
            return replace(made, logits=made.logits * 10)
        assert prompts.masks.abs().max() <= 32
        self.chunks = [*getattr(self, "chunks", []), len(prompts)]
        logits = made.logits.clone()
        logits[:, 2] = prompts.masks + 4
        scores = torch.tensor([0.1, 0.2, 0.93, 0.3]).expand(len(prompts), -1)
        return replace(made, logits=logits, scores=scores, single=torch.full((len(prompts),), 2))


def test_m2m_puts_the_answer_to_each_candidate_in_its_place() -> None:
    image, settings = np.zeros((64, 64, 3), np.uint8), Settings(use_m2m=True, points_per_batch=3, box_nms_thresh=1.0)
    variant, trace = Echo(), Trace()
    masks = generate(variant, image, Sampler(GRID, 2), replace(settings, stability_score_thresh=0.0), trace)
    # Four points in chunks of three and one, three candidates each; all have the score of the second answer.
    assert (trace.left["prompts"], trace.left["candidates"]) == (4, 12)
    assert variant.chunks == [3, 3, 3, 1, 1, 1]
    np.testing.assert_allclose(masks.predicted_iou, 0.93)
    assert len(masks) == 12
    # The first answer, clamped, is what comes back with 4 added.
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    radius = torch.tensor([3.0, 6.0, 30.0])[:, None, None]
    low = (40 * (radius - torch.hypot(x - 16, y - 16))).clamp(-32, 32) + 4
    expected = Upsampling((64, 64), frame=(256, 256), crop=(256, 256)).masks(low).sum((1, 2))
    assert masks.area[(masks.prompts == [16, 16]).all(axis=1)].tolist() == expected.tolist()
    single = generate(Echo(), image, Sampler(GRID, 2), replace(settings, multimask_output=False))
    assert len(single) == 4
    with pytest.raises(InputError, match="masks as prompts"):
        generate(Blobs(), image, Sampler(GRID, 2), settings)


def test_a_sampler_that_does_not_fit_is_refused() -> None:
    class OnlyBoxes(Blobs):
        prompt_kinds = frozenset({BOX})

    image = np.zeros((6, 8, 3), np.uint8)
    with pytest.raises(InputError, match="point prompts"):
        generate(OnlyBoxes(), image, Sampler(GRID, 2))
    with pytest.raises(InputError, match="detector-style"):
        generate(OnlyBoxes(), image, parse_sampler("native"))


@pytest.mark.parametrize("name", ["grid", "grid_0", "hierarchical_3", "gird_32", "grid_1000", ""])
def test_unknown_samplers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="sampler"):
        parse_sampler(name)


MEMORY = """
import re, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from test_generator import Blobs
from sambench.allocator import keep_freed_memory
from sambench.evaluate.filters import Settings
from sambench.evaluate.generator import generate
from sambench.evaluate.samplers import Sampler

def mib(field):
    return int(re.search(rf"{field}:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

torch.set_num_threads(1)
keep_freed_memory()
settings = Settings(box_nms_thresh=1.0, stability_score_thresh=0.0)
clean = replace(settings, min_mask_region_area=100)
generate(Blobs(), np.zeros((30, 40, 3), np.uint8), Sampler("grid", 2), clean)
image = np.zeros((3000, 4000, 3), np.uint8)
before = mib("VmRSS")
cleaned = generate(Blobs(), image, Sampler("grid", 1), clean)
masks = generate(Blobs(), image, Sampler("grid", 6), settings)
print(len(cleaned), len(masks), mib("VmHWM") - before, sum(map(len, masks.counts)) / len(masks) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of the memory from /proc")
def test_masks_of_12_megapixels_need_little_memory(root: Any) -> None:
    """Only the result grows with the number of masks, so a hundred tell what a thousand need."""
    command = [sys.executable, "-c", MEMORY, str(root / "tests/unit")]
    cleaned, count, peak, each = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(cleaned) > 0
    assert int(count) == 108
    assert float(peak) + 1000 * float(each) < 2048


def test_time_of_a_stage_within_another_counts_once() -> None:
    ticks = iter([0.0, 1.0, 4.0, 9.0])
    trace = Trace(clock=lambda: next(ticks))
    with trace.measure("postprocess"), trace.measure("decode", within="postprocess"):
        pass
    assert trace.seconds == {"decode": 3.0, "postprocess": 6.0}
