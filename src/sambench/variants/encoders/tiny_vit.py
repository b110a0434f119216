"""TinyViT-5M as MobileSAM, TinySAM and Light HQ-SAM use it, on timm's blocks.

Official file: mobile_sam/modeling/tiny_vit_sam.py. It differs from timm's tiny_vit_5m_224 in three ways: the last
downsampling keeps its resolution, the classifier is replaced by SAM's neck, and windows of 7/7/14/7 at 1024 pixels
are padded where they do not fit.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import Attention, TinyVit
from torch import nn

TINY_VIT_RENAMES = [
    (r"^image_encoder\.patch_embed\.seq\.0\.", "image_encoder.backbone.patch_embed.conv1."),
    (r"^image_encoder\.patch_embed\.seq\.2\.", "image_encoder.backbone.patch_embed.conv2."),
    # timm puts a downsampling at the start of the next stage, the official code at the end of the stage before.
    (r"^image_encoder\.layers\.0\.downsample\.", "image_encoder.backbone.stages.1.downsample."),
    (r"^image_encoder\.layers\.1\.downsample\.", "image_encoder.backbone.stages.2.downsample."),
    (r"^image_encoder\.layers\.2\.downsample\.", "image_encoder.backbone.stages.3.downsample."),
    (r"^image_encoder\.layers\.", "image_encoder.backbone.stages."),
    (r"^(image_encoder\.backbone\..*)\.c\.weight$", r"\1.conv.weight"),
]
# The ImageNet classifier is still in the checkpoints; the image path never runs it. The tables of window indices
# are recomputed by timm.
TINY_VIT_DEAD_KEYS = [
    r"^image_encoder\.norm_head\.",
    r"^image_encoder\.head\.",
    r".*\.attention_bias_idxs$",
]


class WindowAttention(Attention):
    """timm's attention with the bias in four dimensions: with three, torch leaves its fused kernel on the CPU."""

    def get_attention_biases(self, device: torch.device) -> torch.Tensor:
        """(1, heads, N, N) for the N cells of a window."""
        return super().get_attention_biases(device)[None]


def fuse_windows(backbone: nn.Module) -> None:
    """Let the attention of timm's TinyViT run in one fused kernel, in place."""
    for module in backbone.modules():
        if type(module) is Attention:
            module.__class__ = WindowAttention


class TinyViTEncoder(nn.Module):
    """(B, 3, 1024, 1024) -> (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyVit(
            num_classes=0,
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        backbone: Any = self.backbone  # torch types the attributes of a module as tensors
        backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
        backbone.head = nn.Identity()
        fuse_windows(backbone)
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone.patch_embed(x)
        x = self.backbone.stages(x)
        return self.neck(x)
