"""SAM's mask decoder with the same weights, the same function and fewer products (runtimes with `decoder: fast`).

Every mask decoder here is one design (arXiv 2304.02643, appendix A): a few tokens and the cells of an image attend to
each other in two blocks, then the cells are enlarged four times and each mask token becomes a dot product with them.
The official modules stay as they are and hold the weights; this is their forward pass in another order:

1. Until the first block has changed the cells, they are the same for all prompts: their products are made once an
   image. Mask prompts change them before, and switch this off.
2. Seven to eleven tokens meet thousands of cells, so projections go to the tokens: (cells Wk) q = cells (Wk q). The
   bias of the keys adds the same to all cells, which a softmax ignores; that of the outputs goes through a softmax that
   sums to one. The last attention is computed only for the tokens that are read.
3. Cells are rows throughout. A transposed convolution with stride 2 is then one matrix product, a norm over channels
   one over the last axis, and both are done a few hundred cells at a time, so that they stay in the cache of a CPU.

All of it is exact algebra: results differ by the rounding of sums in another order. Figures: docs/results-decoder.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sambench.variants.base import MaskCandidates, Upsampling

# Cells that a CPU enlarges at once: half a MiB of them, and four times as much of what they become.
TILE = 512


@dataclass(frozen=True)
class Attention:
    """The projections of one attention, of width C outside and heads * c inside."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    heads: int

    @property
    def scale(self) -> float:
        return float(self.query.out_features // self.heads) ** -0.5

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, heads * c) -> (N, heads, T, c)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def by_head(self, projection: nn.Linear) -> torch.Tensor:
        """The weight of a projection into the heads as (heads, c, C)."""
        return projection.weight.unflatten(0, (self.heads, -1))


@dataclass(frozen=True)
class Block:
    """One two-way block. The attention of the tokens among themselves differs by family:

    positions: where the positions of the tokens are added, `nowhere`, in the `keys` (and queries), or in `all`,
        which also keeps them in the tokens from there on.
    residual: whether the tokens are added to its result.
    """

    own: Attention
    to_cells: Attention
    from_cells: Attention
    mlp: nn.Module
    norms: Sequence[nn.Module]
    positions: str
    residual: bool


@dataclass(frozen=True)
class Parts:
    """The modules of a mask decoder, whatever the library calls them.

    tokens: (K, C), the decoder's own, of which that of the score is number `first` and the mask tokens follow.
    """

    tokens: torch.Tensor
    first: int
    blocks: Sequence[Block]
    final: Attention
    final_norm: nn.Module
    enlarge: tuple[nn.ConvTranspose2d, nn.Module, nn.ConvTranspose2d]
    heads: Sequence[nn.Module]
    score: nn.Module


def parts_of(decoder: Any, *more: tuple[nn.Embedding, nn.Module]) -> Parts:
    """The parts of a decoder of segment-anything, of those derived from it here, or of transformers' SAM 2.

    more: further mask tokens with their heads, after the decoder's own.
    """
    transformer = decoder.transformer
    segment_anything = hasattr(decoder, "output_upscaling")
    norm = "norm" if segment_anything else "layer_norm"
    blocks = [_block(layer, norm) for layer in transformer.layers]
    if segment_anything:
        before: list[torch.Tensor] = []
        enlarge = (decoder.output_upscaling[0], decoder.output_upscaling[1], decoder.output_upscaling[3])
    else:
        before = [decoder.obj_score_token.weight]
        enlarge = (decoder.upscale_conv1, decoder.upscale_layer_norm, decoder.upscale_conv2)
    own = [decoder.iou_token.weight, decoder.mask_tokens.weight, *(token.weight for token, _ in more)]
    return Parts(
        tokens=torch.cat([*before, *own]),
        first=len(before),
        blocks=blocks,
        final=_attention(transformer.final_attn_token_to_image),
        final_norm=getattr(transformer, f"{norm}_final_attn"),
        enlarge=enlarge,
        heads=[*decoder.output_hypernetworks_mlps, *(head for _, head in more)],
        score=decoder.iou_prediction_head,
    )


def _attention(module: Any) -> Attention:
    out, heads = ("out_proj", "num_heads") if hasattr(module, "out_proj") else ("o_proj", "num_attention_heads")
    return Attention(module.q_proj, module.k_proj, module.v_proj, getattr(module, out), getattr(module, heads))


def _block(layer: Any, norm: str) -> Block:
    residual_everywhere = getattr(layer, "residual_everywhere", False)
    later = "all" if residual_everywhere else "keys"
    return Block(
        own=_attention(layer.self_attn),
        to_cells=_attention(layer.cross_attn_token_to_image),
        from_cells=_attention(layer.cross_attn_image_to_token),
        mlp=layer.mlp,
        norms=[getattr(layer, f"{norm}{i}") for i in (1, 2, 3, 4)],
        positions="nowhere" if layer.skip_first_layer_pe else later,
        residual=residual_everywhere or not layer.skip_first_layer_pe,
    )


@dataclass(frozen=True)
class Shared:
    """What the first block makes of cells that all prompts have in common: keys and values (1, heads, L, c) for the
    tokens' attention, queries (heads, c, L) for the cells' own."""

    keys: torch.Tensor
    values: torch.Tensor
    queries: torch.Tensor


@dataclass(frozen=True)
class Cells:
    """The cells of one image, row by row: L = h * w.

    values: (1, L, C), or (N, L, C) where they differ by prompt. positions: (1, L, C). grid: (h, w).
    shared: the products of the first block, where the cells are the same for all prompts.
    """

    values: torch.Tensor
    positions: torch.Tensor
    grid: tuple[int, int]
    shared: Shared | None = None


def rows(maps: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) -> (N, h * w, C)."""
    return maps.flatten(2).transpose(1, 2).contiguous()


def lay_out(parts: Parts, image: torch.Tensor, positions: torch.Tensor, *, share: bool) -> Cells:
    """The cells of an image embedding with what the prompts add to it, and its positional encoding (1, C, h, w).

    image: (N, C, h, w), or (1, C, h, w) where the prompts all add the same, and only then may `share` be set.
    """
    values, encoded = rows(image), rows(positions)
    grid = (image.shape[-2], image.shape[-1])
    if not share:
        return Cells(values, encoded, grid)
    block = parts.blocks[0]
    to, back = block.to_cells, block.from_cells
    both = values + encoded
    queries = (both @ (back.query.weight.T * back.scale) + back.query.bias * back.scale)[0]
    return Cells(
        values,
        encoded,
        grid,
        Shared(
            keys=to.split(both @ to.key.weight.T).contiguous(),
            values=to.split(to.value(values)).contiguous(),
            queries=queries.T.unflatten(0, (back.heads, -1)).contiguous(),
        ),
    )


def two_way(parts: Parts, cells: Cells, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both blocks and the last attention: tokens (N, T, C) -> tokens (N, 1 + M, C) and cells (N, L, C).

    What is left of the tokens is that of the score and those of the M masks: the last attention moves no cell, so that
    the others need not take part.
    """
    positions, values, shared = tokens, cells.values, cells.shared
    for block in parts.blocks:
        norm1, norm2, norm3, norm4 = block.norms
        tokens = norm1(_among_tokens(block, tokens, positions))
        if shared is not None:
            attended = _to_shared_cells(block.to_cells, tokens + positions, shared)
        else:
            keys = (values + cells.positions).expand(len(tokens), -1, -1)
            attended = _to_cells(block.to_cells, tokens + positions, keys, values)
        tokens = norm2(tokens + attended)
        tokens = norm3(tokens + block.mlp(tokens))
        if shared is not None:
            attention = _from_shared_cells(block.from_cells, tokens + positions, shared)
        else:
            attention = _from_cells(block.from_cells, tokens + positions, keys)
        values = norm4(_add_tokens(block.from_cells, values, attention, tokens))
        shared = None  # the cells have met their prompts
    wanted = slice(parts.first, parts.first + 1 + len(parts.heads))
    tokens, positions = tokens[:, wanted], positions[:, wanted]
    attended = _to_cells(parts.final, tokens + positions, values + cells.positions, values)
    return parts.final_norm(tokens + attended), values


def _among_tokens(block: Block, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    a = block.own
    if block.positions == "all":
        tokens = tokens + positions
    keyed = tokens + positions if block.positions == "keys" else tokens
    q, k, v = a.split(a.query(keyed)), a.split(a.key(keyed)), a.split(a.value(tokens))
    attended = a.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return tokens + attended if block.residual else attended


def _to_shared_cells(a: Attention, tokens: torch.Tensor, shared: Shared) -> torch.Tensor:
    """Tokens (N, T, C) attend to the same cells: one attention of all their heads."""
    n, t, _ = tokens.shape
    q = a.query(tokens).view(1, n * t, a.heads, -1).transpose(1, 2)
    found = F.scaled_dot_product_attention(q, shared.keys, shared.values)
    return a.out(found.transpose(1, 2).reshape(n, t, -1))


def _to_cells(a: Attention, tokens: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Tokens (N, T, C) attend to cells, keys and values (N, L, C), whose projections are moved to the tokens."""
    q = a.split(a.query(tokens)) * a.scale
    moved = (q @ a.by_head(a.key)).flatten(1, 2)  # (N, heads * T, C)
    weights = torch.softmax(moved @ keys.transpose(1, 2), dim=-1)
    mean = (weights @ values).unflatten(1, (a.heads, -1))
    found = mean @ a.by_head(a.value).transpose(1, 2)
    return a.out(found.transpose(1, 2).flatten(2) + a.value.bias)


def _from_shared_cells(a: Attention, tokens: torch.Tensor, shared: Shared) -> torch.Tensor:
    """How much each cell attends to each token (N, T, C), when the cells are the same: (N, heads, T, L)."""
    n, t, _ = tokens.shape
    k = a.key(tokens).view(n * t, a.heads, -1).transpose(0, 1)
    scores = (k @ shared.queries).unflatten(1, (n, t)).transpose(0, 1)
    return torch.softmax(scores, dim=2)


def _from_cells(a: Attention, tokens: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """How much each cell (N, L, C) attends to each token (N, T, C): (N, heads, T, L)."""
    k = a.split(a.key(tokens)) * a.scale
    moved = (k @ a.by_head(a.query)).flatten(1, 2)
    # The bias of the queries meets each token's key and is the same for all cells, but not for all tokens.
    constant = k @ a.query.bias.view(a.heads, -1, 1)
    scores = torch.baddbmm(constant.flatten(1, 2), moved, queries.transpose(1, 2))
    return torch.softmax(scores.unflatten(1, (a.heads, -1)), dim=2)


def _add_tokens(a: Attention, values: torch.Tensor, attention: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cells (N or 1, L, C) and what they attend to: attention (N, heads, T, L) to tokens (N, T, C) -> (N, L, C)."""
    v = a.split(a.value(tokens))
    # The weights of each head sum to one, so each carries its share of the bias.
    moved = v @ a.out.weight.T.unflatten(0, (a.heads, -1)) + a.out.bias / a.heads
    return torch.baddbmm(
        values.expand(len(tokens), -1, -1), attention.flatten(1, 2).transpose(1, 2), moved.flatten(1, 2)
    )


@dataclass(frozen=True)
class Enlarger:
    """Cells (N, L, C) -> features at four times the side, and masks from them.

    A transposed convolution with stride 2 gives each cell 2 x 2 children, so two of them make 16 pixels of a cell.
    They stay beside each other in the order (row, column) of the cell, of the child in it, of the pixel in that.

    first: (C, 4 * middle) and second: (middle, 4 * last), the convolutions as matrices. add1: (4 * middle) or
    (L, 4 * middle), and add2: (4 * last) or (4 * L, 4 * last), their biases with what maps of higher resolution add.
    norm: LayerNorm2d, or a GroupNorm of one group, over all pixels.
    """

    first: torch.Tensor
    add1: torch.Tensor
    norm: Any
    second: torch.Tensor
    add2: torch.Tensor
    grid: tuple[int, int]

    def shown(self, upsampling: Upsampling, margin: int = 0) -> tuple[int, int]:
        """The rows and columns of cells that the image depends on, with a margin of pixels.

        Most photos leave a quarter of SAM's square frame empty. All, where a norm takes in all pixels, or where maps of
        higher resolution are added: their families fill the square.
        """
        height, width = self.grid
        if isinstance(self.norm, nn.GroupNorm) or self.add1.ndim > 1:
            return self.grid
        rows, columns = upsampling.read((4 * height, 4 * width))
        return min(-(-(rows + margin) // 4), height), min(-(-(columns + margin) // 4), width)

    def within(self, shown: tuple[int, int], cells: torch.Tensor) -> tuple[Enlarger, torch.Tensor]:
        """What enlarges the cells of these rows and columns, and they themselves, of all cells (N, L, C)."""
        if shown == self.grid:
            return self, cells
        kept = cells.unflatten(1, self.grid)[:, : shown[0], : shown[1]].flatten(1, 2)
        return replace(self, grid=shown), kept

    def features(self, cells: torch.Tensor) -> torch.Tensor:
        """(N, L, C) -> (N, last, 4h, 4w), channels last in memory."""
        (height, width), last = self.grid, self.second.shape[1] // 4
        x = cells.new_empty(len(cells), 16 * height * width, last)
        for prompts, pixels, values in self._tiles(cells):
            x[prompts, pixels] = values
        x = x.view(len(x), height, width, 2, 2, 2, 2, last).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return x.reshape(len(x), 4 * height, 4 * width, last).permute(0, 3, 1, 2)

    def masks(self, cells: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Cells (N, L, C) and the vectors of M mask tokens (N, M, last) -> logits (N, M, 4h, 4w)."""
        (height, width), count = self.grid, weights.shape[1]
        x = cells.new_empty(len(cells), count, 16 * height * width)
        for prompts, pixels, values in self._tiles(cells):
            x[prompts, :, pixels] = weights[prompts] @ values.transpose(1, 2)
        x = x.view(len(x), count, height, width, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return x.reshape(len(x), count, 4 * height, 4 * width)

    def _tiles(self, cells: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Prompts, pixels and their features (n, pixels, last): in pieces that fit the cache of a CPU, else at once."""
        n, length, _ = cells.shape
        prompts, tile = (1, TILE) if cells.device.type == "cpu" else (max(n, 1), length)
        for row in range(0, n, prompts):
            some = slice(row, row + prompts)
            # A norm over all pixels needs all of them first.
            whole = self._middle(cells[some], slice(0, length)) if isinstance(self.norm, nn.GroupNorm) else None
            for start in range(0, length, tile):
                part = slice(start, min(start + tile, length))
                children, pixels = (slice(k * part.start, k * part.stop) for k in (4, 16))
                middle = self._middle(cells[some, part], part) if whole is None else whole[:, children]
                yield some, pixels, self._last(middle, children)

    def _middle(self, cells: torch.Tensor, part: slice) -> torch.Tensor:
        """(n, P, C) -> (n, 4 * P, middle), between the convolutions."""
        x = _product(cells, self.first, self.add1, part).unflatten(2, (4, -1)).flatten(1, 2)
        weight, bias, eps = self.norm.weight, self.norm.bias, self.norm.eps
        if isinstance(self.norm, nn.GroupNorm):
            return F.gelu(torch.addcmul(bias, F.layer_norm(x, x.shape[1:], eps=eps), weight))
        return F.gelu(F.layer_norm(x, x.shape[2:], weight, bias, eps))

    def _last(self, middle: torch.Tensor, part: slice) -> torch.Tensor:
        """(n, P, middle) -> (n, 4 * P, last)."""
        x = F.gelu(_product(middle, self.second, self.add2, part))
        return x.unflatten(2, (4, -1)).flatten(1, 2)


def _product(x: torch.Tensor, weight: torch.Tensor, add: torch.Tensor, part: slice) -> torch.Tensor:
    """x (n, P, A) @ weight (A, B) + add, (B) or the rows `part` of (P', B): (n, P, B)."""
    n = len(x)
    added = add if add.ndim == 1 else add[part]
    return torch.baddbmm(added.expand(n, x.shape[1], -1), x, weight.expand(n, -1, -1))


def enlarger(parts: Parts, grid: tuple[int, int], finer: Sequence[torch.Tensor] = ()) -> Enlarger:
    """The enlarger of a decoder for cells of that grid.

    finer: SAM 2's maps of higher resolution, (1, middle, 2h, 2w) and (1, last, 4h, 4w), or nothing.
    """
    first, norm, second = parts.enlarge
    assert first.bias is not None and second.bias is not None
    add1, add2 = first.bias.repeat(4), second.bias.repeat(4)
    if finer:
        height, width = grid
        children = finer[0][0].unflatten(1, (height, 2)).unflatten(3, (width, 2)).permute(1, 3, 2, 4, 0)
        pixels = finer[1][0].unflatten(1, (height, 2, 2)).unflatten(4, (width, 2, 2)).permute(1, 4, 2, 5, 3, 6, 0)
        add1 = children.reshape(height * width, -1) + add1
        add2 = pixels.reshape(4 * height * width, -1) + add2
    return Enlarger(_as_matrix(first), add1, norm, _as_matrix(second), add2, grid)


def _as_matrix(conv: nn.ConvTranspose2d) -> torch.Tensor:
    """The weight (in, out, 2, 2) of a transposed convolution with stride 2 as (in, 4 * out), child by child."""
    return conv.weight.permute(0, 2, 3, 1).flatten(1)


def decode(parts: Parts, cells: Cells, sparse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embedded prompts (N, P, C) -> cells (N, L, C), vectors of the M mask tokens (N, M, last), scores float32."""
    tokens = torch.cat([parts.tokens.expand(len(sparse), -1, -1), sparse], dim=1)
    found, values = two_way(parts, cells, tokens)
    weights = torch.stack([head(found[:, 1 + i]) for i, head in enumerate(parts.heads)], dim=1)
    return values, weights, parts.score(found[:, 0]).float()


# (prompts, tokens (n, m) int64, whole) -> logits (n, m, h, w); prompts are (n,) int64, or slice(None) for all.
# Unless the `whole` is wanted, padding, which no image depends on (Upsampling.read), may have zeros for logits.
Draw = Callable[[slice | torch.Tensor, torch.Tensor, bool], torch.Tensor]


def draw_masks(enlarge: Enlarger, cells: torch.Tensor, weights: torch.Tensor, upsampling: Upsampling) -> Draw:
    """Draws dot products of enlarged cells (N, L, C) and the vectors of the mask tokens (N, M, last)."""
    shown = enlarge.shown(upsampling)

    def draw(prompts: slice | torch.Tensor, tokens: torch.Tensor, whole: bool) -> torch.Tensor:
        part, some = (enlarge, cells[prompts]) if whole else enlarge.within(shown, cells[prompts])
        return padded(part.masks(some, chosen(weights, prompts, tokens)), enlarge.grid)

    return draw


def padded(drawn: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Masks (N, M, h, w) of the first rows and columns -> of all of a grid of cells, with zeros for the others."""
    height, width = (4 * cells - pixels for cells, pixels in zip(grid, drawn.shape[-2:], strict=True))
    return F.pad(drawn, (0, width, 0, height)) if height or width else drawn


class DrawnCandidates(MaskCandidates):
    """Candidates whose logits are made when they are asked for, since a rule needs one token of four, and a filter by
    predicted IoU no mask at all of most prompts.

    single: as in MaskCandidates, or a function of the candidates that makes it when it is asked for.
    """

    draw: Draw
    choose_single: Callable[[DrawnCandidates], torch.Tensor]

    def __init__(
        self,
        draw: Draw,
        scores: torch.Tensor,
        multimask: tuple[int, ...],
        single: torch.Tensor | Callable[[DrawnCandidates], torch.Tensor],
        upsampling: Upsampling,
    ) -> None:
        # Not through the frozen dataclass's own __init__, which wants logits.
        self.__dict__.update(draw=draw, scores=scores, multimask=multimask, upsampling=upsampling)
        self.__dict__["choose_single" if callable(single) else "single"] = single

    @cached_property
    @torch.inference_mode()
    def logits(self) -> torch.Tensor:
        n, count = self.scores.shape
        return self.draw(slice(None), torch.arange(count, device=self.scores.device).expand(n, -1), True)

    @cached_property
    @torch.inference_mode()
    def single(self) -> torch.Tensor:
        return self.choose_single(self)

    @torch.inference_mode()
    def take(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if "logits" in self.__dict__:
            return super().take(tokens)
        column = tokens.to(self.scores.device)[:, None]
        return self.draw(slice(None), column, False)[:, 0], self.scores.gather(1, column)[:, 0]

    @torch.inference_mode()
    def at(self, prompts: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        if "logits" in self.__dict__:
            return super().at(prompts, tokens)
        rows, place = prompts.unique(return_inverse=True)
        device = self.scores.device
        if len(rows) == len(prompts):
            return self.draw(prompts.to(device), tokens.to(device)[:, None], False)[:, 0]
        every = torch.arange(self.scores.shape[1], device=device).expand(len(rows), -1)
        return self.draw(rows.to(device), every, False)[place.to(device), tokens.to(device)]


def chosen(weights: torch.Tensor, prompts: slice | torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The vectors (n, m, last) of some tokens (n, m) of some prompts, of all (N, M, last)."""
    return weights[prompts].gather(1, tokens[..., None].expand(-1, -1, weights.shape[2]))
