"""Detector-style variants: YOLO's -seg networks and FastSAM find all instances of an image, a prompt then selects.

Networks and suppression are those of the package `ultralytics`, which is AGPL-3.0 and therefore an optional extra: it
is imported nowhere else in sambench, and here only when a variant is built. So are letterbox, boxes and masks of
YOLOv8-seg; those of FastSAM follow the older version that FastSAM ships (letterbox.py).

Selection follows FastSAM's fastsam/prompt.py, one mask per prompt in the order of the prompts. The official
`box_prompt` returns the masks of a Python set instead, where order and pairing are lost.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from sambench.errors import BadWeights, InputError
from sambench.variants.base import BOX, POINT, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.letterbox import boxes_on_image, letterbox, masks_on_image
from sambench.variants.neural import NeuralVariant

SNAP = 20  # FastSAM: a box side nearer than this to the border of the network's input is moved onto the border
FULL_FRAME_IOU = 0.9  # FastSAM: a box that overlaps the whole input more than this becomes the whole input


@cache
def ultralytics() -> SimpleNamespace:
    """The parts of ultralytics in use, imported without the traces that the import would leave.

    It writes a settings file into the home, asks the network whether it is online, sets OMP_NUM_THREADS to 1
    for every later process, switches OpenCV's threads off, changes how numpy and torch print, and puts
    functions of its own instead of torch.save and PIL.Image.open.
    """
    settings = tempfile.TemporaryDirectory(prefix="sambench-ultralytics-")
    os.environ.setdefault("YOLO_CONFIG_DIR", settings.name)
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    threads, save, opener = cv2.getNumThreads(), torch.save, Image.open
    environment, printing = dict(os.environ), np.get_printoptions()
    try:
        with warnings.catch_warnings():
            from ultralytics.data.augment import LetterBox
            from ultralytics.nn.tasks import DetectionModel, SegmentationModel, torch_safe_load
            from ultralytics.utils import nms, ops
    finally:
        cv2.setNumThreads(threads)
        np.set_printoptions(**printing)
        torch.set_printoptions(profile="default")
        torch.save, Image.open = save, opener
        os.environ.clear()
        os.environ.update(environment)
    return SimpleNamespace(
        DetectionModel=DetectionModel,
        LetterBox=LetterBox,
        SegmentationModel=SegmentationModel,
        torch_safe_load=torch_safe_load,
        non_max_suppression=nms.non_max_suppression,
        process_mask_native=ops.process_mask_native,
        scale_boxes=ops.scale_boxes,
        settings=settings,  # the folder lives as long as the package
    )


def read_pickled_model(path: Path) -> Any:
    """The model in a `.pt` file of ultralytics, its averaged weights where it has them.

    Only classes of torch.nn and ultralytics.nn are rebuilt (weights_only=True). Raises InputError for anything else.
    """
    try:
        checkpoint, _ = ultralytics().torch_safe_load(path, safe_only=True)
        model = checkpoint.get("ema") or checkpoint["model"]
    except Exception as error:  # pickles fail in as many ways as there are bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, expected="a checkpoint of ultralytics", found=reason) from error
    if not isinstance(model, torch.nn.Module):
        found = f"{type(model).__name__} as its model"
        raise InputError(path, expected="a checkpoint of ultralytics", found=found)
    return model


@dataclass(frozen=True)
class LetterboxedImage:
    """A letterboxed image: (h, w, 3) uint8 RGB, and the (height, width) it came from."""

    image: np.ndarray
    original_size: tuple[int, int]


@dataclass(frozen=True)
class Instances:
    """All K instances of one image, best score first, on the device.

    masks: (K, H, W) bool at the size of the image. boxes: (K, 4) float32 xyxy in its pixels.
    scores: (K,) float32, the detector's confidence. categories: (K,) int64, index of the class.
    """

    masks: torch.Tensor
    boxes: torch.Tensor
    scores: torch.Tensor
    categories: torch.Tensor


def select_by_box(masks: torch.Tensor, boxes: np.ndarray) -> torch.Tensor:
    """For each box the mask with the largest |mask ∩ box| / |mask ∪ box|, the first of equals: (N,) int64.

    masks: (K, H, W) bool, K > 0. boxes: (N, 4) xyxy in pixels of the masks.

    FastSAM's rule: corners are rounded (half to even) and clipped to the image before anything is counted. A
    box that no mask touches gets the first mask, as there. The official code clips x0, y0 below and x1, y1
    above only, which makes boxes that lie outside of the image negative; here they are empty.
    """
    height, width = masks.shape[-2:]
    corners = np.rint(boxes.astype(np.float64)).clip(0, [width, height, width, height]).astype(np.int64)
    pixels = masks.view(torch.uint8)  # sums several times faster than bool
    areas = pixels.sum(dim=(1, 2), dtype=torch.int32)
    chosen = []
    for x0, y0, x1, y1 in corners.tolist():
        inside = pixels[:, y0:y1, x0:x1].sum(dim=(1, 2), dtype=torch.int32)
        union = max(0, x1 - x0) * max(0, y1 - y0) + areas - inside
        chosen.append(torch.argmax(inside / union.clamp(min=1)))
    return torch.stack(chosen) if chosen else areas.new_zeros(0, dtype=torch.int64)


def unite_by_points(masks: torch.Tensor, points: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """For each prompt the union of the masks that its positive points hit, less those of its negative points.

    masks: (K, H, W) bool. points: (N, P, 2) xy in pixels of the masks, cut to whole pixels. labels: (N, P).
    Returns (N, H, W) bool.

    FastSAM's rule in full: masks are laid on one another from the largest to the smallest. A mask that the
    prompt hits paints its pixels into the result, or wipes them out when the last of the prompt's points in
    it is a negative one; smaller masks thus overrule larger ones, and the order of the points counts.
    """
    height, width = masks.shape[-2:]
    order = torch.argsort(masks.sum(dim=(1, 2)), descending=True, stable=True)
    result = torch.zeros((len(points), height, width), dtype=torch.bool, device=masks.device)
    x, y = (torch.as_tensor(points[..., axis].astype(np.int64), device=masks.device) for axis in (0, 1))
    hits = masks[:, y.clamp(0, height - 1), x.clamp(0, width - 1)].permute(1, 0, 2)  # (N, K, P)
    for prompt, (hit, row) in enumerate(zip(hits.tolist(), labels.tolist(), strict=True)):
        for k in order.tolist():
            inside = [label for label, contained in zip(row, hit[k], strict=True) if contained and label >= 0]
            if inside:
                result[prompt] = result[prompt] | masks[k] if inside[-1] == 1 else result[prompt] & ~masks[k]
    return result


class YoloSegVariant(NeuralVariant):
    """A -seg network of YOLOv8 or one of its successors with one mask per prompt.

    size: the longer side of the network's input; the image keeps its shape and is padded with grey to
        multiples of 32, so inputs of several images differ in shape and are encoded one by one.
    confidence, overlap, limit: the threshold of the score, of the suppression's box IoU, and most instances.
    end_to_end: take the head that gives each object one box (YOLO26), without suppression.

    Masks are those of `retina_masks=True`: cut to the detection's box, at the size of the image. The
    predictor of ultralytics drops instances whose mask is empty; here they stay (and win no prompt that
    another mask touches).
    Scores of candidates are NaN: a confidence is no predicted IoU. It stays in `Instances.scores`.
    """

    module: Any
    prompt_kinds = frozenset({BOX, POINT})

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
        super().__init__(self.library.SegmentationModel(config, nc=classes, verbose=False), runtime)
        self.end_to_end = end_to_end
        if end_to_end:
            self.module.end2end = True
            self.module.model[-1].max_det = limit
        self.classes, self.size = classes, size
        self.confidence, self.overlap, self.limit = confidence, overlap, limit
        self.letterbox = self.library.LetterBox(size, auto=True, stride=32)
        self.decode_chunk = 64  # a decode looks at every instance, whatever the number of prompts

    def load_files(self, paths: Sequence[Path]) -> None:
        """A state dict with ultralytics' own keys, or the pickled model that it publishes.

        Of the pickle only classes of torch.nn and ultralytics.nn are rebuilt (weights_only=True); anything
        else in it is refused. Raises InputError then.
        """
        (path,) = paths
        try:
            super().load_files(paths)
            return
        except BadWeights:
            raise
        except InputError as error:
            # A pickled model needs its classes, or is read with them where an earlier one has made torch know them;
            # anything else that cannot be read stays refused.
            signs = ("needs to run ultralytics.", "needs to run torch.nn.", "found a mapping with model")
            if not any(sign in str(error) for sign in signs):
                raise
        self.load_official(read_pickled_model(path).float().state_dict(), str(path))

    def keep_float32(self) -> None:
        # Box sides are expectations over 16 bins; in bf16 their sum with the anchor would be off by pixels.
        dfl = self.module.model[-1].dfl.float()
        dfl.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))

    def compile(self) -> None:
        self.module.compile()

    def prepare(self, image: np.ndarray) -> LetterboxedImage:
        return LetterboxedImage(self.letterbox(image=image), image.shape[:2])

    def pixels(self, prepared: LetterboxedImage) -> torch.Tensor:
        x = self.on_device(torch.tensor(prepared.image)).permute(2, 0, 1)[None].contiguous()
        return x.float().div_(255)

    def sizes(self, prepared: LetterboxedImage) -> tuple[tuple[int, int], tuple[int, int]]:
        return prepared.original_size, prepared.image.shape[:2]

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, h, w) -> what the head gives for A anchors.

        predictions: (B, 4 + classes + 32, A), xywh in pixels, class scores, mask coefficients; end to end (B, limit,
            6 + 32), xyxy, score, class, mask coefficients.
        prototypes: (B, 32, h / 4, w / 4).
        """
        (predictions, prototypes), _ = self.module(pixels)
        return {"predictions": predictions, "prototypes": prototypes}

    def adjust(self, boxes: torch.Tensor, frame: tuple[int, int]) -> None:
        """Change the kept boxes (K, 4), xyxy in pixels of the network's input of size `frame`, in place."""

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[LetterboxedImage]) -> list[Any]:
        return [self.instances(image) for image in prepared]

    def instances(self, prepared: LetterboxedImage) -> Instances:
        """The network, suppression, and the masks at the size of the image."""
        maps = self.image_embedding(self.pixels(prepared).to(self.dtype))
        (kept,) = self.library.non_max_suppression(
            maps["predictions"].float(),
            self.confidence,
            self.overlap,
            max_det=self.limit,
            nc=self.classes,
            end2end=self.end_to_end,
        )
        size, frame = self.sizes(prepared)
        boxes, scores, categories, coefficients = kept.split((4, 1, 1, kept.shape[1] - 6), dim=1)
        boxes = boxes.clone()
        self.adjust(boxes, frame)
        boxes, masks = self.on_image(boxes, maps["prototypes"][0].float(), coefficients, frame, size)
        return Instances(masks, boxes, scores[:, 0], categories[:, 0].long())

    def on_image(
        self,
        boxes: torch.Tensor,
        prototypes: torch.Tensor,
        coefficients: torch.Tensor,
        frame: tuple[int, int],
        size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (K, 4) of the network's input -> boxes (K, 4) and masks (K, H, W) bool on the image.

        prototypes: (32, h / 4, w / 4). coefficients: (K, 32). frame, size: (height, width) of input and image.
        """
        boxes = self.library.scale_boxes(frame, boxes, size)
        return boxes, self.library.process_mask_native(prototypes, coefficients, boxes, size).bool()

    @torch.inference_mode()
    def decode(self, features: Instances, prompts: Prompts) -> MaskCandidates:
        masks = features.masks
        n, (height, width) = len(prompts), masks.shape[-2:]
        if not len(masks):
            selected = masks.new_zeros((n, height, width))
        elif prompts.boxes is not None:
            selected = masks[select_by_box(masks, prompts.boxes)]
        else:
            assert prompts.points is not None and prompts.labels is not None
            selected = unite_by_points(masks, prompts.points, prompts.labels)
        return MaskCandidates(
            logits=selected[:, None],
            scores=torch.full((n, 1), torch.nan, device=self.device),
            multimask=(0,),
            single=torch.zeros(n, dtype=torch.int64, device=self.device),
            upsampling=Upsampling(size=(height, width)),
        )


class FastSamVariant(YoloSegVariant):
    """FastSAM (arXiv 2306.12156): YOLOv8-seg with one class, "object".

    What its predictor does beyond YOLOv8's: kept boxes are moved onto the border of the network's input where
    they are within 20 pixels of it (padding included, after the suppression), and one that then covers more
    than 90 % of the input becomes all of it. Masks are cut to these boxes, so both change masks.

    Padding, cropping and enlarging are those of the ultralytics that it ships.
    """

    def __init__(self, runtime: Runtime, **arguments: Any) -> None:
        super().__init__(runtime, **arguments)
        self.letterbox = partial(letterbox, side=self.size)

    def on_image(
        self,
        boxes: torch.Tensor,
        prototypes: torch.Tensor,
        coefficients: torch.Tensor,
        frame: tuple[int, int],
        size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = boxes_on_image(boxes, frame, size)
        return boxes, masks_on_image(prototypes, coefficients, boxes, size)

    def adjust(self, boxes: torch.Tensor, frame: tuple[int, int]) -> None:
        height, width = frame
        for side, limit in ((0, width), (1, height)):
            boxes[boxes[:, side] < SNAP, side] = 0
            boxes[boxes[:, side + 2] > limit - SNAP, side + 2] = limit
        # Coordinates may stick out of the input, hence the intersection with it.
        whole = boxes.new_tensor([0, 0, width, height])
        inside = (boxes[:, 2:].minimum(whole[2:]) - boxes[:, :2].maximum(whole[:2])).clamp(min=0).prod(dim=1)
        union = width * height + (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) - inside
        boxes[inside / union > FULL_FRAME_IOU] = whole


def build_yolo_seg(runtime: Runtime, **arguments: Any) -> YoloSegVariant:
    """A -seg network of YOLOv8, YOLO11 or YOLO26, trained on COCO, with the thresholds of ultralytics' predictor."""
    defaults = {"classes": 80, "size": 640, "confidence": 0.25, "overlap": 0.7, "limit": 300}
    return YoloSegVariant(runtime, **{**defaults, **arguments})


def build_fastsam(runtime: Runtime, **arguments: Any) -> FastSamVariant:
    """FastSAM with the settings of its README (and the 300 instances of ultralytics' predictor)."""
    defaults = {"classes": 1, "size": 1024, "confidence": 0.4, "overlap": 0.9, "limit": 300}
    return FastSamVariant(runtime, **{**defaults, **arguments})
