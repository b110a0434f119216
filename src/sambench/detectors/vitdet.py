"""ViTDet: Mask R-CNN and Cascade Mask R-CNN on a plain vision transformer, boxes only (the mask head is left out).

Paper: arXiv 2203.16527. Official code: detectron2/modeling/backbone/vit.py and projects/ViTDet/configs of
https://github.com/facebookresearch/detectron2. The blocks are those of segment-anything, which took them from there.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block, PatchEmbed
from torch import nn

from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.classes import coco_names, lvis_names
from sambench.detectors.images import detectron_size, normalize, resize
from sambench.detectors.random_weights import randomize
from sambench.detectors.rcnn import (
    CASCADE_WEIGHTS,
    POOLED,
    Keep,
    NormedConv,
    PaddedImage,
    Stage,
    anchors,
    clip,
    decode,
    detections,
    pool,
    propose,
)
from sambench.errors import InputError
from sambench.variants.arrays import read_arrays
from sambench.variants.base import Runtime
from sambench.variants.fast import fuse_attention
from sambench.variants.loading import read_checkpoint
from sambench.variants.neural import renamer
from sambench.variants.sam import PIXEL_MEAN, PIXEL_STD
from sambench.variants.strict import load_strictly

WIDTH = 256  # channels of the pyramid
STRIDES = (4, 8, 16, 32, 64)
SIDES = (32.0, 64.0, 128.0, 256.0, 512.0)  # of the anchors of each level

RULES = (
    (r"\.mlp\.fc(\d)\.", r".mlp.lin\1."),
    # Mask R-CNN has one head, which has no number.
    (r"^roi_heads\.(box_head|box_predictor)\.(?!\d)", r"roi_heads.\1.0."),
)
# The mask head is not needed for boxes; means of pixels are constants here.
RUNS_WITHOUT = re.compile(r"roi_heads\.mask_head\.|pixel_(mean|std)$")
rename = renamer(RULES, [RUNS_WITHOUT.pattern])


@dataclass(frozen=True)
class Size:
    """A plain vision transformer: width, blocks, heads, and the blocks whose attention sees the whole image."""

    width: int
    depth: int
    heads: int
    whole: tuple[int, ...]


SIZES = {
    "b": Size(768, 12, 12, (2, 5, 8, 11)),
    "l": Size(1024, 24, 16, (5, 11, 17, 23)),
    "h": Size(1280, 32, 16, (7, 15, 23, 31)),
}


class PlainTransformer(nn.Module):
    """Pixels (B, 3, s, s) -> the last feature map (B, C, s/16, s/16), without a class token and without a last norm."""

    def __init__(self, size: Size, side: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(embed_dim=size.width)
        # Of the pre-training at 224 pixels; the first one belonged to a class token.
        self.pos_embed = nn.Parameter(torch.zeros(1, 14 * 14 + 1, size.width))
        self.blocks = nn.ModuleList(
            Block(
                size.width,
                size.heads,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=0 if i in size.whole else 14,
                input_size=(side // 16, side // 16),
            )
            for i in range(size.depth)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(pixels)
        grid = self.pos_embed[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=x.shape[1:3], mode="bicubic", align_corners=False)
        x = x + grid.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)


class Pyramid(nn.Module):
    """The transformer and the simple feature pyramid: pixels -> maps (B, 256, h, w) of the strides 4 to 64."""

    def __init__(self, size: Size, side: int) -> None:
        super().__init__()
        c = size.width
        self.net = PlainTransformer(size, side)
        up = nn.ConvTranspose2d(c, c // 2, 2, stride=2), nn.ConvTranspose2d(c, c // 2, 2, stride=2)
        self.simfp_2 = nn.Sequential(
            up[0], LayerNorm2d(c // 2), nn.GELU(), nn.ConvTranspose2d(c // 2, c // 4, 2, stride=2), *_level(c // 4)
        )
        self.simfp_3 = nn.Sequential(up[1], *_level(c // 2))
        self.simfp_4 = nn.Sequential(*_level(c))
        self.simfp_5 = nn.Sequential(nn.MaxPool2d(2), *_level(c))

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        x = self.net(pixels)
        maps = [self.simfp_2(x), self.simfp_3(x), self.simfp_4(x), self.simfp_5(x)]
        return [*maps, maps[-1][:, :, ::2, ::2]]


def _level(inputs: int) -> tuple[NormedConv, NormedConv]:
    return NormedConv(inputs, WIDTH, 1), NormedConv(WIDTH, WIDTH, 3)


class RegionHead(nn.Module):
    """One map (B, 256, h, w) -> logits (B, 3, h, w) and deltas (B, 12, h, w) of its three anchors per cell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({name: nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for name in ("conv0", "conv1")})
        self.objectness_logits, self.anchor_deltas = nn.Conv2d(WIDTH, 3, 1), nn.Conv2d(WIDTH, 12, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for convolution in self.conv.values():
            x = F.relu(convolution(x))
        return self.objectness_logits(x), self.anchor_deltas(x)


class BoxHead(nn.Module):
    """Pooled boxes (N, 256, 7, 7) -> features (N, 1024): four convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (NormedConv(WIDTH, WIDTH, 3) for _ in range(4))
        self.fc1 = nn.Linear(WIDTH * POOLED**2, 1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(convolution(x))
        return F.relu(self.fc1(x.flatten(1)))


class BoxPredictor(nn.Module):
    """Features (N, 1024) -> logits (N, K + 1), the background last, and deltas (N, 4) or one for each class."""

    def __init__(self, classes: int, boxes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(1024, classes + 1), nn.Linear(1024, 4 * boxes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class VitDetNetwork(nn.Module):
    """All parts under their official names.

    cascade: three heads, each refining the boxes of the one before, instead of one with a box for each class.
    sigmoid: scores of classes are independent (LVIS); a softmax otherwise.
    """

    def __init__(self, size: Size, side: int, classes: int, cascade: bool, sigmoid: bool) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.weights = CASCADE_WEIGHTS if cascade else CASCADE_WEIGHTS[:1]
        self.backbone = Pyramid(size, side)
        self.proposal_generator = nn.ModuleDict({"rpn_head": RegionHead()})
        boxes = 1 if cascade else classes
        heads = nn.ModuleList(BoxHead() for _ in self.weights)
        predictors = nn.ModuleList(BoxPredictor(classes, boxes) for _ in self.weights)
        self.roi_heads = nn.ModuleDict({"box_head": heads, "box_predictor": predictors})
        fuse_attention(self)

    def proposals(self, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (1, 256, h, w) of one image -> boxes (M, 4) and logits (M,)."""
        levels = []
        for features, stride, side in zip(maps, STRIDES, SIDES, strict=True):
            logits, deltas = self.proposal_generator["rpn_head"](features)
            around = anchors((features.shape[2], features.shape[3]), stride, side).to(features.device)
            flat = deltas[0].unflatten(0, (3, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
            levels.append((logits[0].permute(1, 2, 0).flatten(), flat, around))
        return propose(levels, size)

    def stages(self, maps: Sequence[torch.Tensor], boxes: torch.Tensor, size: tuple[int, int]) -> list[Stage]:
        """What each head makes of the boxes of one image; the boxes of a stage, cut, are those of the next."""
        found: list[Stage] = []
        heads: Any = self.roi_heads["box_head"]
        predictors: Any = self.roi_heads["box_predictor"]
        for head, predictor, weights in zip(heads, predictors, self.weights, strict=True):
            boxes = clip(found[-1].boxes, size) if found else boxes
            pooled = pool(maps[:4], 2, boxes)
            features = head(pooled)
            logits, deltas = predictor(features)
            found.append(Stage(pooled, features, logits, deltas, decode(deltas, boxes, weights)))
        return found

    def scores(self, stages: Sequence[Stage]) -> torch.Tensor:
        """The mean over the stages of each class's score, (N, K + 1)."""
        each = [stage.logits.sigmoid() if self.sigmoid else stage.logits.softmax(dim=1) for stage in stages]
        return torch.stack(each).mean(dim=0)


class VitDetDetector(BoxDetector):
    """ViTDet as its evaluation runs it: the longer side of an image is `side`, the rest of the square is padding.

    It works on one image after the other after the pyramid, whose number of boxes differ.
    """

    def __init__(
        self, runtime: Runtime, size: str, classes: Sequence[str], cascade: bool, sigmoid: bool, side: int, keep: Keep
    ) -> None:
        self.device = runtime.torch_device()
        self.names, self.side, self.keep = list(classes), side, keep
        # Without storage: the largest one has 2.8 GB, which a file brings along.
        with torch.device("meta"):
            self.module = VitDetNetwork(SIZES[size], side, len(self.names), cascade, sigmoid)

    def load_files(self, paths: Sequence[Path]) -> None:
        (path,) = paths
        state = (
            read_arrays(path)
            if path.suffix == ".pkl"
            else read_checkpoint(path, lambda state: "backbone.net.pos_embed" in state)
        )
        self.load_official(state, str(path))

    def load_official(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """The official state dict, strictly, and to the device. Raises InputError."""
        floats = {key: value.float() for key, value in state.items()}
        load_strictly(self.module, rename, floats, source, self.name, assign=True)
        self.module.eval().requires_grad_(False).to(self.device)

    def start_random(self) -> None:
        self.module.to_empty(device="cpu").eval().requires_grad_(False)
        randomize(self.module, loud=("cls_score.weight",))
        self.module.to(self.device)

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        return self.names

    def prepare(self, image: np.ndarray) -> PaddedImage:
        height, width = image.shape[:2]
        size = detectron_size(height, width, self.side, self.side)
        pixels = normalize(resize(image, size), PIXEL_MEAN, PIXEL_STD)
        # The padding is zero after the normalization.
        return PaddedImage(F.pad(pixels, (0, self.side - size[1], 0, self.side - size[0])), size, (height, width))

    def shape(self, prepared: PaddedImage) -> Hashable:
        return prepared.pixels.shape

    @torch.inference_mode()
    def detect(self, prepared: Sequence[PaddedImage]) -> list[Detections]:
        maps = self.module.backbone(torch.cat([each.pixels for each in prepared]).to(self.device))
        return [self.find([level[i : i + 1] for level in maps], each) for i, each in enumerate(prepared)]

    def find(self, maps: Sequence[torch.Tensor], image: PaddedImage) -> Detections:
        """The objects of one image from its maps (1, 256, h, w)."""
        boxes, _ = self.module.proposals(maps, image.size)
        return self.classify(maps, boxes, image)

    def classify(self, maps: Sequence[torch.Tensor], boxes: torch.Tensor, image: PaddedImage) -> Detections:
        """The objects in proposed boxes (M, 4)."""
        stages = self.module.stages(maps, boxes, image.size)
        return detections(stages[-1].boxes, self.module.scores(stages), image, self.keep)


def build_vitdet(
    runtime: Runtime, size: str, dataset: str = "coco", cascade: bool = True, side: int = 1024
) -> VitDetDetector:
    """ViTDet of a size b, l or h as trained on `coco` or `lvis` (v1), with the thresholds of its evaluation there."""
    if size not in SIZES or dataset not in ("coco", "lvis"):
        expected = f"size {', '.join(SIZES)}; dataset coco or lvis"
        raise InputError("detectors", "arguments", expected=expected, found=f"size {size}, dataset {dataset}")
    on_lvis = dataset == "lvis"
    names = lvis_names() if on_lvis else coco_names()
    keep = Keep(0.02, 0.5, 300) if on_lvis else Keep(0.05, 0.5, 100)
    return VitDetDetector(runtime, size, names, cascade, on_lvis, side, keep)
