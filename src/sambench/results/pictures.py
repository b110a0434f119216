"""The instances on which two sides differ most, as a page of pictures: image, prompt and ground truth."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from sambench import records
from sambench.datasets.pictures import read_image, view_of
from sambench.jobs import Job, instances_file
from sambench.masks import decode_rle
from sambench.parquet import read_parquet
from sambench.results import paired
from sambench.results.finished import Finished

SIDE = 320  # pixels of a picture's longer side
MARGIN = 0.5  # of the larger side of the instance's box, around it
TRUTH, PROMPT = (46, 204, 113), (255, 64, 64)  # red, green, blue

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 1.5rem }
figure { margin: 0 } img { max-width: 100% } figcaption { font-size: 13px }
"""


def page(study: Finished, most: pd.DataFrame, names: tuple[str, str]) -> str:
    """HTML that needs no other file. most: rows of `decide.most_different`, whose images are still where they were when
    the study ran; names: of the first and the second."""
    figures = []
    for dataset, rows in most.groupby("dataset", sort=False):
        images = read_parquet(Path(f"{study.results}/datasets/{dataset}/images.parquet"), records.IMAGES).to_pandas()
        truth = read_parquet(Path(instances_file(study.results, str(dataset))), records.INSTANCES).to_pandas()
        images, truth = images.set_index("image_id", drop=False), truth.set_index("annotation_id", drop=False)
        for row in rows.to_dict("records"):
            image, instance = images.loc[row["image_id"]], truth.loc[row["annotation_id"]]
            pixels = read_image(image["path"], image["width"], image["height"], view_of(image))
            picture = drawn(pixels, instance, prompt_of(study, str(dataset), row["prompt"], row["annotation_id"]))
            words = [f"{row['category']}, {row['prompt']}", str(row["label"]) if row["label"] else ""]
            words += [f"{names[0]} {row['first']:.1f}, {names[1]} {row['second']:.1f} ({row['difference']:+.1f})"]
            words += [f"{dataset}, image {row['image_id']}, annotation {row['annotation_id']}"]
            caption = "<br>".join(html.escape(word) for word in words if word)
            alt = html.escape(f"{row['category']} in image {row['image_id']}, outlined")
            data = base64.b64encode(jpeg(picture)).decode()
            image_tag = f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'
            figures.append(f"<figure>{image_tag}<figcaption>{caption}</figcaption></figure>")
    title = html.escape(f"{names[1]} against {names[0]}: the instances that differ most")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>Green: ground truth; red: prompt; numbers: IoU in %.</p><main>{''.join(figures)}</main></body></html>\n"
    )


def prompt_of(study: Finished, dataset: str, prompt: str, annotation: int) -> dict[str, Any]:
    """The row of the prompts' file: `points` and `box`, None where there is none."""
    group = next(group for group, name in paired.prompt_sets(study.plan, dataset) if name == prompt)
    file = Path(Job(dataset, "", "", group).prompts_file(study.results))
    rows = read_parquet(file, records.PROMPTS, where=("prompt", prompt)).to_pandas()
    found: dict[str, Any] = rows[rows["annotation_id"] == annotation].iloc[0].to_dict()
    return found


def window_of(instance: Any, size: tuple[int, int], least: int = 0) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1: the part of an image of `size` (height, width) around an instance, a row of records.INSTANCES.

    least: pixels of its longer side at least, as far as the image has them.
    """
    height, width = size
    longer = max(instance["w"], instance["h"])
    margin = max(MARGIN * max(longer, 16), (least - longer) / 2)
    left, top = (int(max(0, instance[side] - margin)) for side in ("x", "y"))
    right = int(min(width, instance["x"] + instance["w"] + margin + 1))
    bottom = int(min(height, instance["y"] + instance["h"] + margin + 1))
    return left, top, right, bottom


def size_of(window: Sequence[int], side: int) -> tuple[int, int]:
    """Width and height of a picture of a window whose longer side has so many pixels."""
    left, top, right, bottom = window
    scale = side / max(right - left, bottom - top)
    return max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))


def part_of(pixels: np.ndarray, window: Sequence[int], side: int) -> np.ndarray:
    """A window of an image, (H, W, 3) uint8 or of a mask (H, W) uint8, as a picture of `size_of`."""
    left, top, right, bottom = window
    part, size = np.ascontiguousarray(pixels[top:bottom, left:right]), size_of(window, side)
    how = cv2.INTER_NEAREST if part.ndim == 2 else cv2.INTER_AREA if size[0] < right - left else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=how))


def outline(mask: np.ndarray) -> Sequence[np.ndarray]:
    """The contours of a mask (H, W) uint8, of holes too, (n, 1, 2) int32 x, y each."""
    return cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]


def placed(values: Any, window: Sequence[int], side: int) -> np.ndarray:
    """Points x, y, ... of an image -> (n, 2) int64 in the picture of a window."""
    left, top, right, bottom = window
    scale = side / max(right - left, bottom - top)
    return np.rint((np.asarray(values, dtype=float).reshape(-1, 2) - (left, top)) * scale).astype(int)


def drawn(pixels: np.ndarray, instance: Any, prompt: dict[str, Any]) -> np.ndarray:
    """The part of an image around an instance, (h, w, 3) uint8 RGB, with its outline and its prompt.

    instance: a row of records.INSTANCES. prompt: `points` (x, y, ...) and `box` (x0, y0, x1, y1), pixels or None.
    """
    window = window_of(instance, pixels.shape[:2])
    canvas = part_of(pixels, window, SIDE)
    mask = decode_rle(instance["rle_size"], instance["rle_counts"]).astype(np.uint8)
    cv2.drawContours(canvas, outline(part_of(mask, window, SIDE)), -1, TRUTH, 2)
    if prompt["box"] is not None:
        (x0, y0), (x1, y1) = placed(prompt["box"], window, SIDE).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), PROMPT, 1)
    if prompt["points"] is not None:
        for x, y in placed(prompt["points"], window, SIDE).tolist():
            cv2.circle(canvas, (x, y), 5, PROMPT, -1)
    return canvas


def jpeg(pixels: np.ndarray, quality: int = 85) -> bytes:
    """RGB pixels as the bytes of a JPEG file."""
    return bytes(cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
