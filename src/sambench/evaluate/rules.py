"""The rules of the two families of annotation files, apart from the code that applies them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """limits: most detections that are looked at, ascending: of an image and category (COCO), or of an image (LVIS)."""

    name: str
    limits: tuple[int, ...]
    federated: bool


COCO = Rules("COCO", (1, 10, 100), federated=False)
LVIS = Rules("LVIS", (300,), federated=True)
