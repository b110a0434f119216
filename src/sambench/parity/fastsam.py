"""FastSAM against its official code: raw outputs of the network, instances, selection by prompts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.errors import InputError
from sambench.parity.fixtures import (
    Report,
    Row,
    block_row,
    fixture_image,
    formula_image,
    probe_rows,
    read_fixture,
    same,
    weights,
)
from sambench.variants.base import Runtime

RAW = 2e-5  # of the largest value, as the fixtures' README recommends
DECODED = 2e-5
# The instances come out of a suppression among 15,000 random candidates: rounding swaps neighbours in the
# ranking and moves pixels over the threshold, so they are compared as sets, and some may find no partner.
BOX_PIXELS = 0.1
UNMATCHED = 0.05
AREA = 0.01
CONFIGS = {"fastsam_s": "yolov8s-seg.yaml", "fastsam_x": "yolov8x-seg.yaml"}


def check(path: Path) -> Report:
    """Compare with `fastsam_s.json`, `fastsam_x.json` or `fastsam_prompt.json`.

    Raises InputError when it is none of these or when the package ultralytics is not installed.
    """
    fixture = read_fixture(path)
    try:
        rows = prompt_rows(fixture) if "cases" in fixture else network_rows(fixture)
    except ModuleNotFoundError as error:
        raise no_ultralytics(path, error) from error
    return Report(path, tuple(rows))


def check_sizes(path: Path) -> Report:
    """Compare with `fastsam_odd_sizes.json`: odd paddings, with the weights of the fixture that it names.

    Raises InputError when that one does not lie beside it or the package ultralytics is not installed.
    """
    fixture = read_fixture(path)
    rows = side_rows(fixture)
    weights_fixture = read_fixture(path.with_name(Path(fixture["weights"].split()[1]).name))
    try:
        rows += size_rows(fixture, weights(weights_fixture))
    except ModuleNotFoundError as error:
        raise no_ultralytics(path, error) from error
    return Report(path, tuple(rows))


def no_ultralytics(path: Path, error: ModuleNotFoundError) -> InputError:
    """The message where the extra is not installed."""
    return InputError(
        path,
        expected="the package ultralytics",
        found=f"no module {error.name}",
        remedy="pip install 'sambench[yolo]'",
    )


def closed_form(frame: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (4, 4) of an input of size `frame`, coefficients (4, 4) and prototypes (4, h / 4, w / 4), for side_rows."""
    height, width = frame
    fractions = [[0, 0, 1, 1], [0.101, 0.203, 0.707, 0.611], [0.33, 0.05, 0.9, 0.95], [-0.02, 0.4, 0.51, 1.03]]
    boxes = torch.tensor(fractions, dtype=torch.float64) * torch.tensor([width, height, width, height])
    coefficients = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.5, -0.5, 0.25, 1]])
    channel = torch.arange(4, dtype=torch.float64)[:, None, None]
    y, x = torch.arange(height // 4, dtype=torch.float64)[:, None], torch.arange(width // 4, dtype=torch.float64)
    prototypes = torch.sin(0.05 * (channel + 1) * x + 0.03 * (channel + 2) * y + channel)
    return boxes.float(), coefficients, prototypes.float()


def side_rows(fixture: Mapping[str, Any]) -> list[Row]:
    """Letterbox, boxes and masks alone, without a network, at sizes of both orientations."""
    from sambench.variants.letterbox import boxes_on_image, letterbox, masks_on_image

    rows = []
    for case in fixture["sides"]:
        size, expected = (case["height"], case["width"]), case["letterbox"]
        what = "{} x {}".format(*size)
        padded = letterbox(formula_image(*size), 1024)
        frame = (padded.shape[0], padded.shape[1])
        rows.append(same("letterbox", f"{what} shape", list(frame), expected["shape"]))
        digest = hashlib.sha256(np.ascontiguousarray(padded).tobytes()).hexdigest()
        rows.append(same("letterbox", f"{what} sha256", digest, expected["sha256"]))
        boxes, coefficients, prototypes = closed_form(frame)
        found = boxes_on_image(boxes, frame, size)
        error = (found - torch.tensor(case["boxes"])).abs().max()
        rows.append(Row("boxes", f"{what} (pixels)", float(error), 1e-3))
        areas = masks_on_image(prototypes, coefficients, found, size).sum(dim=(1, 2))
        rows.append(
            Row("masks", f"{what} area (pixels)", float((areas - torch.tensor(case["mask_area"])).abs().max()), 2)
        )
    return rows


def size_rows(fixture: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> list[Row]:
    """The first instances of the official list against all of ours, at each size."""
    from sambench.variants.yolo import build_fastsam

    limit = max(case["detections"]["n"] for case in fixture["instances"])
    variant = build_fastsam(Runtime(device="cpu"), config=CONFIGS[fixture["model"]], limit=limit)
    variant.load_official(state, fixture["model"])
    variant.to_runtime()
    rows = []
    for case in fixture["instances"]:
        image, digest = fixture_image({"input": case})
        (found,) = variant.encode([image])
        rows += digest + instance_rows(case["detections"], found.boxes, found.scores, found.masks)
    return rows


def network_rows(fixture: Mapping[str, Any]) -> list[Row]:
    """Weights, input, raw heads, decoded and fused predictions, instances."""
    from sambench.variants.yolo import build_fastsam

    name = fixture["model"]
    if name not in CONFIGS:
        raise InputError("fixture", "model", expected=" or ".join(CONFIGS), found=name)
    image, rows = fixture_image(fixture)
    results, state = fixture["results"], weights(fixture)
    rows += probe_rows(fixture, state)
    variant = build_fastsam(Runtime(device="cpu"), config=CONFIGS[name], limit=results["detections"]["n"])
    variant.load_official(state, str(name))
    variant.to_runtime()
    parameters = sum(parameter.numel() for parameter in variant.module.parameters())
    rows.append(same("weights", "parameters", parameters, fixture["params_total"]))

    prepared = variant.prepare(image)
    with torch.inference_mode():
        pixels = variant.pixels(prepared)
        rows.append(block_row("preprocess", "pixels", results["preprocess"], pixels, 1e-6))
        (decoded, prototypes), heads = variant.module(pixels)
        found = {"mask_coeff": heads["mask_coefficient"], "proto": prototypes}
        # ultralytics joins the levels; the fixture has them apart, boxes before class.
        joined = torch.cat([heads["boxes"], heads["scores"]], dim=1)
        sizes = [feature.shape[-2:] for feature in heads["feats"]]
        levels = joined.split([height * width for height, width in sizes], dim=2)
        for i, (level, size) in enumerate(zip(levels, sizes, strict=True)):
            found[f"head{i}"] = level.unflatten(2, size)
        for what, tensor in found.items():
            rows.append(block_row("raw", what, results["raw"][what], tensor, RAW))
        rows.append(block_row("decoded", "predictions", results["raw"]["decoded"], decoded, DECODED))
        candidates = int((decoded[:, 4] > variant.confidence).sum())
        difference = abs(candidates - results["conf_gt_0_4"]) / results["conf_gt_0_4"]
        rows.append(Row("decoded", "candidates over the threshold", difference, 1e-3))
        variant.module.fuse(verbose=False)
        fused = variant.module(pixels)[0][0]
        block = results["fused_conv_bn"]["decoded_fused"]
        rows.append(block_row("fused", "predictions", block, fused, DECODED))
        instances = variant.instances(prepared)
    return rows + instance_rows(results["detections"], instances.boxes, instances.scores, instances.masks)


def instance_rows(
    expected: Mapping[str, Any], boxes: torch.Tensor, scores: torch.Tensor, masks: torch.Tensor
) -> list[Row]:
    """Instances against the official list, each with the nearest of ours by box."""
    reference = torch.tensor(expected["boxes_xyxy"])
    distance, partner = (reference[:, None] - boxes[None]).abs().amax(dim=2).min(dim=1)
    matched = distance <= BOX_PIXELS
    areas = torch.tensor(expected["mask_area"])[matched].double()
    area_error = (masks.sum(dim=(1, 2))[partner][matched] - areas).abs() / areas.clamp(min=100)
    score_error = (scores[partner] - torch.tensor(expected["conf"]))[matched].abs()
    return [
        same("instances", "count", len(boxes), expected["n"]),
        same("instances", "mask shape", list(masks.shape), expected["mask_shape"]),
        Row("instances", "share without a partner", 1 - float(matched.float().mean()), UNMATCHED),
        Row("instances", "score, absolute", largest(score_error), 1e-4),
        Row("instances", "mask area, relative", largest(area_error), AREA),
    ]


def largest(errors: torch.Tensor) -> float:
    """The largest error; infinite where nothing could be compared."""
    return float(errors.max()) if len(errors) else math.inf


def prompt_rows(fixture: Mapping[str, Any]) -> list[Row]:
    """Selection by boxes and by points among twelve ellipses, at the size of the image and at half of it.

    Our masks are always as large as the image. Where the official masks are smaller it scales the prompt and
    cuts it to integers first; that is done here.
    """
    from sambench.variants.yolo import select_by_box, unite_by_points

    rows = []
    for case in fixture["cases"]:
        height, width = case["mask_hw"]
        what = f"{case['name']} {height}x{width}"
        masks = ellipses(height, width, fixture["q"])
        areas = fixture["mask_areas"][f"{height}x{width}"]
        rows.append(same("masks", what, masks.sum(dim=(1, 2)).tolist(), areas))
        scale = np.array([width / case["image_hw"][1], height / case["image_hw"][0]])
        if case["kind"] == "box":
            boxes = np.array(case["boxes"], dtype=np.float64)
            if (scale != 1).any():
                boxes = np.trunc(boxes * np.tile(scale, 2))
            # The official list is a set; ours has an entry per box.
            chosen = select_by_box(masks, boxes).tolist()
            rows.append(same("box", what, sorted(set(chosen)), sorted(case["returned_mask_index"])))
            rows.append(same("box", f"{what} pairing", len(chosen), len(boxes)))
            for box, index in zip(boxes, chosen, strict=True):
                rows.append(same("box", f"{what} pairing", select_by_box(masks, box[None]).tolist(), [index]))
        else:
            points = np.array([case["points"]], dtype=np.float64) * scale
            union = unite_by_points(masks, points, np.array([case["labels"]]))[0].numpy()
            rows.append(same("point", f"{what} area", int(union.sum()), case["area"]))
            digest = hashlib.sha256(np.packbits(union, axis=None).tobytes()).hexdigest()
            rows.append(same("point", f"{what} sha256", digest, case["sha256"]))
    return rows


def ellipses(height: int, width: int, q: int) -> torch.Tensor:
    """The closed-form masks of the fixture: (12, height, width) bool."""
    u, v = np.arange(width, dtype=np.float64)[None], np.arange(height, dtype=np.float64)[:, None]
    masks = []
    for i in range(12):
        x = width * ((37 * i + 11 * q) % 97 + 2) / 100
        y = height * ((53 * i + 29 * q) % 89 + 5) / 100
        a = width * (0.08 + 0.06 * ((7 * i + q) % 6))
        b = height * (0.08 + 0.06 * ((5 * i + q) % 5))
        masks.append(((u - x) / a) ** 2 + ((v - y) / b) ** 2 <= 1)
    return torch.from_numpy(np.stack(masks))
