"""EfficientTAM on still images: SAM 2 with a plain ViT and no maps of higher resolution (arXiv 2411.18933).

Official code: efficient_track_anything/efficienttam_image_predictor.py and modeling/backbones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sambench.variants.base import Features, Runtime
from sambench.variants.encoders.plain_vit import PlainViT, grid_positions
from sambench.variants.sam2 import Sam2Network, Sam2Variant, sam2_renamer

SIZES = {"ti": (192, 3), "s": (384, 6)}  # width and heads
VIT_RENAMES = [
    (r"^image_encoder\.neck\.convs\.0\.conv_1x1\.", "vision_encoder.neck.0."),
    (r"^image_encoder\.neck\.convs\.0\.norm_0\.", "vision_encoder.neck.1."),
    (r"^image_encoder\.neck\.convs\.0\.conv_3x3\.", "vision_encoder.neck.2."),
    (r"^image_encoder\.neck\.convs\.0\.norm_1\.", "vision_encoder.neck.3."),
    (r"^image_encoder\.trunk\.(.*)\.mlp\.layers\.0\.", r"vision_encoder.\1.mlp.fc1."),
    (r"^image_encoder\.trunk\.(.*)\.mlp\.layers\.1\.", r"vision_encoder.\1.mlp.fc2."),
    (r"^image_encoder\.trunk\.", "vision_encoder."),
]


class EfficientTamVariant(Sam2Variant):
    """One feature map; where SAM 2 would add finer ones, nothing is added."""

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """image_embed (B, 256, S/16, S/16)."""
        return {"image_embed": self.without_memory(self.module.vision_encoder(pixels))}

    def high_resolution(self, features: Features) -> list[torch.Tensor]:
        zero = features.maps["image_embed"].new_zeros(1, 1, 1, 1)
        return [zero, zero]

    def finer(self, features: Features) -> Sequence[torch.Tensor]:
        return []


def build_efficient_tam(runtime: Runtime, size: str, pixel_size: int = 1024) -> EfficientTamVariant:
    """EfficientTAM-Ti or -S (`ti`, `s`) at 1024 or 512 pixels."""
    network = Sam2Network(PlainViT(*SIZES[size], window_size=14), pixel_size=pixel_size)
    del network.mask_decoder.conv_s0, network.mask_decoder.conv_s1  # they project the finer maps
    rename = sam2_renamer(VIT_RENAMES)

    def convert(state: Mapping[str, Any]) -> dict[str, Any]:
        return grid_positions(rename(state), "vision_encoder.pos_embed")

    return EfficientTamVariant(network, runtime, convert, pixel_size=pixel_size)
