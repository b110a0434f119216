"""YOLOv8, YOLO11 and YOLO26 as detectors, by the package `ultralytics` (AGPL-3.0, an extra).

Network, letterbox and suppression are its own.

The package itself is imported by sambench.variants.yolo alone, and there only when a network is built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.classes import coco_names
from sambench.detectors.random_weights import randomize
from sambench.errors import InputError
from sambench.variants.base import Runtime
from sambench.variants.loading import is_safetensors, read_checkpoint
from sambench.variants.strict import load_strictly
from sambench.variants.yolo import LetterboxedImage, read_pickled_model, ultralytics


class YoloDetector(BoxDetector):
    """YOLOv8 or one of its successors, with or without a mask head.

    size: the longer side of the network's input; the image keeps its shape and is padded with grey to multiples of 32.
    confidence, overlap, limit: threshold of the score and of the suppression's box IoU, most boxes of an image. A box
        may stand for several classes, as in the validation of ultralytics.
    end_to_end: take the head that gives each object one box (YOLO26), without suppression.
    """

    def __init__(
        self,
        runtime: Runtime,
        config: str,
        classes: int,
        size: int,
        confidence: float,
        overlap: float,
        limit: int,
        end_to_end: bool = False,
    ) -> None:
        self.library = ultralytics()
        network = self.library.SegmentationModel if config.endswith("-seg.yaml") else self.library.DetectionModel
        self.module: Any = network(config, nc=classes, verbose=False).eval().requires_grad_(False)
        self.end_to_end = end_to_end
        if end_to_end:
            self.module.end2end = True
            self.module.model[-1].max_det = limit
        self.device = runtime.torch_device()
        self.classes, self.confidence, self.overlap, self.limit = classes, confidence, overlap, limit
        self.letterbox = self.library.LetterBox(size, auto=True, stride=32)
        self.names: list[str] = []

    def load_files(self, paths: Sequence[Path]) -> None:
        """The pickled model that ultralytics publishes (`.pt`), or a state dict with `names` in its metadata."""
        (path,) = paths
        if path.is_file() and not is_safetensors(path):
            model = read_pickled_model(path)
            state, names = model.float().state_dict(), list(dict(model.names).values())
        else:
            state, names = read_checkpoint(path), _names(path)
        if len(names) != self.classes:
            found = f"{len(names)} names"
            raise InputError(path, "names", expected=f"{self.classes} classes, as the card has it", found=found)
        load_strictly(self.module, dict, state, str(path), self.name)
        self.names = names
        self.module.eval().to(self.device)

    def start_random(self) -> None:
        names = coco_names()
        if len(names) != self.classes:
            raise InputError(self.name, "arguments", expected="the 80 classes of COCO", found=f"{self.classes} classes")
        randomize(self.module, loud=(".2.weight",))
        self.names = names
        self.module.eval().to(self.device)

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        return self.names

    def prepare(self, image: np.ndarray) -> LetterboxedImage:
        return LetterboxedImage(self.letterbox(image=image), image.shape[:2])

    def shape(self, prepared: LetterboxedImage) -> Hashable:
        return prepared.image.shape

    @torch.inference_mode()
    def detect(self, prepared: Sequence[LetterboxedImage]) -> list[Detections]:
        pixels = torch.from_numpy(np.stack([each.image for each in prepared])).to(self.device)
        output, _ = self.module(pixels.permute(0, 3, 1, 2).contiguous().float().div_(255))
        kept = self.library.non_max_suppression(
            output[0] if isinstance(output, tuple) else output,  # a mask head adds its prototypes
            self.confidence,
            self.overlap,
            multi_label=True,
            max_det=self.limit,
            nc=self.classes,
            end2end=self.end_to_end,
            max_time_img=math.inf,  # by default it gives up on a slow machine and leaves images without boxes
        )
        found = []
        for rows, each in zip(kept, prepared, strict=True):
            boxes = self.library.scale_boxes(each.image.shape[:2], rows[:, :4].clone(), each.original_size)
            values = [value.cpu().numpy() for value in (boxes.double(), rows[:, 4].double(), rows[:, 5].long())]
            found.append(Detections(*values))
        return found


def _names(path: Path) -> list[str]:
    """The list `names` in the metadata of a safetensors file; empty when there is none."""
    if not is_safetensors(path):
        return []
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    names: list[str] = json.loads(metadata.get("names", "[]"))
    return names


def build_yolo(runtime: Runtime, **arguments: Any) -> YoloDetector:
    """YOLOv8, YOLO11 or YOLO26 as trained on COCO, with the thresholds of ultralytics' validation."""
    defaults = {"classes": 80, "size": 640, "confidence": 0.001, "overlap": 0.7, "limit": 300}
    return YoloDetector(runtime, **{**defaults, **arguments})
