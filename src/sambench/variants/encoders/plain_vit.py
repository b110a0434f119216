"""The plain ViT of EfficientSAM and EfficientTAM, on timm's VisionTransformerSAM without relative positions.

Official files: efficient_sam/efficient_sam_encoder.py, efficient_track_anything/modeling/backbones/vitdet.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import VisionTransformerSAM

PRETRAINED_GRID = 14  # 224 pixels in patches of 16
GLOBAL_BLOCKS = (2, 5, 8, 11)


class PlainViT(VisionTransformerSAM):
    """(B, 3, S, S) -> (B, 256, S/16, S/16), twelve blocks and SAM's neck.

    The learned positions stay a 14 x 14 grid, as in the checkpoint, and are enlarged in the forward pass.

    window_size: of the attention in all blocks but `GLOBAL_BLOCKS`; 0 makes every block global.
    """

    def __init__(self, width: int, heads: int, *, window_size: int = 0) -> None:
        super().__init__(
            img_size=16 * PRETRAINED_GRID,
            num_classes=0,
            embed_dim=width,
            num_heads=heads,
            norm_layer=None,  # LayerNorm with eps 1e-6
            window_size=window_size,
            global_attn_indexes=GLOBAL_BLOCKS,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        # timm would filter while enlarging (antialias), with another cubic kernel than the official code's.
        positions = F.interpolate(
            self.pos_embed.permute(0, 3, 1, 2).float(), x.shape[1:3], mode="bicubic", align_corners=False
        )
        x = x + positions.permute(0, 2, 3, 1).to(x.dtype)
        return self.neck(self.blocks(x).permute(0, 3, 1, 2))


def grid_positions(state: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The state with positions `key` (1, 1 + 196, C) as a grid (1, 14, 14, C), less the class token's."""
    state = dict(state)
    if key in state:
        state[key] = state[key][:, 1:].unflatten(1, (PRETRAINED_GRID, PRETRAINED_GRID))
    return state
