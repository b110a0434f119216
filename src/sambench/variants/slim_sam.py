"""SlimSAM: SAM-B with uniformly pruned widths (arXiv 2312.05284); everything else is SAM.

Official code: segment_anything/build_sam.py of the SlimSAM repository, `vit_p50` and `vit_p77`.
"""

from __future__ import annotations

from sambench.variants.base import Runtime
from sambench.variants.sam import SamVariant, sam_vit

SIZES = {"50": (384, 1536), "77": (168, 696)}  # per cent pruned: width, width of the MLP


def build_slim_sam(runtime: Runtime, pruned: str) -> SamVariant:
    """SlimSAM with 50 or 77 per cent pruned (`50`, `77`)."""
    width, mlp_width = SIZES[pruned]
    return SamVariant(sam_vit(width, 12, 12, (2, 5, 8, 11), mlp_width), runtime)
