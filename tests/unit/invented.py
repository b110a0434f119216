"""INVENTED numbers, to lay out reports and figures with: nothing here was measured, no result may come from here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

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
