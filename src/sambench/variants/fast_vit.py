"""SAM's ViT on a CPU: the same weights and function with less to carry to and from memory (`decoder: fast`).

The official attention of all cells with each other makes a matrix of 4,096 x 4,096 per head, and goes through it five
times: it is far larger than any cache. Here it is made for a few hundred rows at a time. Cells that pad a window are
all zero, so their queries, keys and values are the bias, and what comes out for them is cut off: products are made for
the cells of the image only.

Both are exact algebra: results differ by the rounding of sums in another order. As in fast.py only the class of the
official modules is replaced, parameters and names stay. Source of the function: segment_anything/modeling/
image_encoder.py.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import image_encoder
from torch import nn

from sambench.variants.fast import relative_scores

ROWS = 256  # of the matrix that are made at once: 4 MiB of all cells


class TiledBlock(image_encoder.Block):
    """One block of SAM's ViT, (B, H, W, C) -> (B, H, W, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        qkv = self.attn.qkv(self.norm1(x))
        if self.window_size:
            attended = within_windows(self.attn, qkv, self.window_size)
        else:
            attended = among_all(self.attn, qkv.flatten(1, 2), height, width).unflatten(1, (height, width))
        x = self.attn.proj(attended).add_(x)
        return x.add_(self.mlp(self.norm2(x)))


def among_all(attention: image_encoder.Attention, qkv: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Attention of all cells with each other. qkv (B, H*W, 3*C) -> (B, H*W, C), before the last projection."""
    q, k, v = _by_head(attention, qkv)
    by_row, by_column = relative_scores(q, attention.rel_pos_h, attention.rel_pos_w, height, width)
    q = q * attention.scale
    result = torch.empty(qkv.shape[0], q.shape[2], attention.num_heads, q.shape[3], dtype=q.dtype)
    scores = torch.empty(min(ROWS, q.shape[2]), q.shape[2], dtype=q.dtype)
    for image in range(q.shape[0]):
        for head in range(q.shape[1]):
            at = (image, head)
            for start in range(0, q.shape[2], ROWS):
                rows = slice(start, start + ROWS)
                part = scores[: len(q[at][rows])]
                torch.add(by_row[at][rows, :, None], by_column[at][rows, None, :], out=part.view(-1, height, width))
                part.addmm_(q[at][rows], k[at].t())
                result[image, rows, head] = torch.softmax(part, -1, out=part) @ v[at]
    return result.flatten(2)


def within_windows(attention: image_encoder.Attention, qkv: torch.Tensor, size: int) -> torch.Tensor:
    """Attention within windows of size x size cells. qkv (B, H, W, 3*C) -> (B, H, W, C), before the last projection."""
    count, height, width, channels = qkv.shape
    down, across = -(-height // size), -(-width // size)
    if (down * size, across * size) != (height, width):
        padded = attention.qkv.bias.expand(count, down * size, across * size, channels).clone()
        padded[:, :height, :width] = qkv
        qkv = padded
    windows = qkv.view(count, down, size, across, size, channels).transpose(2, 3).reshape(-1, size * size, channels)
    q, k, v = (part.flatten(0, 1) for part in _by_head(attention, windows))
    by_row, by_column = relative_scores(q, attention.rel_pos_h, attention.rel_pos_w, size, size)
    scores = (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)
    scores.baddbmm_(q, k.transpose(1, 2), alpha=attention.scale)
    found = torch.softmax(scores, -1, out=scores) @ v
    found = found.view(count, down, across, attention.num_heads, size, size, -1).permute(0, 1, 4, 2, 5, 3, 6)
    return found.reshape(count, down * size, across * size, -1)[:, :height, :width]


def _by_head(attention: image_encoder.Attention, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(B, L, 3*C) -> queries, keys and values, each (B, heads, L, c) and contiguous."""
    return qkv.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).contiguous().unbind(0)


def tile_attention(network: nn.Module) -> int:
    """Replace, in place, every block of SAM's ViT with relative positions in a network; returns how many."""
    found = [
        module
        for module in network.modules()
        if type(module) is image_encoder.Block and hasattr(module.attn, "rel_pos_h")
    ]
    for module in found:
        module.__class__ = TiledBlock
    return len(found)
