"""The clicker fixture: clicks of the official evaluation on COCO annotations and on tiny hand-made masks."""

from __future__ import annotations

import hashlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO

from sambench.clicks import first_click, next_click
from sambench.errors import InputError
from sambench.masks import decode_rle
from sambench.parity.fixtures import Report, Row, read_fixture, same

KERNEL = np.ones((3, 3), np.uint8)


def predictions(target: np.ndarray) -> list[np.ndarray]:
    """The three stand-ins for a network's masks that the fixture prescribes: eroded, dilated, shifted."""
    mask = target.astype(np.uint8)
    eroded, dilated = cv2.erode(mask, KERNEL, iterations=2), cv2.dilate(mask, KERNEL, iterations=4)
    return [eroded.astype(bool), dilated.astype(bool), np.roll(target, (3, 5), axis=(0, 1))]


def iou_percent(prediction: np.ndarray, target: np.ndarray) -> float:
    """The IoU of the official script, in per cent: zero for two empty masks."""
    return float((prediction & target).sum() / ((prediction | target).sum() + 1e-7)) * 100


def check(path: Path) -> Report:
    """A fixture with `records` (annotations of the COCO file it names, in ../data) and `tiny_cases`."""
    fixture = read_fixture(path)
    rows: list[Row] = []
    for case in fixture["tiny_cases"]:
        target, prediction = (np.array(case[name], dtype=bool) for name in ("gt", "pred"))
        rows.append(same("tiny cases", case["case"], list(next_click(target, prediction)), case["click"]))
        rows.append(_iou_row(case["case"], iou_percent(prediction, target), case["iou_percent"]))
    if fixture["records"]:
        coco = _annotations(path.parent.parent / "data" / fixture["annotations"])
        for record in fixture["records"]:
            rows += _record_rows(coco, record)
    return Report(path, tuple(rows))


def _annotations(path: Path) -> COCO:
    if not path.is_file():
        raise InputError(path, expected="the annotations of the clicker fixture", found="no such file")
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def _record_rows(coco: COCO, record: dict[str, Any]) -> list[Row]:
    what = f"annotation {record['ann_id']}"
    rle = coco.annToRLE(coco.anns[record["ann_id"]])
    target = decode_rle(rle["size"], rle["counts"])
    digest = hashlib.sha256(np.packbits(target, axis=None).tobytes()).hexdigest()
    rows = [same("masks", f"{what} sha256", digest, record["gt_sha256"])]
    rows.append(same("clicks", f"{what} first click", [*first_click(target), 1], record["first_click"]))
    clicks: list[tuple[int, int, int]] = []
    for prediction in [np.zeros_like(target), *predictions(target)]:
        clicks.append(next_click(target, prediction, [click[:2] for click in clicks]))
    rows.append(same("clicks", f"{what} clicks", [list(click) for click in clicks], record["clicks"]))
    for prediction, expected in zip(predictions(target), record["iou_percent"], strict=True):
        rows.append(_iou_row(what, iou_percent(prediction, target), expected))
    return rows


def _iou_row(what: str, found: float, expected: float) -> Row:
    return Row("iou", f"{what} (percentage points)", abs(found - expected), 1e-5)
