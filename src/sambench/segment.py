"""Try a variant on one image: prompts in, a picture of the masks out."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from sambench.datasets.pictures import PERCENTILE
from sambench.errors import InputError
from sambench.evaluate.segany import enlarge
from sambench.files import atomic
from sambench.masks import decode_rle
from sambench.variants.base import Prompts, Variant

OPACITY = 0.5  # of a mask over the image


def check_prompts(prompts: Prompts, size: tuple[int, int]) -> None:
    """Raises InputError for a prompt that lies off the picture; size: height and width."""
    limits = np.array(size[::-1], dtype=np.float32)
    for name, found in (("--box", prompts.boxes), ("--point", prompts.points)):
        corners = np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)
        off = ((corners < 0) | (corners > limits)).any(axis=1)
        if off.any():
            x, y = corners[off.argmax()]
            expected = f"x from 0 to {size[1]} and y from 0 to {size[0]}, the size of the picture"
            raise InputError("segment", name, expected=expected, found=f"{x:g},{y:g}")


def check_output(path: Path) -> None:
    """Raises InputError for a name whose suffix is no picture's."""
    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError("segment", "--output", expected="a picture such as OUT.png", found=path)


def parse_numbers(text: str, count: int, field: str, form: str) -> list[float]:
    """`10,20.5` -> [10.0, 20.5]. Raises InputError when there are not `count` finite numbers."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise InputError("segment", field, expected=f"{form} in pixels", found=text)
    return values


def parse_range(text: str) -> str:
    """`--range` as pictures.View has it: empty, `percentile` or `LOW,HIGH`."""
    if text in ("", PERCENTILE):
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high or not np.isfinite([low, high]).all():
        raise InputError("segment", "--range", expected="percentile, or LOW,HIGH with LOW below HIGH", found=text)
    return f"{low},{high}"


def make_prompts(boxes: Sequence[str], points: Sequence[str], background: Sequence[str]) -> Prompts:
    """Prompts from command-line texts: each box is a prompt of its own, all points together are one prompt.

    One box may come with points: they then refine it.
    """
    edges = [parse_numbers(text, 4, "--box", "x0,y0,x1,y1") for text in boxes]
    for text, (x0, y0, x1, y1) in zip(boxes, edges, strict=True):
        if x1 <= x0 or y1 <= y0:
            raise InputError("segment", "--box", expected="x0 < x1 and y0 < y1", found=text)
    xy = [parse_numbers(text, 2, "--point", "x,y") for text in [*points, *background]]
    if xy and len(edges) > 1:
        raise InputError("segment", "--point", expected="at most one box beside points", found=f"{len(edges)} boxes")
    if not xy and not edges:
        raise InputError("segment", expected="--box, --point or --everything", found="none of them")
    return Prompts(
        boxes=np.array(edges, dtype=np.float32) if edges else None,
        points=np.array([xy], dtype=np.float32) if xy else None,
        labels=np.array([[1] * len(points) + [0] * len(background)]) if xy else None,
    )


def prompted_masks(
    variant: Variant, image: np.ndarray, prompts: Prompts, selection: str
) -> tuple[np.ndarray, np.ndarray]:
    """The masks that a selection rule takes, (N, H, W) bool, and their predicted IoU, (N,) float32.

    They are decoded in the chunks of the stage segany, so that many prompts need no more memory than few.
    """
    features, size = variant.encode([image])[0], (image.shape[0], image.shape[1])
    masks, scores = [], []
    for start in range(0, len(prompts), variant.decode_chunk):
        candidates = variant.decode(features, prompts[start : start + variant.decode_chunk])
        tokens = candidates.argmax() if selection == "argmax" else candidates.single
        wanted = torch.zeros_like(candidates.scores, dtype=torch.bool).scatter_(1, tokens[:, None], True)
        masks += [found.cpu().numpy() for _, _, found in enlarge(candidates, wanted, size)]
        scores.append(candidates.scores.gather(1, tokens[:, None])[:, 0].float().cpu().numpy())
    return np.concatenate(masks), np.concatenate(scores)


def all_masks(variant: Variant, image: np.ndarray, sampler: str) -> tuple[np.ndarray, np.ndarray]:
    """All masks of an image, (K, H, W) bool, and their predicted IoU. `sampler` is empty for the variant's own."""
    from sambench.evaluate.generator import generate
    from sambench.evaluate.samplers import parse_sampler

    own = "native" if hasattr(variant, "instances") else "grid_32"
    found = generate(variant, image, parse_sampler(sampler or own))
    size = image.shape[:2]
    masks = [decode_rle(size, counts) for counts in found.counts]
    return np.stack(masks) if masks else np.zeros((0, *size), dtype=bool), found.predicted_iou


def draw(image: np.ndarray, masks: Sequence[np.ndarray], prompts: Prompts | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB with each mask in a colour of its own, outlined, large masks below small ones.

    Boxes of the prompts are drawn as frames, positive points as filled green and negative ones as filled red dots.
    """
    picture = image.astype(np.float32)
    order = sorted(range(len(masks)), key=lambda k: -int(masks[k].sum()))
    outlines = []
    for k in order:
        # Steps of the golden ratio around the hue circle keep neighbours apart.
        colour = 255 * np.array(colorsys.hsv_to_rgb((0.6 + k * 0.618034) % 1, 0.85, 1.0), dtype=np.float32)
        picture[masks[k]] = (1 - OPACITY) * picture[masks[k]] + OPACITY * colour
        contours, _ = cv2.findContours(masks[k].astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outlines.append((contours, tuple(map(float, colour))))
    result = picture.round().astype(np.uint8)
    line = max(1, round(max(image.shape[:2]) / 600))
    for contours, edge in outlines:
        cv2.drawContours(result, contours, -1, edge, line)
    if prompts is not None and prompts.boxes is not None:
        for x0, y0, x1, y1 in prompts.boxes.round().astype(int).tolist():
            cv2.rectangle(result, (x0, y0), (x1, y1), (255, 255, 255), 2 * line)
    if prompts is not None and prompts.points is not None and prompts.labels is not None:
        for (x, y), label in zip(prompts.points[0].round().astype(int).tolist(), prompts.labels[0], strict=True):
            cv2.circle(result, (x, y), 5 * line, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(result, (x, y), 4 * line, (40, 200, 60) if label else (230, 40, 40), cv2.FILLED, cv2.LINE_AA)
    return result


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture atomically; the suffix decides the format."""
    check_output(path)
    with atomic(path) as temporary:
        Image.fromarray(picture).save(temporary)
