"""What the fixtures of detectors share: lists of boxes compared as sets, and boxes of a closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sambench.detectors.rcnn import Keep, Stage, best_boxes, clip, not_empty, to_original
from sambench.parity.fixtures import Row, block_row, same

PREPROCESS, MAPS, HEADS = 1e-6, 2e-5, 5e-5  # of the largest value, as the fixtures' README recommends
SCORES = 1e-4  # absolute
# Neighbours in a ranking swap, and decisions of a suppression at its threshold flip, by rounding alone.
PIXELS, UNMATCHED = 0.05, 0.02


def list_rows(
    stage: str,
    what: str,
    expected: Mapping[str, Any],
    boxes: torch.Tensor | np.ndarray,
    scores: torch.Tensor | np.ndarray,
    classes: torch.Tensor | np.ndarray | None,
) -> list[Row]:
    """Detections (K, 4), (K,), (K,) against an official list, as sets of box, score and class.

    expected: `boxes` (N, 4), `scores`, `classes`; the list may be cut after N rows, so that ours may have more.
    """
    theirs = torch.as_tensor(np.asarray(expected["boxes"], dtype=np.float64)).reshape(-1, 4)
    ours = torch.as_tensor(np.asarray(boxes, dtype=np.float64)).reshape(-1, 4)
    if len(ours) == 0 or len(theirs) == 0:
        return [same(stage, f"{what} count", len(ours), len(theirs))]
    gap = (torch.as_tensor(np.asarray(scores, np.float64)) - torch.tensor(expected["scores"]).double()[:, None]).abs()
    distance = (theirs[:, None] - ours[None]).abs().amax(dim=2)
    # A partner has the same class, and the score decides among boxes that coincide.
    fits = (distance <= PIXELS) & (gap <= SCORES)
    if classes is not None:
        fits &= torch.as_tensor(np.asarray(classes))[None] == torch.tensor(expected["classes"])[:, None]
    missing = float((~fits.any(dim=1)).double().mean())
    return [Row(stage, f"{what} share without a partner", missing, UNMATCHED)]


def score_row(stage: str, what: str, block: Mapping[str, Any], scores: torch.Tensor) -> Row:
    """Scores against a block, absolute."""
    row = block_row(stage, what, block, scores, SCORES)
    scale = max(abs(block["min"]), abs(block["max"])) or 1.0
    return Row(stage, f"{row.what} (absolute)", row.error * scale, SCORES)


def closed_form_boxes(count: int, height: int, width: int) -> torch.Tensor:
    """The boxes that take the place of proposals, (count, 4) x0, y0, x1, y1 float32 inside the image."""
    i = np.arange(count, dtype=np.int64)
    x = width * ((37 * i + 11) % 97 + 0.5) / 97
    y = height * ((53 * i + 29) % 89 + 0.5) / 89
    w = 12 * 2.0 ** (((7 * i) % 23) / 4)
    h = 12 * 2.0 ** (((11 * i) % 19) / 3.5)
    on_a_level = i % 16 == 5  # sides at which a pooler's choice of level is a close decision
    side = np.array([112.0, 224.0, 448.0])[(i // 16) % 3]
    w, h = np.where(on_a_level, side, w), np.where(on_a_level, side, h)
    x, y = np.where(on_a_level, width / 2, x), np.where(on_a_level, height / 2, y)
    boxes = torch.from_numpy(np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)).float()
    return clip(boxes, (height, width))


def sorted_labels_row(stage: str, what: str, found: Sequence[int], expected: Sequence[int]) -> Row:
    """The share of labels that two lists do not have in common, whatever their order."""
    size = 1 + max([*found, *expected], default=0)
    counts = [np.bincount(np.asarray(labels, np.int64), minlength=size) for labels in (found, expected)]
    return Row(stage, what, float(np.abs(counts[0] - counts[1]).sum()) / 2 / max(1, len(expected)), UNMATCHED)


def stage_rows(record: Mapping[str, Any], stages: Sequence[Stage], scores: torch.Tensor) -> list[Row]:
    """What the heads of a two-stage detector make of the boxes of a closed form, row by row."""
    rows = [same("box heads", "stages", len(stages), len(record["stages"]))]
    for i, (stage, blocks) in enumerate(zip(stages, record["stages"], strict=False)):
        for name, found in (
            ("pooled", stage.pooled),
            ("head", stage.features),
            ("cls_logits", stage.logits),
            ("deltas", stage.deltas),
            ("boxes", stage.boxes),
        ):
            rows.append(block_row("box heads", f"{name} {i}", blocks[name], found, HEADS))
    rows.append(score_row("box heads", "scores", record["scores"], scores))
    return rows


def final_rows(
    stage: str,
    record: Mapping[str, Any],
    boxes: torch.Tensor,
    scores: torch.Tensor,
    size: tuple[int, int],
    original: tuple[int, int],
) -> list[Row]:
    """What is kept of boxes and scores (N, K + 1) of one image of `size` in the network, against an official list."""
    given, expected = record["thresholds"], record["detections"]
    keep = Keep(given["score"], given["nms"], given["topk"])
    candidates = int((scores[:, :-1] > keep.score).sum())
    official = record["candidates_over_threshold"]
    rows = [Row(stage, "candidates, relative", abs(candidates - official) / max(1, official), UNMATCHED)]
    found, values, labels = best_boxes(boxes, scores, size, keep)
    moved = to_original(found, size, original)
    good = not_empty(moved)
    for name, mine, chosen, count in (
        ("boxes_network", found, torch.ones_like(good), expected["n"]),
        ("boxes_original", moved, good, expected["n_original"]),
    ):
        rows.append(Row(stage, f"{name} count", abs(int(chosen.sum()) - count) / max(1, count), UNMATCHED))
        if expected.get(name):
            listed = len(expected[name])
            lists = {"boxes": expected[name], **{key: expected[key][:listed] for key in ("scores", "classes")}}
            rows += list_rows(stage, name, lists, mine[chosen], values[chosen], labels[chosen])
    return rows
