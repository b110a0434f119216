"""Attention through torch's fused kernel, where segment-anything spells it out (runtimes with `attention: sdpa`).

The modules stay as they are, parameters and names included; only their class, and with it `forward`, is replaced by
one that computes the same function. timm and transformers call the fused kernel by themselves, so nothing of theirs is
touched, and encoders of convolutions have nothing to replace.

Source of the function: segment_anything/modeling/image_encoder.py and transformer.py; the idea of giving relative
positions to the kernel as a bias: Segment Anything Fast (https://github.com/pytorch-labs/segment-anything-fast).
"""

from __future__ import annotations

import torch
from segment_anything.modeling import image_encoder, transformer
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def relative_table(positions: torch.Tensor, length: int) -> torch.Tensor:
    """Embeddings of the distances 1 - L .. L - 1, (2L - 1, C) -> (L, C, L): [i, :, j] belongs to distance i - j.

    A view and a flip: an index made on the CPU, as officially, would have the GPU wait for it in every block.
    """
    return positions.unfold(0, length, 1).flip(-1)


def relative_scores(
    q: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What SAM adds to the score of two cells: by their distance down (..., H*W, H) and across (..., H*W, W).

    q (..., H*W, C), not scaled. rows (2H - 1, C), columns (2W - 1, C): embeddings of the distance along each axis.
    """
    grid = q.unflatten(-2, (height, width))
    by_row = torch.einsum("...hwc,hck->...hwk", grid, relative_table(rows, height))
    by_column = torch.einsum("...hwc,wck->...hwk", grid, relative_table(columns, width))
    return by_row.flatten(-3, -2), by_column.flatten(-3, -2)


def relative_bias(q: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The sum of both for each pair of cells: (B, n, H*W, C) -> (B, n, H*W, H*W), see `relative_scores`."""
    by_row, by_column = relative_scores(q, rows, columns, height, width)
    return (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)


class FusedEncoderAttention(image_encoder.Attention):
    """Self-attention of SAM's ViT, (B, H, W, C) -> (B, H, W, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        q, k, v = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = relative_bias(q, self.rel_pos_h, self.rel_pos_w, height, width) if self.use_rel_pos else None
        x = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return self.proj(x.transpose(1, 2).reshape(x.shape[0], height, width, -1))


class FusedDecoderAttention(transformer.Attention):
    """Attention between tokens and cells in SAM's decoder, (N, Q, C) and (N, K, C) -> (N, Q, C)."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            projection(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    image_encoder.Attention: FusedEncoderAttention,
    transformer.Attention: FusedDecoderAttention,
}


def fuse_attention(network: nn.Module) -> int:
    """Replace, in place, every spelled-out attention of segment-anything in a network; returns how many."""
    found = [module for module in network.modules() if type(module) in FUSED]
    for module in found:
        module.__class__ = FUSED[type(module)]
    return len(found)
