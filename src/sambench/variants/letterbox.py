"""FastSAM's way from an image to the network's input and back, in the arithmetic of the code that it ships.

Official code: ultralytics 8.0.120 as it lies in the FastSAM repository, ultralytics/yolo/data/augment.py (LetterBox)
and ultralytics/yolo/utils/ops.py (scale_boxes, process_mask_native). Later versions of ultralytics round elsewhere:
where the padding is odd, as on most images of COCO (427 -> 448 rows at half the size), boxes and masks differ.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

GREY = (114, 114, 114)
PIXELS_AT_ONCE = 32_000_000  # float32 logits at the size of the image that may exist at once


def letterbox(image: np.ndarray, side: int, stride: int = 32) -> np.ndarray:
    """Scale the longer side of an (H, W, 3) uint8 image to `side`; pad the other with grey to a multiple of `stride`.

    Half of the padding lies on each side; of an odd number the pixel more lies at the bottom or right.
    """
    height, width = image.shape[:2]
    gain = min(side / height, side / width)
    # At least a pixel: the official code fails on an image 2,048 times longer than wide.
    new_height, new_width = max(1, round(height * gain)), max(1, round(width * gain))
    if (new_height, new_width) != (height, width):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    half_y, half_x = (side - new_height) % stride / 2, (side - new_width) % stride / 2
    top, bottom = round(half_y - 0.1), round(half_y + 0.1)
    left, right = round(half_x - 0.1), round(half_x + 0.1)
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=GREY)


def boxes_on_image(boxes: torch.Tensor, frame: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """(K, 4) xyxy in pixels of the network's input -> in pixels of the image, cut to it.

    frame, size: (height, width) of the input and of the image. Both axes have one gain, and padding in whole pixels.
    """
    gain, pad_y, pad_x = _gain_and_padding(frame, size)
    pad_y, pad_x = round(pad_y - 0.1), round(pad_x - 0.1)
    height, width = size
    shifted = (boxes - boxes.new_tensor([pad_x, pad_y, pad_x, pad_y])) / gain
    return shifted.maximum(shifted.new_zeros(4)).minimum(shifted.new_tensor([width, height, width, height]))


def masks_on_image(
    prototypes: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Masks of K instances, (K, H, W) bool at the `size` (height, width) of the image, cut to their boxes.

    prototypes: (C, h, w) with the padding of the network's input. coefficients: (K, C). boxes: (K, 4) on the image.

    The padding is cut off the prototypes, at positions truncated to whole cells, and what is left is enlarged once.
    """
    height, width = prototypes.shape[1:]
    _, pad_y, pad_x = _gain_and_padding((height, width), size)
    top, left = int(pad_y), int(pad_x)
    # At least a cell, which the official code does not see to.
    bottom, right = max(int(height - pad_y), top + 1), max(int(width - pad_x), left + 1)
    low = (coefficients @ prototypes.flatten(1)).unflatten(1, (height, width))[:, top:bottom, left:right]
    masks = torch.empty((len(low), *size), dtype=torch.bool, device=low.device)
    step = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
    for start in range(0, len(low), step):
        part = slice(start, start + step)
        logits = F.interpolate(low[None, part], size, mode="bilinear", align_corners=False)[0]
        masks[part] = (logits > 0) & inside_boxes(boxes[part], size)
    return masks


def inside_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(K, H, W) bool: pixels whose whole-number position lies in x0 <= x < x1 and y0 <= y < y1."""
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    y = torch.arange(size[0], device=boxes.device, dtype=boxes.dtype)[:, None]
    x = torch.arange(size[1], device=boxes.device, dtype=boxes.dtype)
    return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)


def _gain_and_padding(frame: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float]:
    """From the image to the frame: the gain of both axes, and half of the padding as y, x in fractions of a pixel."""
    gain = min(frame[0] / size[0], frame[1] / size[1])
    return gain, (frame[0] - size[0] * gain) / 2, (frame[1] - size[1] * gain) / 2
