"""Detic: CenterNet2 on a Swin transformer, whose classes are vectors of CLIP and can be exchanged. Boxes only.

Paper: arXiv 2201.02605. Official code: https://github.com/facebookresearch/Detic (detic/modeling/roi_heads) and its
submodule CenterNet2 (modeling/dense_heads/centernet.py), both on detectron2.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import nms

from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.classes import coco_names, lvis_names
from sambench.detectors.images import detectron_size, normalize, resize
from sambench.detectors.random_weights import randomize
from sambench.detectors.rcnn import CASCADE_WEIGHTS, POOLED, Keep, PaddedImage, Stage, clip, decode, detections, pool
from sambench.detectors.swin import rename_swin, swin_config, without_last_norm
from sambench.errors import InputError
from sambench.variants.base import Runtime
from sambench.variants.loading import read_checkpoint
from sambench.variants.sam import PIXEL_MEAN, PIXEL_STD
from sambench.variants.strict import load_strictly

WIDTH = 256
CLIP_WIDTH = 512
TEMPERATURE = 50.0
STRIDES = (8, 16, 32, 64, 128)
BACKBONE = "backbone.bottom_up."
# Masks, frequencies for training, and the classifier of the training, which is exchanged.
RUNS_WITHOUT = re.compile(r"roi_heads\.(mask_head\.|box_predictor\.\d\.(freq_weight|cls_score\.zs_weight)$)|pixel_")
KEEP = Keep(0.02, 0.5, 300)


class Pyramid(nn.Module):
    """Swin-B and a feature pyramid: pixels (B, 3, h, w) -> maps (B, 256, ., .) of the strides 8 to 128.

    h and w are multiples of 32.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        import transformers

        config = swin_config(backbone)
        self.bottom_up: Any = without_last_norm(transformers.SwinBackbone(config))
        for level, stage in ((3, 1), (4, 2), (5, 3)):
            channels = config.embed_dim * 2**stage
            self.add_module(f"fpn_lateral{level}", nn.Conv2d(channels, WIDTH, 1))
            self.add_module(f"fpn_output{level}", nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.top_block = nn.ModuleDict({name: nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1) for name in ("p6", "p7")})

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = []
        above: torch.Tensor | None = None
        for level, features in zip((5, 4, 3), reversed(self.bottom_up(pixels).feature_maps), strict=True):
            x = self.get_submodule(f"fpn_lateral{level}")(features)
            above = x if above is None else x + F.interpolate(above, scale_factor=2.0, mode="nearest")
            maps.insert(0, self.get_submodule(f"fpn_output{level}")(above))
        p6 = self.top_block["p6"](maps[-1])
        return [*maps, p6, self.top_block["p7"](p6.relu())]


class Scale(nn.Module):
    """A factor that each level learns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class CenterNetHead(nn.Module):
    """Map i (B, 256, h, w) -> logits of centres (B, 1, h, w) and distances to the sides (B, 4, h, w) in strides."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(32, WIDTH), nn.ReLU()]
        self.bbox_tower = nn.Sequential(*layers)
        self.agn_hm, self.bbox_pred = (nn.Conv2d(WIDTH, outputs, 3, padding=1) for outputs in (1, 4))
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def forward(self, x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.bbox_tower(x)
        return self.agn_hm(x), (self.bbox_pred(x) * self.scales[level].scale).relu()


class BoxHead(nn.Module):
    """Pooled boxes (N, 256, 7, 7) -> features (N, 1024)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH * POOLED**2, 1024), nn.Linear(1024, 1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1(x.flatten(1)).relu()).relu()


class BoxPredictor(nn.Module):
    """Features (N, 1024) -> vectors of unit length (N, 512), times the temperature, and deltas (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.ModuleDict({"linear": nn.Linear(1024, CLIP_WIDTH)})
        self.bbox_pred = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return TEMPERATURE * F.normalize(self.cls_score["linear"](x), dim=1), self.bbox_pred(x)


class DeticNetwork(nn.Module):
    """All parts under their official names; the classifier (512, C + 1) is a buffer that no checkpoint has."""

    classifier: torch.Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = Pyramid(backbone)
        self.proposal_generator = nn.ModuleDict({"centernet_head": CenterNetHead()})
        heads, predictors = (nn.ModuleList(kind() for _ in CASCADE_WEIGHTS) for kind in (BoxHead, BoxPredictor))
        self.roi_heads = nn.ModuleDict({"box_head": heads, "box_predictor": predictors})
        self.register_buffer("classifier", torch.zeros(CLIP_WIDTH, 1), persistent=False)

    def proposals(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (1, 256, h, w) of one image -> at most 256 boxes (M, 4) and their scores (M,), best first."""
        boxes, scores = [], []
        for level, (features, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            heat, sides = self.proposal_generator["centernet_head"](features, level)
            heat = heat.sigmoid().flatten()
            (index,) = torch.nonzero(heat > 1e-4, as_tuple=True)
            best, order = heat[index].topk(min(1000, len(index)))
            index = index[order]
            width = features.shape[3]
            centre = torch.stack([index % width, index // width], dim=1) * stride + stride // 2
            reach = sides[0].flatten(1).T[index] * stride
            low, high = centre - reach[:, :2], centre + reach[:, 2:]
            boxes.append(torch.cat([low, torch.maximum(high, low + 0.01)], dim=1))
            scores.append(best.sqrt())
        every, values = torch.cat(boxes), torch.cat(scores)
        kept = nms(every, values, 0.9)[:256]
        return every[kept], values[kept]

    def stages(self, maps: Sequence[torch.Tensor], boxes: torch.Tensor, size: tuple[int, int]) -> list[Stage]:
        """What each head makes of the boxes of one image; the boxes of a stage, cut, are those of the next."""
        found: list[Stage] = []
        heads: Any = self.roi_heads["box_head"]
        predictors: Any = self.roi_heads["box_predictor"]
        for head, predictor, weights in zip(heads, predictors, CASCADE_WEIGHTS, strict=True):
            boxes = clip(found[-1].boxes, size) if found else boxes
            pooled = pool(maps[:3], 3, boxes)
            features = head(pooled)
            vectors, deltas = predictor(features)
            logits = vectors @ self.classifier
            found.append(Stage(pooled, features, logits, deltas, decode(deltas, boxes, weights)))
        return found

    def scores(self, stages: Sequence[Stage], objectness: torch.Tensor) -> torch.Tensor:
        """The geometric mean of a class's score, a mean over the stages, and of the proposal's, (N, C + 1)."""
        classes = torch.stack([stage.logits.sigmoid() for stage in stages]).mean(dim=0)
        return (classes * objectness[:, None]).sqrt()


def make_classifier(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of CLIP (C, 512), one per class -> the classifier (512, C + 1): columns of unit length, the last zero."""
    columns = torch.cat([vectors.float().T, vectors.new_zeros(CLIP_WIDTH, 1).float()], dim=1)
    return F.normalize(columns, dim=0)


def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Official keys -> those of DeticNetwork; only the backbone has other names."""
    swin = {key.removeprefix(BACKBONE): value for key, value in state.items() if key.startswith(BACKBONE)}
    rest = {k: v for k, v in state.items() if not k.startswith(BACKBONE) and not RUNS_WITHOUT.match(k)}
    return rest | {BACKBONE + key: value for key, value in rename_swin(swin).items()}


class DeticDetector(BoxDetector):
    """Detic as its evaluation runs it; the classes are those of the vectors that come with it."""

    def __init__(self, runtime: Runtime, backbone: str, classes: Sequence[str], short: int, longest: int) -> None:
        self.device = runtime.torch_device()
        self.names, self.short, self.longest = list(classes), short, longest
        self.module = DeticNetwork(backbone).eval().requires_grad_(False)

    def load_files(self, paths: Sequence[Path]) -> None:
        """The checkpoint and the vectors of the classes, (C, 512) in a `.npy` of the repository's datasets/metadata."""
        weights, vectors = paths
        self.load_official(read_checkpoint(weights, lambda state: "backbone.fpn_output3.weight" in state), str(weights))
        self.exchange_classes(read_vectors(vectors, len(self.names)))

    def load_official(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """The official state dict, strictly, and to the device. Raises InputError."""
        load_strictly(self.module, rename, state, source, self.name)
        self.module.eval().to(self.device)

    def exchange_classes(self, vectors: torch.Tensor) -> None:
        """Tell other classes apart: vectors (C, 512)."""
        self.module.classifier = make_classifier(vectors).to(self.device)

    def start_random(self) -> None:
        randomize(self.module)
        self.module.to(self.device)
        generator = torch.Generator().manual_seed(0)
        self.exchange_classes(torch.randn(len(self.names), CLIP_WIDTH, generator=generator))

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        return self.names

    def prepare(self, image: np.ndarray) -> PaddedImage:
        height, width = image.shape[:2]
        size = detectron_size(height, width, self.short, self.longest)
        pixels = normalize(resize(image, size), PIXEL_MEAN, PIXEL_STD)
        return PaddedImage(F.pad(pixels, (0, -size[1] % 32, 0, -size[0] % 32)), size, (height, width))

    def shape(self, prepared: PaddedImage) -> Hashable:
        return prepared.pixels.shape

    @torch.inference_mode()
    def detect(self, prepared: Sequence[PaddedImage]) -> list[Detections]:
        maps = self.module.backbone(torch.cat([each.pixels for each in prepared]).to(self.device))
        found = []
        for i, image in enumerate(prepared):
            own = [level[i : i + 1] for level in maps]
            boxes, objectness = self.module.proposals(own)
            stages = self.module.stages(own, boxes, image.size)
            found.append(detections(stages[-1].boxes, self.module.scores(stages, objectness), image, KEEP))
        return found


def read_vectors(path: Path, count: int) -> torch.Tensor:
    """A `.npy` of `count` vectors of CLIP, (count, 512). Raises InputError; pickled objects are not read."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        found = " ".join(str(error).split())[:100]
        raise InputError(path, expected="an array of NumPy", found=found, remedy="download it again") from error
    if not isinstance(vectors, np.ndarray) or vectors.shape != (count, CLIP_WIDTH) or vectors.dtype.kind != "f":
        found = f"{getattr(vectors, 'dtype', type(vectors).__name__)} {getattr(vectors, 'shape', '')}"
        raise InputError(path, expected=f"vectors ({count}, {CLIP_WIDTH}), one for each class", found=found)
    return torch.from_numpy(vectors.astype(np.float32))


def build_detic(
    runtime: Runtime, backbone: str = "base", dataset: str = "lvis", short: int = 800, longest: int = 1333
) -> DeticDetector:
    """Detic with CenterNet2 and the classes of `coco` or `lvis` (v1)."""
    if dataset not in ("coco", "lvis"):
        raise InputError("detectors", "arguments.dataset", expected="coco or lvis", found=dataset)
    return DeticDetector(runtime, backbone, lvis_names() if dataset == "lvis" else coco_names(), short, longest)
