"""Swin Transformer as a backbone: transformers' network under the names of the official code.

Official keys: models/swin_transformer.py of Swin-Transformer-Object-Detection, which H-Deformable-DETR and Detic share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sambench.variants.neural import renamer

# Width of the first stage, blocks and heads of each stage.
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
# Regular expressions from the official names of a block to transformers'; they come after the prefix was replaced.
RULES = (
    (r"\bpatch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"\bpatch_embed\.norm\.", "swin.embeddings.norm."),
    *((rf"^norm{stage}\.", f"hidden_states_norms.stage{stage + 1}.") for stage in (1, 2, 3)),
    (r"^layers\.", "swin.encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.relative_position_bias_table$", ".attention.relative_position_bias.relative_position_bias_table"),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.qkv\.", ".attention.{}_proj."),
)
TABLES = r".*\.relative_position_index$"  # follow from the window's size
_renamed = renamer(RULES, [TABLES])


def swin_config(size: str) -> Any:
    """The configuration of a Swin with windows of 7 whose stages 2 to 4 each end in a LayerNorm."""
    import transformers

    width, depths, heads = SIZES[size]
    stages = ["stage2", "stage3", "stage4"]
    kind: Any = transformers.SwinConfig
    return kind(embed_dim=width, depths=depths, num_heads=heads, drop_path_rate=0.0, out_features=stages)


def without_last_norm(backbone: Any) -> Any:
    """The norm at the end of transformers' Swin is not on the way to the stages: it has no weights officially."""
    backbone.swin.layernorm = nn.Identity()
    return backbone


def rename_swin(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The official state dict of a Swin, without prefix -> the keys of transformers' SwinBackbone."""
    return split_projections(_renamed(state), "qkv")


def split_projections(state: Mapping[str, torch.Tensor], names: str) -> dict[str, torch.Tensor]:
    """Weights of several projections in one -> one each: `{}` in a key becomes each of the letters `names`."""
    parts: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if "{}" in key:
            parts |= {key.replace("{}", name): part for name, part in zip(names, value.chunk(len(names)), strict=True)}
        else:
            parts[key] = value
    return parts
