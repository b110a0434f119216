"""SAM-HQ and Light HQ-SAM: SAM with one more mask token, on features of an early layer (arXiv 2306.01567).

Official code: segment_anything/modeling/mask_decoder_hq.py of the sam-hq repository. Its mask is the sum of
one of SAM's masks and the high-quality one, so every candidate here is such a sum: token 0 is the official
single mask, the best of tokens 1-3 the official multimask output (which is one mask).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import nn

from sambench.variants.base import Features, Runtime
from sambench.variants.encoders.tiny_vit import TINY_VIT_DEAD_KEYS, TINY_VIT_RENAMES, TinyViTEncoder
from sambench.variants.fast_decoder import Draw, chosen, decode, enlarger, padded, parts_of
from sambench.variants.neural import renamer
from sambench.variants.sam import VITS, SamVariant, sam_vit

CONVOLVED = 2  # pixels that the two convolutions of the high-quality features look aside
LIGHT_RENAMES = [
    *TINY_VIT_RENAMES,
    (r"^image_encoder\.backbone\.stages\.2\.downsample\.", "image_encoder.early."),
]


class HqViT(nn.Module):
    """SAM's ViT that also hands out what its global blocks yield.

    (B, 3, 1024, 1024) -> (B, 256, 64, 64) and four maps (B, 64, 64, C), channels last as officially.
    """

    def __init__(self, vit: ImageEncoderViT) -> None:
        super().__init__()
        self.vit: ImageEncoderViT = vit

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = self.vit.patch_embed(x) + self.vit.pos_embed
        taps = []
        for block in self.vit.blocks:
            x = block(x)
            if block.window_size == 0:
                taps.append(x)
        return self.vit.neck(x.permute(0, 3, 1, 2)), taps


class HqTinyViT(nn.Module):
    """TinyViT that also hands out the input of its third stage, (B, 64, 64, 160)."""

    def __init__(self) -> None:
        super().__init__()
        plain = TinyViTEncoder()
        self.backbone, self.neck = plain.backbone, plain.neck
        self.early: Any = self.backbone.stages[2].downsample
        self.backbone.stages[2].downsample = nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        first, second, third, fourth = self.backbone.stages
        early = self.early(second(first(self.backbone.patch_embed(x))))
        return self.neck(fourth(third(early))), [early.permute(0, 2, 3, 1)]


def upsampler(channels: int, middle: int) -> list[nn.Module]:
    """(B, channels, h, w) -> (B, 32, 4h, 4w) by two transposed convolutions."""
    return [
        nn.ConvTranspose2d(channels, middle, kernel_size=2, stride=2),
        LayerNorm2d(middle),
        nn.GELU(),
        nn.ConvTranspose2d(middle, 32, kernel_size=2, stride=2),
    ]


class HqMaskDecoder(MaskDecoder):
    """SAM's mask decoder with the high-quality token; `channels` are those of the early features."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            transformer_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        )
        self.hf_token = nn.Embedding(1, 256)
        self.hf_mlp = MLP(256, 256, 32, 3)
        self.compress_vit_feat = nn.Sequential(*upsampler(channels, 256))
        self.embedding_encoder = nn.Sequential(*upsampler(256, 64))
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(32, 64, 3, padding=1), LayerNorm2d(64), nn.GELU(), nn.Conv2d(64, 32, 3, padding=1)
        )

    def hq_features(self, embedding: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        """(B, 256, 64, 64) and early features (B, 64, 64, C) -> (B, 32, 256, 256), for all prompts."""
        return self.embedding_encoder(embedding) + self.compress_vit_feat(early.permute(0, 3, 1, 2))

    def predict_all(
        self,
        embedding: torch.Tensor,
        hq_features: torch.Tensor,
        positions: torch.Tensor,
        sparse: torch.Tensor,
        dense: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """SAM's masks (N, 4, 256, 256), the high-quality mask (N, 1, 256, 256), SAM's scores (N, 4)."""
        n = sparse.shape[0]  # an exported graph takes any number
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight, self.hf_token.weight])
        tokens = torch.cat([own.expand(n, -1, -1), sparse], dim=1)
        image = embedding.expand(n, -1, -1, -1) + dense
        tokens, pixels = self.transformer(image, positions.expand(n, -1, -1, -1), tokens)
        enlarged = self.output_upscaling(pixels.transpose(1, 2).view(image.shape))
        enlarged_hq = self.embedding_maskfeature(enlarged) + hq_features
        heads = [*self.output_hypernetworks_mlps, self.hf_mlp]
        weights = torch.stack([head(tokens[:, 1 + i]) for i, head in enumerate(heads)], dim=1)
        masks = torch.einsum("nmc,nchw->nmhw", weights[:, :-1], enlarged)
        hq_mask = torch.einsum("nmc,nchw->nmhw", weights[:, -1:], enlarged_hq)
        return masks, hq_mask, self.iou_prediction_head(tokens[:, 0])

    def hq_masks(self, enlarged: torch.Tensor, hq_features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """The high-quality masks (N, 1, h, w) of enlarged cells (N, 32, h, w), fast.

        vectors: (N, 32), of the high-quality token. Its product is moved before the last convolution, which then has
        one channel a prompt instead of 32: nine products with each pixel, shifted and added.
        """
        layers: Any = self.embedding_maskfeature
        widen, norm, _, narrow = layers
        size = enlarged.shape[-2:]
        x = widen(enlarged).permute(0, 2, 3, 1).flatten(1, 2)
        x = F.gelu(F.layer_norm(x, x.shape[2:], norm.weight, norm.bias, norm.eps))
        # `fold` puts what a pixel gives at an offset to where it goes, a convolution reads from there: hence the flip.
        kernels = torch.einsum("no,ockl->nklc", vectors, narrow.weight).flatten(1, 2).flip(1)
        shifted = F.fold(kernels @ x.transpose(1, 2), size, kernel_size=3, padding=1)
        same = vectors @ (hq_features.flatten(2)[0] + narrow.bias[:, None])
        return shifted + same.view(-1, 1, *size)


class HqSamVariant(SamVariant):
    """A SAM-HQ model.

    hq_only: all candidates are the high-quality mask alone (`hq_token_only` of the official predictor).
    """

    hq_only = False

    def __init__(
        self,
        image_encoder: nn.Module,
        channels: int,
        runtime: Runtime,
        rename: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        super().__init__(image_encoder, runtime, rename)
        self.module.mask_decoder = HqMaskDecoder(channels).eval().requires_grad_(False)

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """features (B, 256, 64, 64), taps interm0.. (B, 64, 64, C), hq_features (B, 32, 256, 256)."""
        embedding, taps = self.module.image_encoder(pixels)
        return {
            "features": embedding,
            "hq_features": self.module.mask_decoder.hq_features(embedding, taps[0]),
            **{f"interm{i}": tap for i, tap in enumerate(taps)},
        }

    def predict_masks(
        self, features: Features, sparse: torch.Tensor, dense: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        masks, hq_mask, scores = self.module.mask_decoder.predict_all(
            features.maps["features"],
            features.maps["hq_features"],
            self.module.prompt_encoder.get_dense_pe().to(self.dtype),
            sparse.to(self.dtype),
            dense.to(self.dtype),
        )
        return (hq_mask.expand_as(masks) if self.hq_only else masks + hq_mask), scores

    def draw(
        self, features: Features, sparse: torch.Tensor, dense: torch.Tensor, *, share: bool
    ) -> tuple[Draw, torch.Tensor]:
        decoder, hq_only = self.module.mask_decoder, self.hq_only
        parts = parts_of(decoder, (decoder.hf_token, decoder.hf_mlp))
        cells = self.cells(features, features.maps["features"], parts, dense, share=share)
        values, weights, scores = decode(parts, cells, sparse)
        enlarge, hq_features = enlarger(parts, cells.grid), features.maps["hq_features"]
        shown = enlarge.shown(self.upsampling(features), CONVOLVED)

        def draw(prompts: slice | torch.Tensor, tokens: torch.Tensor, whole: bool) -> torch.Tensor:
            part, some = (enlarge, values[prompts]) if whole else enlarge.within(shown, values[prompts])
            enlarged = part.features(some)
            height, width = enlarged.shape[-2:]
            hq_masks = decoder.hq_masks(enlarged, hq_features[..., :height, :width], weights[prompts, -1])
            if hq_only:
                return padded(hq_masks.expand(-1, tokens.shape[1], -1, -1), enlarge.grid)
            masks = chosen(weights, prompts, tokens) @ enlarged.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)
            return padded(masks.unflatten(2, (height, width)) + hq_masks, enlarge.grid)

        return draw, scores


def build_hq_sam(runtime: Runtime, encoder: str) -> HqSamVariant:
    """SAM-HQ with SAM's `vit_b`, `vit_l` or `vit_h`."""
    vit = sam_vit(*VITS[encoder])
    rename = renamer([(r"^image_encoder\.", "image_encoder.vit.")])
    return HqSamVariant(HqViT(vit), vit.pos_embed.shape[-1], runtime, rename)


def build_light_hq_sam(runtime: Runtime) -> HqSamVariant:
    """Light HQ-SAM: MobileSAM's encoder with the high-quality token."""
    return HqSamVariant(HqTinyViT(), 160, runtime, renamer(LIGHT_RENAMES, TINY_VIT_DEAD_KEYS))
