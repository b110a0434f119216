"""The encoders of EfficientSAM3: small classifiers of timm, widened and enlarged to what SAM 3's neck takes.

Official file: sam3/sam3/model_builder.py (`ImageStudentEncoder`, `_create_student_vision_backbone`). Each backbone is
that of timm as it is, but for the eps of EfficientViT's attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.efficientvit_mit import EfficientVit, LiteMLA
from timm.models.repvit import RepVit
from timm.models.tiny_vit import TinyVit
from torch import nn

from sambench.variants.encoders.repvit import repvit_renames
from sambench.variants.encoders.tiny_vit import TINY_VIT_RENAMES, fuse_windows

WIDTH = 1024  # channels and side of SAM 3's own encoder
SIDE = 72


@dataclass(frozen=True)
class Student:
    """A backbone: its class in timm with arguments, the channels that it gives, and official keys -> ours.

    Official keys begin with `image_encoder.`, ours with `image_encoder.backbone.`, as elsewhere in this package.
    """

    network: Any
    arguments: Mapping[str, Any]
    channels: int
    renames: list[tuple[str, str]] = field(default_factory=list)


STUDENTS = {
    "efficientvit": Student(
        EfficientVit,
        # The head that these last widths are of comes off.
        {"widths": (16, 32, 64, 128, 256), "depths": (1, 2, 3, 3, 4), "head_dim": 16, "head_widths": (1, 1)},
        256,
        [
            (r"^image_encoder\.input_stem\.op_list\.0\.", "image_encoder.backbone.stem.in_conv."),
            (r"^image_encoder\.input_stem\.op_list\.1\.", "image_encoder.backbone.stem.res0."),
            (r"^image_encoder\.stages\.(\d)\.op_list\.", r"image_encoder.backbone.stages.\1.blocks."),
        ],
    ),
    "repvit": Student(
        RepVit,
        {"embed_dim": (64, 128, 256, 512), "depth": (2, 2, 12, 2)},
        512,
        repvit_renames((2, 2, 12, 2)),
    ),
    "tinyvit": Student(
        TinyVit,
        {"embed_dims": (64, 128, 256, 448), "num_heads": (2, 4, 8, 14), "window_sizes": (7, 7, 14, 7)},
        448,
        TINY_VIT_RENAMES,
    ),
}


class StudentEncoder(nn.Module):
    """(B, 3, 1008, 1008) -> (B, 1024, 72, 72): a backbone of STUDENTS, its last map (32 x 32) widened and enlarged."""

    def __init__(self, name: str) -> None:
        super().__init__()
        student = STUDENTS[name]
        self.backbone = student.network(num_classes=0, **student.arguments)
        self.backbone.head = nn.Identity()
        fuse_windows(self.backbone)
        for module in self.backbone.modules():
            if isinstance(module, LiteMLA):
                module.eps = 1e-15
        self.head = nn.Sequential(
            nn.Conv2d(student.channels, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.backbone.forward_features(x))
        return F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
