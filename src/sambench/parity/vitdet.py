"""ViTDet against detectron2: maps, proposals, the box heads on boxes of a closed form, detections."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sambench.detectors.images import resize
from sambench.detectors.rcnn import anchors
from sambench.detectors.vitdet import RUNS_WITHOUT, SIDES, SIZES, STRIDES, VitDetDetector, build_vitdet
from sambench.errors import InputError
from sambench.parity.detections import MAPS, PREPROCESS, closed_form_boxes, final_rows, list_rows, stage_rows
from sambench.parity.fixtures import Report, Row, block_row, fixture_image, probe_rows, read_fixture, same, weights
from sambench.variants.base import Runtime


def check(path: Path) -> Report:
    """A fixture whose `model` is `vitdet/...`; size, head and input are those of its `official`."""
    fixture = read_fixture(path)
    image, rows = fixture_image(fixture)
    state = weights(fixture)
    rows += probe_rows(fixture, state)
    unused = sum(value.numel() for key, value in state.items() if RUNS_WITHOUT.match(key))
    detector = build(fixture)
    detector.load_official(state, str(path))
    del state
    parameters = sum(parameter.numel() for parameter in detector.module.parameters()) + unused
    rows.append(same("weights", "parameters, mask head included", parameters, fixture["params_total"]))
    with torch.inference_mode():
        return Report(path, tuple(rows + network_rows(fixture["results"], detector, image)))


def build(fixture: Mapping[str, Any]) -> VitDetDetector:
    """The detector that the field `official` describes, without weights."""
    official = fixture["official"]
    blocks = tuple(official["global_blocks"])
    size = next((name for name, each in SIZES.items() if each.width == official["embed_dim"]), None)
    if size is None or SIZES[size].whole != blocks:
        expected = "global blocks of ViT-B, L or H"
        raise InputError("fixture", "official", expected=expected, found=f"{official['embed_dim']}, {blocks}")
    dataset = "lvis" if official["sigmoid"] else "coco"
    detector = build_vitdet(Runtime(device="cpu"), size, dataset, official["cascade"], official["square"])
    detector.name = fixture["model"]
    return detector


def network_rows(results: Mapping[str, Any], detector: VitDetDetector, image: Any) -> list[Row]:
    """Everything from the resized image to the boxes in its pixels."""
    network, prepared = detector.module, detector.prepare(image)
    size = prepared.size
    digest = hashlib.sha256(resize(image, size).tobytes()).hexdigest()
    rows = [
        same("preprocess", "size", list(size), results["image_size_in_network"]),
        same("preprocess", "resized sha256", digest, results["resized"]["sha256"]),
        block_row("preprocess", "pixels", results["preprocess"], prepared.pixels, PREPROCESS),
    ]
    seen: list[torch.Tensor] = []
    hook = network.backbone.net.register_forward_hook(lambda module, given, output: seen.append(output))
    maps = network.backbone(prepared.pixels)
    hook.remove()
    rows.append(block_row("backbone", "last_feat", results["last_feat"], seen[0], MAPS))
    for features, stride, side, (name, block) in zip(maps, STRIDES, SIDES, results["pyramid"].items(), strict=True):
        rows.append(block_row("pyramid", name, block, features, MAPS))
        logits, deltas = network.proposal_generator["rpn_head"](features)
        rows.append(block_row("proposals", f"objectness {name}", results["rpn_objectness"][name], logits, MAPS))
        rows.append(block_row("proposals", f"deltas {name}", results["rpn_deltas"][name], deltas, MAPS))
        rows += anchor_rows(name, results["anchors"][name], anchors(tuple(features.shape[2:]), stride, side))
    boxes, logits = network.proposals(maps, size)
    record = results["proposals"]
    rows.append(same("proposals", "count", len(boxes), record["n"]))
    expected = {"boxes": record["boxes"], "scores": record["logits"]}
    rows += list_rows("proposals", "boxes", expected, boxes, logits, None)
    for what, given in (
        ("roi_closed_form_boxes", closed_form_boxes(results["roi_closed_form_boxes"]["n"], *size)),
        ("roi_rpn_boxes", boxes),
    ):
        record, stages = results[what], network.stages(maps, given, size)
        scores = network.scores(stages)
        if "stages" in record:
            rows += stage_rows(record, stages, scores)
        stage = f"detections, {what.removeprefix('roi_').replace('_', ' ')}"
        rows += final_rows(stage, record, stages[-1].boxes, scores, size, prepared.original_size)
    return rows


def anchor_rows(name: str, expected: Mapping[str, Any], found: torch.Tensor) -> list[Row]:
    """Anchors of one level: their number, the first and the last ones, in pixels."""
    rows = [same("anchors", f"{name} shape", list(found.shape), expected["shape"])]
    first, last = (torch.tensor(expected[key]) for key in ("first", "last"))
    error = max(float((found[: len(first)] - first).abs().max()), float((found[-len(last) :] - last).abs().max()))
    return [*rows, Row("anchors", f"{name} (pixels)", error, 1e-3)]
