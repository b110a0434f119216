"""INVENTED numbers, to lay out reports and figures with: nothing here was measured, no result may come from here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.gallery.pictures import QUALITY, SIDE
from sambench.gallery.view import of_dataset
from sambench.masks import encode_rle
from sambench.results.pictures import jpeg, part_of
from sambench.results.table import Table, typed

RULES = ("argmax", "single", "oracle")
BOXES, POINTS = ("box", "tight_box", "noisy_box"), ("box_center", "mask_center", "random_1", "random_3", "random_5")
VALUES: dict[str, Sequence[Any]] = {
    "prompt": BOXES,
    "selection": RULES,
    "detector": ("invented_detector",),
    "sampler": ("grid_16", "grid_32"),
    "boxes": (1, 10, 20, 30, 40, 50),
    "batch": (1, 2, 4, 8),
    "part": ("encoder", "decoder"),
    "protocol": ("invented clicks",),
    "clicks": (1, 2, 3, 5),
}
WORDS = {"status": "ok", "device": "INVENTED MACHINE", "weights": "invented", "decoder": "fast", "rules": "COCO"}
WITHOUT_WEIGHTS = 5  # of the variants, the last ones


def names(count: int) -> list[str]:
    return [f"invented_variant_{number:02}" for number in range(1, count + 1)]


def invent(table: Table, variants: Sequence[str], datasets: Sequence[str], runtimes: Sequence[str]) -> pd.DataFrame:
    """Rows of a table of the registry: every combination of its key, each number drawn at random around one that grows
    with the variant."""
    axes: dict[str, Sequence[Any]] = {"variant": variants, "dataset": datasets, "runtime": runtimes, **VALUES}
    if table.name == "accuracy_points":
        axes["prompt"] = POINTS
    keys = [name for name in (*table.key, "selection") if name in table.schema.names]
    known = [name for name in dict.fromkeys(keys) if name in axes]
    random = np.random.default_rng(len(table.name))
    lines = []
    for values in itertools.product(*(axes[name] for name in known)):
        line: dict[str, Any] = dict(zip(known, values, strict=True))
        place = variants.index(line["variant"]) / len(variants) if "variant" in line else 0.5
        absent = place >= 1 - WITHOUT_WEIGHTS / len(variants)
        for field in table.schema:
            if field.name not in line:
                line[field.name] = _cell(field, line, place, absent, random)
        lines.append(line)
    frame = typed(lines, table.schema)
    if "best" in frame:
        frame["best"] = frame["batch"] == 8
    return frame


def _cell(field: pa.Field, line: dict[str, Any], place: float, absent: bool, random: np.random.Generator) -> Any:
    name = field.name
    if pa.types.is_string(field.type):
        prompts = {"box_prompt": "box", "point_prompt": "mask_center"}
        words = WORDS | prompts | ({"status": "no weights"} if absent else {})
        return words.get(name, "invented")
    if pa.types.is_boolean(field.type):
        return False
    if pa.types.is_map(field.type):
        return [] if absent else [("invented", 40 + 20 * place + random.normal())]
    if pa.types.is_integer(field.type):
        return 4 if name == "threads" else 1000
    if not pa.types.is_floating(field.type) or absent:
        return None
    if name.endswith(("_low", "_high")):
        stem = name.rpartition("_")[0]
        middle = line.get(stem, line.get(f"{stem}_ms"))
        return None if middle is None else middle * (0.98 if name.endswith("_low") else 1.02)
    if name.endswith("_ms") or name in ("p50", "p90", "ms_per_image"):
        boxes = line.get("boxes", 1) if name.startswith("cumulative") else 1
        return 20 * 60**place * (1 + 0.05 * boxes) * random.uniform(0.8, 1.2)
    if name.endswith(("_m", "_g", "_mb", "_mib")):
        return 10 * 60**place * random.uniform(0.8, 1.2)
    if "img_s" in name:
        return 40 / 60**place * random.uniform(0.8, 1.2)
    if name == "box_ap":
        return 40.0
    rule = {"single": 1, "oracle": 5}.get(line.get("selection", ""), 0)
    size = {"miou_small": -15, "miou_large": 10}.get(name, 0)
    return 55 + 20 * place + rule + size + random.normal(scale=2)


def invent_gallery(variants: Sequence[str], dataset: str, runtimes: Sequence[str], count: int = 6) -> dict[str, Any]:
    """Noise with ellipses on it, as many masks as there are variants and runtimes; the last variants have none."""
    random = np.random.default_rng(len(dataset))
    height, width = 480, 640
    y, x = np.mgrid[:height, :width]

    def ellipse(wobble: float) -> np.ndarray:
        angle = np.arctan2(y - 240, x - 320)
        edge = 1 + wobble * np.sin(9 * angle + 7 * wobble) + 0.02 * random.normal(size=(height, width))
        return np.asarray(np.hypot((x - 320) / 200, (y - 240) / 150) < edge)

    window, size = [80, 60, 560, 420], [height, width]
    picks = []
    for at in range(count):
        noise = random.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        boxed = at % 2 == 0
        picks.append(
            {
                "annotation_id": 100 + at,
                "image_id": 10 + at,
                "area": 90000.0,
                "window": window,
                "category": "invented <b>thing</b>",
                "reason": "INVENTED",
                "prompt": "box" if boxed else "mask_center",
                "rle_size": size,
                "rle_counts": encode_rle(ellipse(0.0)),
                "box": np.array([120.0, 90.0, 520.0, 390.0]) if boxed else None,
                "points": None if boxed else np.array([320.0, 240.0, 200.0, 100.0]),
                "labels": None if boxed else np.array([1, 0]),
                "picture": jpeg(part_of(pixels, window, SIDE), QUALITY),
            }
        )
    shapes = [encode_rle(ellipse(0.02 * step)) for step in range(10)]
    masks, states = {}, {}
    for place, variant in enumerate(variants):
        absent = place >= len(variants) - WITHOUT_WEIGHTS
        for runtime in runtimes:
            refused = [place == 0 and pick["box"] is None for pick in picks]
            status = ["no weights" if absent else "unsupported prompt" if no else "ok" for no in refused]
            masks[variant, runtime] = pd.DataFrame(
                {
                    "status": status,
                    "iou": 1 - random.uniform(0, 0.5, count),
                    "rle_size": [size] * count,
                    "rle_counts": [shapes[(place + at) % len(shapes)] for at in range(count)],
                }
            )
            states[variant, runtime] = "no weights" if absent else "ok"
    return of_dataset(dataset, pd.DataFrame(picks), masks, states)
