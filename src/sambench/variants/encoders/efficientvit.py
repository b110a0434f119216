"""EfficientViT-L and -XL as EfficientViT-SAM uses them, on timm's blocks.

Official files: efficientvit/models/efficientvit/{backbone,sam}.py. timm's own EfficientVitLarge is the L
trunk with other eps values; the XL trunks have six stages and attention of another scale in the last two, so
both are put together here from the same blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from timm.layers import GELUTanh
from timm.models.efficientvit_mit import (
    ConvNormAct,
    EfficientVitBlock,
    FusedMBConv,
    LiteMLA,
    ResidualBlock,
    Stem,
    build_local_block,
)
from torch import nn

NORM_EPS = 1e-6
HEAD_DIM = 32
EMBEDDING = (64, 64)
# timm's annotations ask for classes where its code takes anything that makes a layer.
batch_norm: Any = partial(nn.BatchNorm2d, eps=NORM_EPS)
local_block: Any = build_local_block

EFFICIENTVIT_RENAMES = [
    (r"^image_encoder\.backbone\.stages\.0\.op_list\.0\.", "image_encoder.stem.in_conv."),
    *[(rf"^image_encoder\.backbone\.stages\.0\.op_list\.{i + 1}\.", f"image_encoder.stem.res{i}.") for i in range(2)],
    *[(rf"^image_encoder\.backbone\.stages\.{i + 1}\.op_list\.", f"image_encoder.stages.{i}.") for i in range(5)],
    (r"^image_encoder\.neck\.input_ops\.(\d)\.op_list\.0\.", r"image_encoder.taps.\1."),
    (r"^image_encoder\.neck\.middle\.op_list\.", "image_encoder.middle."),
    (r"^image_encoder\.neck\.output_ops\.0\.op_list\.0\.conv\.", "image_encoder.output."),
]


@dataclass(frozen=True)
class Plan:
    """One model. Each stage is (kind, width, depth, expansion of its blocks); `stem` is its width and depth.

    kind: `fused` (fused inverted residuals), `separable` (inverted residuals), or `attention@K`, where K is
        the side of the convolution that gathers tokens.
    """

    stem: tuple[int, int]
    stages: Sequence[tuple[str, int, int, int]]
    middle_depth: int
    middle_expansion: int


def _large(middle_depth: int, depths: Sequence[int]) -> Plan:
    kinds = ("fused", "fused", "separable", "attention@5")
    stages = tuple(zip(kinds, (64, 128, 256, 512), depths[1:], (4, 4, 4, 6), strict=True))
    return Plan((32, depths[0]), stages, middle_depth, 1)


def _extra_large(middle_depth: int, depths: Sequence[int]) -> Plan:
    kinds = ("fused", "fused", "fused", "attention@3", "attention@3")
    stages = tuple(zip(kinds, (64, 128, 256, 512, 1024), depths[1:], (4, 4, 4, 4, 6), strict=True))
    return Plan((32, depths[0]), stages, middle_depth, 4)


PLANS = {
    "l0": _large(4, (1, 1, 1, 4, 4)),
    "l1": _large(8, (1, 1, 1, 6, 6)),
    "l2": _large(12, (1, 2, 2, 8, 8)),
    "xl0": _extra_large(6, (0, 1, 1, 2, 3, 3)),
    "xl1": _extra_large(12, (1, 2, 2, 4, 6, 6)),
}


def _attention_block(channels: int, expansion: int, scale: int) -> EfficientVitBlock:
    block = EfficientVitBlock(
        channels, head_dim=HEAD_DIM, expand_ratio=expansion, norm_layer=batch_norm, act_layer=GELUTanh
    )
    # timm's block has neither the scale nor the (tiny) eps of the official attention as an argument.
    block.context_module.main = LiteMLA(
        channels, channels, dim=HEAD_DIM, norm_layer=(None, batch_norm), scales=(scale,), eps=1e-15
    )
    return block


def _stage(channels: int, kind: str, width: int, depth: int, expansion: int) -> nn.Sequential:
    """Halves the resolution with an expansion four times as wide, then `depth` residual blocks."""
    local = partial(
        local_block,
        out_channels=width,
        norm_layer=batch_norm,
        act_layer=GELUTanh,
        fewer_norm=kind != "fused",
        block_type="fused" if kind == "fused" else "default",
    )
    blocks: list[nn.Module] = [ResidualBlock(local(in_channels=channels, stride=2, expand_ratio=4 * expansion))]
    for _ in range(depth):
        if kind.startswith("attention"):
            blocks.append(_attention_block(width, expansion, int(kind.partition("@")[2])))
        else:
            blocks.append(ResidualBlock(local(in_channels=width, stride=1, expand_ratio=expansion), nn.Identity()))
    return nn.Sequential(*blocks)


class EfficientViTEncoder(nn.Module):
    """(B, 3, S, S) -> (B, 256, 64, 64), with S = 512 for `l0`, `l1`, `l2` and 1024 for `xl0`, `xl1`.

    The maps of the last three stages, deepest first, are brought to 64x64 and summed; residual blocks follow.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        plan = PLANS[name]
        channels, depth = plan.stem
        self.stem = Stem(3, channels, depth, batch_norm, GELUTanh, block_type="large")
        self.stages = nn.ModuleList()
        for kind, width, depth, expansion in plan.stages:
            self.stages.append(_stage(channels, kind, width, depth, expansion))
            channels = width
        widths = [width for _, width, _, _ in plan.stages[-3:]]
        self.taps = nn.ModuleList(
            ConvNormAct(width, 256, 1, norm_layer=batch_norm, act_layer=None) for width in reversed(widths)
        )
        self.middle = nn.Sequential(*(self._middle_block(plan.middle_expansion) for _ in range(plan.middle_depth)))
        self.output = nn.Conv2d(256, 256, 1)
        self.norm = LayerNorm2d(256)

    @staticmethod
    def _middle_block(expansion: int) -> ResidualBlock:
        block = FusedMBConv(256, 256, expand_ratio=expansion, norm_layer=batch_norm, act_layer=(GELUTanh, None))
        return ResidualBlock(block, nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = sum(self._resize(tap(x)) for tap, x in zip(self.taps, reversed(maps[-3:]), strict=True))
        return self.norm(self.output(self.middle(merged)))

    @staticmethod
    def _resize(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-2:] == EMBEDDING:
            return x
        # float32, like the official code, whatever the runtime computes in.
        return F.interpolate(x.float(), EMBEDDING, mode="bicubic", align_corners=False).to(x.dtype)
