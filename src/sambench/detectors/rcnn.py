"""Two-stage detectors as detectron2 computes them: anchors, deltas, pooling, heads, what is kept.

Not torchvision's own parts: its AnchorGenerator rounds, its MultiScaleRoIAlign is not aligned, and its
post-processing drops small boxes. `torchvision.ops.roi_align` and `batched_nms` are the same functions.

Boxes are x0, y0, x1, y1 in pixels of the network's input, sizes are (height, width).
Official code: detectron2/modeling (anchor_generator.py, box_regression.py, poolers.py, proposal_generator,
roi_heads/fast_rcnn.py, roi_heads/cascade_rcnn.py, postprocessing.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torchvision.ops import batched_nms, roi_align

from sambench.detectors.base import Detections

SCALE_CLAMP = math.log(1000 / 16)
CASCADE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
POOLED = 7  # cells of a box along each side


@dataclass(frozen=True)
class Keep:
    """What is kept of an image: pairs of box and class above `score`, suppressed within a class at `overlap`."""

    score: float
    overlap: float
    limit: int


@dataclass(frozen=True)
class Stage:
    """One pass of a box head over N boxes.

    pooled (N, C, 7, 7), features (N, F), logits (N, K + 1) with the background last, deltas (N, 4) or (N, 4K), and
    the boxes that they give, of the same shape, not cut at the edges.
    """

    pooled: torch.Tensor
    features: torch.Tensor
    logits: torch.Tensor
    deltas: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True)
class PaddedImage:
    """The padded input (1, 3, h, w) float32, the (height, width) of the image in it and of the original."""

    pixels: torch.Tensor
    size: tuple[int, int]
    original_size: tuple[int, int]


class NormedConv(nn.Conv2d):
    """A convolution without bias, then LayerNorm over the channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = LayerNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(super().forward(x))
        return normed


def anchors(size: tuple[int, int], stride: int, side: float, ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> torch.Tensor:
    """Boxes around every cell of a map of `size`, (h * w * R, 4) float32; the ratios are height to width.

    The centres are multiples of the stride, not the middles of the cells.
    """
    cells = []
    for ratio in ratios:
        width = math.sqrt(side**2 / ratio)
        cells.append([-width / 2, -width * ratio / 2, width / 2, width * ratio / 2])
    y, x = (torch.arange(count, dtype=torch.float32) * stride for count in size)
    grid = torch.stack([x.repeat(size[0]), y.repeat_interleave(size[1])] * 2, dim=1)
    return (grid[:, None] + torch.tensor(cells)).reshape(-1, 4)


def decode(deltas: torch.Tensor, boxes: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Move and scale boxes (N, 4) by deltas (N, 4k) -> (N, 4k)."""
    dx, dy, dw, dh = (deltas.unflatten(1, (-1, 4)) / deltas.new_tensor(weights)).unbind(2)
    low, high = boxes[:, :2], boxes[:, 2:]
    size = high - low
    (x, y), (w, h) = (low + 0.5 * size).split(1, dim=1), size.split(1, dim=1)
    x, y = dx * w + x, dy * h + y
    w, h = dw.clamp(max=SCALE_CLAMP).exp() * w, dh.clamp(max=SCALE_CLAMP).exp() * h
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], dim=2).flatten(1)


def clip(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut boxes (..., 4) at the edges of an image."""
    height, width = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def not_empty(boxes: torch.Tensor) -> torch.Tensor:
    """(N, 4) -> (N,) bool: boxes with an area."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def pool(maps: Sequence[torch.Tensor], first: int, boxes: torch.Tensor) -> torch.Tensor:
    """What lies under boxes (N, 4) of one image -> (N, C, 7, 7).

    maps: (1, C, h, w) of the strides 2**first, 2**(first + 1), ...; a box of 224 pixels belongs to the stride 16.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)).clamp(first, first + len(maps) - 1) - first
    pooled = boxes.new_zeros(len(boxes), maps[0].shape[1], POOLED, POOLED)
    for i, features in enumerate(maps):
        (chosen,) = torch.nonzero(level == i, as_tuple=True)
        if len(chosen):
            scale = 1 / 2 ** (first + i)
            pooled[chosen] = roi_align(features, [boxes[chosen]], POOLED, scale, sampling_ratio=0, aligned=True)
    return pooled


def propose(
    levels: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    size: tuple[int, int],
    limit: int = 1000,
    overlap: float = 0.7,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best boxes of a region proposal network for one image -> (M, 4) and their logits (M,), best first.

    levels: logits (A,), deltas (A, 4) and anchors (A, 4) of each. The best `limit` of each are suppressed among
    themselves; the best `limit` of all stay.
    """
    boxes, scores, origin = [], [], []
    for i, (logits, deltas, around) in enumerate(levels):
        best, index = logits.topk(min(limit, len(logits)))
        boxes.append(clip(decode(deltas[index], around[index], (1.0, 1.0, 1.0, 1.0)), size))
        scores.append(best)
        origin.append(torch.full_like(index, i))
    every, logits, level = torch.cat(boxes), torch.cat(scores), torch.cat(origin)
    good = not_empty(every) & every.isfinite().all(dim=1) & logits.isfinite()
    every, logits, level = every[good], logits[good], level[good]
    kept = batched_nms(every, logits, level, overlap)[:limit]
    return every[kept], logits[kept]


def best_boxes(
    boxes: torch.Tensor, scores: torch.Tensor, size: tuple[int, int], keep: Keep
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (N, 4) or, one for each class, (N, 4K), and scores (N, K + 1) of one image -> boxes, scores, classes."""
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    boxes, scores = boxes[finite].unflatten(1, (-1, 4)), scores[finite, :-1]
    boxes = clip(boxes, size)
    row, label = torch.nonzero(scores > keep.score, as_tuple=True)
    values = scores[row, label]
    found = boxes[row, label if boxes.shape[1] > 1 else 0]
    kept = batched_nms(found, values, label, keep.overlap)[: keep.limit]
    return found[kept], values[kept], label[kept]


def to_original(boxes: torch.Tensor, size: tuple[int, int], original: tuple[int, int]) -> torch.Tensor:
    """Boxes of the network's input (without padding) -> pixels of the original image, cut at its edges."""
    x, y = original[1] / size[1], original[0] / size[0]
    return clip(boxes * boxes.new_tensor([x, y, x, y]), original)


def detections(boxes: torch.Tensor, scores: torch.Tensor, image: PaddedImage, keep: Keep) -> Detections:
    """What is kept of boxes and scores, as `best_boxes` takes them, in pixels of the original image."""
    found, values, labels = best_boxes(boxes, scores, image.size, keep)
    found = to_original(found, image.size, image.original_size)
    good = not_empty(found)
    return Detections(
        found[good].double().cpu().numpy(), values[good].double().cpu().numpy(), labels[good].cpu().numpy()
    )
