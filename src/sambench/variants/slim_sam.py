"""SlimSAM: SAM-B with uniformly pruned widths (arXiv 2312.05284); everything else is SAM.

Official code: segment_anything/build_sam.py of the SlimSAM repository, `vit_p50` and `vit_p77`.
"""

from __future__ import annotations

from functools import partial

from segment_anything.modeling import ImageEncoderViT
from torch import nn

from sambench.variants.base import Runtime
from sambench.variants.sam import FRAME, SamVariant

SIZES = {"50": (384, 1536), "77": (168, 696)}  # per cent pruned: width, width of the MLP


def build_slim_sam(runtime: Runtime, pruned: str) -> SamVariant:
    """SlimSAM with 50 or 77 per cent pruned (`50`, `77`)."""
    width, mlp_width = SIZES[pruned]
    encoder = ImageEncoderViT(
        img_size=FRAME,
        embed_dim=width,
        mlp_ratio=mlp_width / width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
    )
    return SamVariant(encoder, runtime)
