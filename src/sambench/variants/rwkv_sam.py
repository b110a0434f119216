"""RWKV-SAM small: convolutions, then blocks whose attention is linear in the number of tokens (arXiv 2406.19369).

Official code: HarborYuan/ovsam at commit 137d2c2, projects/rwkvsam/models (backbones/vitamin.py, necks/last_layer.py,
heads/sam_mask_decoder_rwkv_mlpmerge.py) and ext/rwkv/cls_backbones/backbones (vrwkv.py, cuda/wkv_cuda.cu).

No weights were ever published, so this is for cost and time. The encoder and the neck are those of the released
configuration rwkvsam1001_000_vith_vitamin_rwkv_small_mlp2; the decoder is the official class whose channels fit it, put
together with them by us: no released configuration names it.

The CUDA kernel is not needed: its sums over all tokens before and after each one are two cumulative sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.vitamin import MbConvLNBlock, Stem, StridedConv
from torch import nn

from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime
from sambench.variants.neural import renamer
from sambench.variants.sam import ResizedImage, SamVariant, longest_side

WIDTHS, BLOCKS = (64, 128, 384), (2, 4, 14)  # of the two convolutional stages and of the blocks of tokens
MLP_RATIO = 2
MIDDLE = 7  # the block after which the official backbone also hands out its map
CHUNKS = 32  # parts of the sequence that the official kernel works on side by side
EPSILON = 1e-6
RENAMES = [
    (r"^(backbone|neck)\.", r"image_encoder.\1."),
    (r"^pe\.", "prompt_encoder."),
    (r"^mask_decoder\.mask_decoder\.", "mask_decoder."),
    (r"^image_encoder\.neck\.out_proj\.", "image_encoder.neck."),
]


def wkv(decay: torch.Tensor, bonus: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The bidirectional WKV of the official kernel: a weighted mean of the values of all tokens, (B, T, C) float32.

    k, v: (B, T, C) float32. decay (w), bonus (u): (C,), already divided by T. Token t weighs itself exp(u + k_t), and
    token j exp(k_j - d w). In the paper d is |t - j| - 1 throughout. The kernel cuts the sequence into 32 chunks, and
    with s the first token of the chunk of t:

    - after t, d is j - t; before s, it is t - j; only from s to t is it t - j - 1;
    - of every token after s up to t, which it takes out of what lies ahead one step too late,
      exp(k_j + (t - j) w) (1 - exp(w)) remains.

    Both differences are of the order of w. Sums are taken of exp(k_j + j w) and exp(k_j - j w), with the largest
    exponent of k taken out, and with positions counted from the middle, so that |w T / 2| is all that they span.
    """
    length = k.shape[1]
    position = torch.arange(length, device=k.device, dtype=k.dtype) - (length - 1) / 2
    slope = position[:, None] * decay  # (T, C)
    largest = k.amax(dim=1, keepdim=True)
    weight = (k - largest).exp()
    both = torch.stack([weight * v, weight])  # numerator and denominator

    before = (both * slope.exp()).cumsum(dim=2)
    after = (both * (-slope).exp()).cumsum(dim=2)
    chunk = -(-length // CHUNKS)
    first = torch.arange(length, device=k.device) // chunk * chunk
    start = first - 1

    def until(sums: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Sums over all tokens up to the index; zero before the first."""
        return F.pad(sums, (0, 0, 1, 0)).index_select(2, index + 1)

    gone = until(before, torch.arange(length, device=k.device) - 1)
    left = (-slope).exp() * (gone + torch.expm1(decay) * (gone - until(before, start)))
    residue = torch.expm1(decay) * (after - until(after, first))
    right = slope.exp() * (after[:, :, -1:] - after - residue)
    own = (bonus + k - largest).exp()
    numerator, denominator = left + right + torch.stack([own * v, own])
    # The kernel adds its epsilon when the largest exponent of the sum has been taken out.
    scale = torch.maximum(bonus, torch.zeros_like(bonus)).exp()
    return numerator / (denominator + EPSILON * scale)


def shifted(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W): a quarter of the channels from each neighbour: left, right, above, below; zero beyond the edge."""
    quarters = x.chunk(4, dim=1)
    moves = ((1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))
    return torch.cat([F.pad(part, move) for part, move in zip(quarters, moves, strict=True)], dim=1)


def neighbours(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """`shifted` for tokens (B, T, C) of a grid (H, W)."""
    return shifted(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)


class SpatialMix(nn.Module):
    """Tokens (B, T, C) mixed over the whole image, gated by what each of them receives."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial_decay = nn.Parameter(torch.zeros(width))
        self.spatial_first = nn.Parameter(torch.zeros(width))
        for name in "kvr":
            self.register_parameter(f"spatial_mix_{name}", nn.Parameter(torch.full((1, 1, width), 0.5)))
        self.key, self.value, self.receptance, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        other, length = neighbours(x, grid), x.shape[1]
        k, v, r = (torch.lerp(other, x, self.get_parameter(f"spatial_mix_{name}")) for name in "kvr")
        decay, bonus = self.spatial_decay.float() / length, self.spatial_first.float() / length
        mixed = wkv(decay, bonus, self.key(k).float(), self.value(v).float())
        return self.output(self.receptance(r).sigmoid() * mixed.to(x.dtype))


class ChannelMix(nn.Module):
    """Tokens (B, T, C), each through a gated layer with a squared ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in "kr":
            self.register_parameter(f"spatial_mix_{name}", nn.Parameter(torch.full((1, 1, width), 0.5)))
        self.key = nn.Linear(width, MLP_RATIO * width, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(MLP_RATIO * width, width, bias=False)

    def forward(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        other = neighbours(x, grid)
        k, r = (torch.lerp(other, x, self.get_parameter(f"spatial_mix_{name}")) for name in "kr")
        return self.receptance(r).sigmoid() * self.value(self.key(k).relu().square())


class RwkvBlock(nn.Module):
    """A block of a spatial and a channel mix, each on normed tokens and scaled by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = SpatialMix(width), ChannelMix(width)
        self.layer_scale_1 = nn.Parameter(torch.full((width,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((width,), 1e-2))

    def forward(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        x = x + self.layer_scale_1 * self.attn(self.norm1(x), grid)
        return x + self.layer_scale_2 * self.mlp(self.norm2(x), grid)


class RwkvBackbone(nn.Module):
    """(B, 3, 1024, 1024) -> maps of 64 channels at 1/4, 128 at 1/8, and 384 at 1/16: amid the blocks and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(3, WIDTHS[0])
        self.conv_stages = nn.ModuleList(
            nn.Sequential(*(MbConvLNBlock(width if i else inputs, width, stride=1 if i else 2) for i in range(depth)))
            for (inputs, width), depth in zip(pairwise((WIDTHS[0], *WIDTHS[:2])), BLOCKS[:2], strict=True)
        )
        self.conv_final_pool = StridedConv(in_chans=WIDTHS[1], embed_dim=WIDTHS[2])
        self.layers = nn.ModuleList(RwkvBlock(WIDTHS[2]) for _ in range(BLOCKS[2]))
        self.final_norm = nn.LayerNorm(WIDTHS[2], eps=1e-6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        fine = self.conv_stages[0](self.stem(x))
        finer = self.conv_stages[1](fine)
        x = self.conv_final_pool(finer)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        middle = x
        for i, block in enumerate(self.layers):
            x = block(x, grid)
            if i == MIDDLE:
                middle = x
        middle, last = (tokens.transpose(1, 2).unflatten(2, grid) for tokens in (middle, self.final_norm(x)))
        return fine, finer, middle, last


class RwkvEncoder(nn.Module):
    """(B, 3, 1024, 1024) -> the embedding (B, 256, 64, 64) and the maps of the two convolutional stages."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = RwkvBackbone()
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[2], 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fine, finer, _, last = self.backbone(x)
        return self.neck(last), fine, finer


def refine(first: nn.Module, last_inputs: int = 64) -> nn.Sequential:
    """A first layer to 64 channels, a norm, and a convolution to 32."""
    return nn.Sequential(first, LayerNorm2d(64), nn.GELU(), nn.Conv2d(last_inputs, 32, 3, padding=1))


class RwkvMaskDecoder(MaskDecoder):
    """SAM's mask decoder with its first mask token alone, and the finer maps of the encoder mixed into its own."""

    def __init__(self) -> None:
        super().__init__(
            transformer_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        )
        self.output_hypernetworks_mlps = nn.ModuleList([self.get_submodule("output_hypernetworks_mlps.0")])
        self.hr_feat_proj = refine(nn.Conv2d(WIDTHS[0], 64, 3, padding=1))
        self.mr_feat_proj = refine(nn.ConvTranspose2d(WIDTHS[1], 64, kernel_size=2, stride=2))
        self.mix_feat_proj = refine(nn.Conv2d(3 * 32, 64, 3, padding=1))

    def predict_one(
        self,
        embedding: torch.Tensor,
        finer: Sequence[torch.Tensor],
        positions: torch.Tensor,
        sparse: torch.Tensor,
        dense: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """embedding (1, 256, 64, 64), finer maps (1, 32, 256, 256) -> logits (N, 1, 256, 256), scores (N, 1)."""
        n = len(sparse)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight[:1]])
        tokens = torch.cat([own.expand(n, -1, -1), sparse], dim=1)
        image = embedding.expand(n, -1, -1, -1) + dense
        tokens, pixels = self.transformer(image, positions.expand(n, -1, -1, -1), tokens)
        enlarged = self.output_upscaling(pixels.transpose(1, 2).view(image.shape))
        maps = [enlarged, *(one.expand(n, -1, -1, -1) for one in finer)]
        enlarged = self.mix_feat_proj(torch.cat(maps, dim=1)) + enlarged
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])[:, None]
        logits = (weights @ enlarged.flatten(2)).unflatten(2, enlarged.shape[2:])
        return logits, self.iou_prediction_head(tokens[:, 0])[:, :1]


class RwkvSamVariant(SamVariant):
    """RWKV-SAM: one mask per prompt. Its prompt encoder takes every point for one inside the object."""

    takes_masks = False

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(RwkvEncoder(), runtime, renamer(RENAMES))
        self.module.mask_decoder = RwkvMaskDecoder().eval().requires_grad_(False)

    def prepare(self, image: np.ndarray) -> ResizedImage:
        height, width = longest_side(image.shape[0], image.shape[1], self.pixel_size)
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return ResizedImage(resized, image.shape[:2])

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """image_embedding (B, 256, 64, 64), and what the decoder makes of finer maps, 0 and 1: (B, 32, 256, 256)."""
        embedding, fine, finer = self.module.image_encoder(pixels)
        decoder = self.module.mask_decoder
        return {
            "image_embedding": embedding,
            "finer0": decoder.mr_feat_proj(finer),
            "finer1": decoder.hr_feat_proj(fine),
        }

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        points, labels, boxes = self.tensor_points(prompts, self.prompt_scale(features))
        if labels is not None:
            labels = labels.where(labels < 0, 1)
        sparse, dense = self.embed_prompts(points, labels, boxes)
        logits, scores = self.module.mask_decoder.predict_one(
            features.maps["image_embedding"],
            [features.maps["finer0"], features.maps["finer1"]],
            self.module.prompt_encoder.get_dense_pe().to(self.dtype),
            sparse.to(self.dtype),
            dense.to(self.dtype),
        )
        return MaskCandidates(
            logits=logits,
            scores=scores.float(),
            multimask=(0,),
            single=torch.zeros(len(prompts), dtype=torch.int64, device=self.device),
            upsampling=self.upsampling(features),
        )


def build_rwkv_sam(runtime: Runtime) -> RwkvSamVariant:
    """RWKV-SAM small."""
    return RwkvSamVariant(runtime)
