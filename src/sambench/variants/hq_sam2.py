"""HQ-SAM 2: SAM 2.1 with the high-quality token of SAM-HQ.

Official code: sam-hq2/sam2/modeling/sam/mask_hq_decoder.py of the sam-hq repository. Unlike SAM-HQ it takes no features
of early layers: the token's mask is computed on the decoder's own enlarged map after two more convolutions. As in
SAM-HQ the official mask is the sum of one of SAM's masks and the high-quality one, and so is every candidate here;
which of SAM's masks is the single one is decided by the stability of SAM's mask alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from transformers import Sam2MaskDecoderConfig
from transformers.models.sam2.modeling_sam2 import Sam2FeedForward

from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime
from sambench.variants.sam2 import (
    HIERA_RENAMES,
    AllTokensDecoder,
    Sam2Network,
    Sam2Variant,
    hiera_encoder,
    sam2_renamer,
)


class Hq2MaskDecoder(AllTokensDecoder):
    """SAM 2's mask decoder with one more token: logits (I, P, 5, h, w), of which the last is the high-quality mask."""

    def __init__(self, config: Sam2MaskDecoderConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.hf_token = nn.Embedding(1, width)
        self.hf_mlp = Sam2FeedForward(width, width, width // 8, 3)
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(width // 8, width // 4, 3, padding=1),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.Conv2d(width // 4, width // 8, 3, padding=1),
        )

    def forward(  # type: ignore[override]
        self,
        image_embeddings: torch.Tensor,
        image_positional_embeddings: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        multimask_output: bool,
        high_resolution_features: list[torch.Tensor],
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """I images with P prompts each, sparse (I, P, T, 256) -> logits (I, P, 5, h, w), scores (I, P, 4)."""
        images, prompts = sparse_prompt_embeddings.shape[:2]
        embeddings = (self.obj_score_token, self.iou_token, self.mask_tokens, self.hf_token)
        own = torch.cat([embedding.weight for embedding in embeddings]).expand(images, prompts, -1, -1)

        def of_prompts(value: torch.Tensor) -> torch.Tensor:
            return value.repeat_interleave(prompts, dim=0)

        source = of_prompts(image_embeddings + dense_prompt_embeddings)
        tokens, cells = self.transformer(
            point_embeddings=torch.cat([own, sparse_prompt_embeddings], dim=2),
            image_embeddings=source,
            image_positional_embeddings=of_prompts(image_positional_embeddings),
            attention_similarity=None,
            target_embedding=None,
        )
        finest, finer = (of_prompts(value) for value in high_resolution_features)
        x = self.upscale_conv1(cells.transpose(2, 3).reshape(source.shape)) + finer
        x = self.activation(self.upscale_conv2(self.activation(self.upscale_layer_norm(x))) + finest)

        heads = [*self.output_hypernetworks_mlps, self.hf_mlp]
        weights = torch.stack([head(tokens[:, :, 2 + i]) for i, head in enumerate(heads)], dim=2).flatten(0, 1)
        masks = torch.einsum("nmc,nchw->nmhw", weights[:, :-1], x)
        hq_mask = torch.einsum("nmc,nchw->nmhw", weights[:, -1:], self.embedding_maskfeature(x))
        logits = torch.cat([masks, hq_mask], dim=1).unflatten(0, (images, prompts))
        return logits, self.iou_prediction_head(tokens[:, :, 1])


class HqSam2Variant(Sam2Variant):
    """An HQ-SAM 2 model.

    hq_only: all candidates are the high-quality mask alone (`hq_token_only` of the official predictor).
    """

    hq_only = False

    @property
    def fast(self) -> bool:
        """Always the official decoder: the fast one knows neither its token nor the features that it meets."""
        return False

    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        candidates = super().decode(features, prompts)
        masks, hq_mask = candidates.logits[:, :-1], candidates.logits[:, -1:]
        return replace(candidates, logits=hq_mask.expand_as(masks) if self.hq_only else masks + hq_mask)


def build_hq_sam2(runtime: Runtime, size: str) -> HqSam2Variant:
    """HQ-SAM 2 on SAM 2.1 with Hiera of that size; only `large` was released."""
    network = Sam2Network(hiera_encoder(size), decoder=Hq2MaskDecoder)
    return HqSam2Variant(network, runtime, sam2_renamer(HIERA_RENAMES))
