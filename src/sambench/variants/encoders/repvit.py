"""RepViT as RepViT-SAM and EdgeSAM use it, on timm's blocks.

Official files: sam/repvit_sam/modeling/repvit.py (RepViT-SAM is RepViT-M2.3, not the M1.1 of its paper's
headline) and edge_sam/modeling/rep_vit.py (EdgeSAM is RepViT-M1 in the layout that timm calls `legacy`). Both
number their blocks through, where timm groups them in stages that begin with a downsampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from timm.models.repvit import RepVit
from torch import nn

REPVIT_SAM_DEPTHS = (6, 6, 34, 2)
EDGE_SAM_DEPTHS = (2, 2, 14, 2)
repvit: Any = RepVit  # its head and strides are replaced, which timm's annotations do not foresee


def repvit_renames(depths: Sequence[int]) -> list[tuple[str, str]]:
    """Official keys -> ours. depths: the blocks of each stage that follow its downsampling."""
    ours = "image_encoder.backbone."
    rules = [
        (r"^image_encoder\.features\.0\.0\.", ours + "stem.conv1."),
        (r"^image_encoder\.features\.0\.2\.", ours + "stem.conv2."),
    ]
    number = 1
    for stage, depth in enumerate(depths):
        targets = [f"blocks.{block}" for block in range(depth)]
        if stage > 0:
            targets = ["downsample.pre_block", "downsample", *targets]
        for target in targets:
            official, here = rf"^image_encoder\.features\.{number}\.", f"{ours}stages.{stage}.{target}."
            if target == "downsample":
                rules += [
                    (official + r"token_mixer\.0\.", here + "spatial_downsample."),
                    (official + r"token_mixer\.2\.", here + "channel_downsample."),
                    (official + r"channel_mixer\.m\.0\.", here + "ffn.conv1."),
                    (official + r"channel_mixer\.m\.2\.", here + "ffn.conv2."),
                ]
            else:
                rules += [
                    (official + r"token_mixer\.0\.", here + "token_mixer."),
                    (official + r"token_mixer\.1\.", here + "se."),
                    (official + r"channel_mixer\.m\.0\.", here + "channel_mixer.conv1."),
                    (official + r"channel_mixer\.m\.2\.", here + "channel_mixer.conv2."),
                ]
            number += 1
    return rules


def sam_neck(channels: int) -> nn.Sequential:
    """SAM's neck: (B, channels, 64, 64) -> (B, 256, 64, 64)."""
    return nn.Sequential(
        nn.Conv2d(channels, 256, 1, bias=False),
        LayerNorm2d(256),
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        LayerNorm2d(256),
    )


class RepViTEncoder(nn.Module):
    """RepViT-SAM: (B, 3, 1024, 1024) -> (B, 256, 64, 64). The last downsampling keeps its resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = repvit(embed_dim=(80, 160, 320, 640), depth=REPVIT_SAM_DEPTHS, num_classes=0)
        self.backbone.head = nn.Identity()
        self.backbone.stages[3].downsample.spatial_downsample.c.stride = (1, 1)
        self.neck = sam_neck(640)

    def fuse(self) -> None:
        """Merge every BatchNorm and every parallel branch into one convolution, in place, for timing.

        The output stays the same up to rounding; parameters are counted before. Call it in float32.
        """
        self.backbone.fuse()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neck(self.backbone.stages(self.backbone.stem(x)))


class EdgeSamEncoder(nn.Module):
    """EdgeSAM: (B, 3, 1024, 1024) -> (B, 256, 64, 64).

    The last stage (32x32) is enlarged and added to a 64x64 map. That map is taken *inside* the last
    downsampling, after its first block: tapping the end of the third stage loads the same keys and is wrong
    by 40 %.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = repvit(embed_dim=(48, 96, 192, 384), depth=EDGE_SAM_DEPTHS, num_classes=0, legacy=True)
        self.backbone.head = nn.Identity()
        self.fuse_stage2 = nn.Conv2d(192, 256, 1, bias=False)
        self.fuse_stage3 = nn.Conv2d(384, 256, 1, bias=False)
        self.neck = sam_neck(256)

    def fuse(self) -> None:
        """As RepViTEncoder.fuse."""
        self.backbone.fuse()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone.stem(x)
        for stage in self.backbone.stages[:3]:
            x = stage(x)
        last = self.backbone.stages[3]
        middle = last.downsample.pre_block(x)
        x = last.downsample.channel_downsample(last.downsample.spatial_downsample(middle))
        x = last.blocks(x + last.downsample.ffn(x))
        x = F.interpolate(self.fuse_stage3(x), scale_factor=2, mode="bicubic", align_corners=False)
        return self.neck(self.fuse_stage2(middle) + x)


EDGE_SAM_RENAMES = [
    *repvit_renames(EDGE_SAM_DEPTHS),
    (r"^image_encoder\.fuse_stage3\.op_list\.0\.", "image_encoder.fuse_stage3."),
]
REPVIT_SAM_RENAMES = repvit_renames(REPVIT_SAM_DEPTHS)
