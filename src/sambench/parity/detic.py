"""Detic against its official code: maps, centres, the box heads on boxes of a closed form, detections."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.detectors.detic import RUNS_WITHOUT, DeticDetector, build_detic
from sambench.detectors.images import resize
from sambench.errors import InputError
from sambench.parity.detections import MAPS, PREPROCESS, closed_form_boxes, final_rows, list_rows, score_row, stage_rows
from sambench.parity.fixtures import (
    Report,
    Row,
    block_row,
    fixture_image,
    probe_rows,
    read_fixture,
    same,
    weight,
    weights,
)
from sambench.variants.base import Runtime


def check(path: Path) -> Report:
    """A fixture whose `model` is `detic/...`; the input's size and the classes are those of its `official`."""
    fixture = read_fixture(path)
    image, rows = fixture_image(fixture)
    state = weights(fixture)
    rows += probe_rows(fixture, state)
    masks = sum(value.numel() for key, value in state.items() if ".mask_head." in key and RUNS_WITHOUT.match(key))
    detector = build(fixture)
    detector.load_official(state, str(path))
    del state
    parameters = sum(parameter.numel() for parameter in detector.module.parameters()) + masks
    rows.append(same("weights", "parameters, mask head included", parameters, fixture["params_total"]))
    # The classifier's vectors are drawn like a weight, as columns.
    shape = fixture["official"]["classifier"]["shape"]
    detector.exchange_classes(weight("classifier", shape, "float32", fixture["seed"]).T)
    rows.append(
        block_row("weights", "classifier", fixture["results"]["classifier"], detector.module.classifier, PREPROCESS)
    )
    with torch.inference_mode():
        return Report(path, tuple(rows + network_rows(fixture["results"], detector, image)))


def build(fixture: Mapping[str, Any]) -> DeticDetector:
    """The detector that the fields `model` and `official` describe."""
    model, overrides = fixture["model"], str(fixture["official"]["overrides"])
    backbone = re.search(r"swin_([a-z]+)", model)
    shapes = {"b": "base", "l": "large", "t": "tiny", "s": "small"}
    if backbone is None or backbone[1] not in shapes:
        raise InputError("fixture", "model", expected="detic/swin_ and a size", found=model)
    short, longest = (re.search(rf"{name}_SIZE_TEST=(\d+)", overrides) for name in ("MIN", "MAX"))
    detector = build_detic(
        Runtime(device="cpu"),
        shapes[backbone[1]],
        short=int(short[1]) if short else 800,
        longest=int(longest[1]) if longest else 1333,
    )
    detector.name = model
    return detector


def network_rows(results: Mapping[str, Any], detector: DeticDetector, image: Any) -> list[Row]:
    """Everything from the resized image to the boxes in its pixels."""
    network, prepared = detector.module, detector.prepare(image)
    size = prepared.size
    digest = hashlib.sha256(resize(image, size).tobytes()).hexdigest()
    rows = [
        same("preprocess", "size", list(size), results["image_size_in_network"]),
        same("preprocess", "resized sha256", digest, results["resized"]["sha256"]),
        block_row("preprocess", "pixels", results["preprocess"], prepared.pixels, PREPROCESS),
    ]
    seen: list[Any] = []
    hook = network.backbone.bottom_up.register_forward_hook(lambda module, given, output: seen.append(output))
    maps = network.backbone(prepared.pixels)
    hook.remove()
    for (name, block), features in zip(results["swin"].items(), seen[0].feature_maps, strict=True):
        rows.append(block_row("backbone", name, block, features, MAPS))
    for level, (features, (name, block)) in enumerate(zip(maps, results["fpn"].items(), strict=True)):
        rows.append(block_row("pyramid", name, block, features, MAPS))
        heat, sides = network.proposal_generator["centernet_head"](features, level)
        rows.append(block_row("proposals", f"centres {name}", results["agn_hm"][name], heat, MAPS))
        rows.append(block_row("proposals", f"sides {name}", results["reg"][name], sides, MAPS))
    boxes, objectness = network.proposals(maps)
    record = results["proposals"]
    rows.append(same("proposals", "count", len(boxes), record["n"]))
    rows += list_rows("proposals", "boxes", record, boxes, objectness, None)
    rows.append(score_row("proposals", "scores", record["scores_block"], objectness))
    count = results["roi_closed_form_boxes"]["n"]
    closed = torch.from_numpy(0.2 + 0.79 * ((17 * np.arange(count)) % count) / count).float()
    for what, given, values in (
        ("roi_closed_form_boxes", closed_form_boxes(count, *size), closed),
        ("roi_proposals", boxes, objectness),
    ):
        record, stages = results[what], network.stages(maps, given, size)
        scores = network.scores(stages, values)
        if "stages" in record:
            rows += stage_rows(record, stages, scores)
        stage = f"detections, {what.removeprefix('roi_').replace('_', ' ')}"
        rows += final_rows(stage, record, stages[-1].boxes, scores, size, prepared.original_size)
    return rows
