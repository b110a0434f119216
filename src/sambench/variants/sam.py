"""The SAM-1 family: any image encoder that ends in (256, 64, 64), with segment-anything's prompt encoder and decoder.

Official code: segment_anything/predictor.py (resizing, coordinates), modeling/sam.py (normalization, upsampling),
modeling/mask_decoder.py (the four mask tokens: 0 for single mask output, 1-3 for multimask output).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import nn

from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.fast_decoder import (
    Cells,
    Draw,
    DrawnCandidates,
    Parts,
    decode,
    draw_masks,
    enlarger,
    lay_out,
    parts_of,
)
from sambench.variants.neural import NeuralVariant, renamer

FRAME = 1024  # prompts and masks of the whole family live in a square frame of this side
MULTIMASK = (1, 2, 3)  # mask tokens of the multimask output
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
# Width, blocks, heads, and the blocks with global attention (segment_anything/build_sam.py).
VITS = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


@dataclass(frozen=True)
class ResizedImage:
    """A resized image: (h, w, 3) uint8 RGB, and the (height, width) it came from."""

    image: np.ndarray
    original_size: tuple[int, int]


def longest_side(height: int, width: int, length: int) -> tuple[int, int]:
    """(height, width) with the longer one scaled to `length`, rounded half up (ResizeLongestSide)."""
    scale = length / max(height, width)
    # At least a pixel: the official code fails on an image 2,048 times longer than wide.
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class SamNetwork(nn.Module):
    """The three parts under the names that every SAM-1 checkpoint uses."""

    image_encoder: Any
    prompt_encoder: Any
    mask_decoder: Any

    def __init__(self, image_encoder: nn.Module, prompt_encoder: nn.Module, mask_decoder: nn.Module) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder


class MaskedPromptEncoder(PromptEncoder):
    """SAM's prompt encoder without its indexing by masks, for which the CPU would wait for the GPU five times."""

    def _embed_points(self, points: torch.Tensor, labels: torch.Tensor, pad: bool) -> torch.Tensor:
        """points (N, P, 2) in the frame, labels (N, P) -> (N, P, 256), or (N, P + 1, 256) with a padding point."""
        points = points + 0.5
        if pad:
            points, labels = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=-1)
        labels = labels[..., None]
        embedding = self.pe_layer.forward_with_coords(points, self.input_image_size)
        embedding = torch.where(labels == -1, self.not_a_point_embed.weight, embedding)
        for label in (0, 1):
            embedding = torch.where(labels == label, embedding + self.point_embeddings[label].weight, embedding)
        return embedding


def sam_vit(
    width: int, depth: int, heads: int, global_blocks: tuple[int, ...], mlp_width: int | None = None
) -> ImageEncoderViT:
    """SAM's image encoder, (B, 3, 1024, 1024) -> (B, 256, 64, 64); mlp_width: four times the width unless given."""
    return ImageEncoderViT(
        img_size=FRAME,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=4 if mlp_width is None else mlp_width / width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=global_blocks,
    )


def sam_prompt_encoder() -> PromptEncoder:
    """SAM's prompt encoder for a 64x64 embedding of a 1024 frame."""
    return MaskedPromptEncoder(
        embed_dim=256, image_embedding_size=(64, 64), input_image_size=(FRAME, FRAME), mask_in_chans=16
    )


def sam_mask_decoder() -> MaskDecoder:
    """SAM's two-way mask decoder with one single-mask and three multimask tokens."""
    return MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        transformer_dim=256,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )


class SamVariant(NeuralVariant):
    """A SAM-1 model.

    pixel_size: the side of the square that the encoder sees; EfficientViT-SAM L0-L2 encode 512 pixels although
        prompts and masks stay in the 1024 frame.
    """

    module: SamNetwork
    takes_masks = True

    def __init__(
        self,
        image_encoder: nn.Module,
        runtime: Runtime,
        rename: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
        *,
        pixel_size: int = FRAME,
    ) -> None:
        super().__init__(SamNetwork(image_encoder, sam_prompt_encoder(), sam_mask_decoder()), runtime, rename)
        self.pixel_size = pixel_size

    def keep_float32(self) -> None:
        self.module.prompt_encoder.float()

    def compile(self) -> None:
        self.module.image_encoder.compile()

    def prepare(self, image: np.ndarray) -> ResizedImage:
        height, width = longest_side(image.shape[0], image.shape[1], self.pixel_size)
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return ResizedImage(np.asarray(resized), image.shape[:2])

    def pixels(self, prepared: ResizedImage) -> torch.Tensor:
        x = self.on_device(torch.tensor(prepared.image)).permute(2, 0, 1)[None].contiguous()
        mean, std = (self.on_device(torch.tensor(v).view(1, 3, 1, 1)) for v in (PIXEL_MEAN, PIXEL_STD))
        height, width = prepared.image.shape[:2]
        return F.pad((x - mean) / std, (0, self.pixel_size - width, 0, self.pixel_size - height))

    def sizes(self, prepared: ResizedImage) -> tuple[tuple[int, int], tuple[int, int]]:
        return prepared.original_size, longest_side(*prepared.original_size, FRAME)

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image_embedding": self.module.image_encoder(pixels)}

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        points, labels, boxes = self.tensor_points(prompts, self.prompt_scale(features))
        sparse, dense = self.embed_prompts(points, labels, boxes)
        share = prompts.masks is None
        if prompts.masks is not None:
            dense = self.module.prompt_encoder.mask_downscaling(prompts.masks[:, None].float())
        single = torch.zeros(len(prompts), dtype=torch.int64, device=self.device)
        upsampling = self.upsampling(features)
        if self.fast:
            dense = dense[:1] if share else dense
            draw, scores = self.draw(features, sparse.to(self.dtype), dense.to(self.dtype), share=share)
            return DrawnCandidates(draw, scores, MULTIMASK, single, upsampling)
        logits, scores = self.predict_masks(features, sparse, dense)
        return MaskCandidates(logits, scores.float(), MULTIMASK, single, upsampling)

    def prompt_scale(self, features: Features) -> tuple[float, float]:
        """From pixels of the original image to the 1024 frame, as (x, y)."""
        height, width = features.original_size
        new_height, new_width = features.input_size
        return new_width / width, new_height / height

    def embed_prompts(
        self, points: torch.Tensor | None, labels: torch.Tensor | None, boxes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts in the 1024 frame -> sparse (N, T, 256) and dense (N, 256, 64, 64) embeddings."""
        return self.module.prompt_encoder(points=None if points is None else (points, labels), boxes=boxes, masks=None)

    def predict_masks(
        self, features: Features, sparse: torch.Tensor, dense: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings -> logits of all four tokens (N, 4, 256, 256) and their scores (N, 4)."""
        return self.module.mask_decoder.predict_masks(
            image_embeddings=features.maps["image_embedding"],
            image_pe=self.module.prompt_encoder.get_dense_pe().to(self.dtype),
            sparse_prompt_embeddings=sparse.to(self.dtype),
            dense_prompt_embeddings=dense.to(self.dtype),
        )

    def draw(
        self, features: Features, sparse: torch.Tensor, dense: torch.Tensor, *, share: bool
    ) -> tuple[Draw, torch.Tensor]:
        """The same, fast: what draws the logits (see DrawnCandidates), and the scores (N, 4).

        dense: (1, 256, 64, 64) for all prompts, which then `share` it, or (N, 256, 64, 64) where they bring masks.
        """
        parts = parts_of(self.module.mask_decoder)
        cells = self.cells(features, features.maps["image_embedding"], parts, dense, share=share)
        values, weights, scores = decode(parts, cells, sparse)
        return draw_masks(enlarger(parts, cells.grid), values, weights, self.upsampling(features)), scores

    def cells(
        self, features: Features, embedding: torch.Tensor, parts: Parts, dense: torch.Tensor, *, share: bool
    ) -> Cells:
        """The image as the fast decoder wants it, (1, 256, h, w) with what the prompts add to it, see `draw`."""

        def make() -> Cells:
            positions = self.module.prompt_encoder.get_dense_pe().to(self.dtype)
            return lay_out(parts, embedding + dense, positions, share=share)

        return features.once("cells", make) if share else make()

    def upsampling(self, features: Features) -> Upsampling:
        return Upsampling(size=features.original_size, frame=(FRAME, FRAME), crop=features.input_size)


def build_sam(runtime: Runtime, encoder: str) -> SamVariant:
    """SAM-B, -L or -H (`vit_b`, `vit_l`, `vit_h`), the modules of segment-anything themselves."""
    return SamVariant(sam_vit(*VITS[encoder]), runtime)


def build_mobile_sam(runtime: Runtime) -> SamVariant:
    """MobileSAM: SAM with TinyViT-5M as the image encoder (arXiv 2306.14289)."""
    from sambench.variants.encoders.tiny_vit import TINY_VIT_DEAD_KEYS, TINY_VIT_RENAMES, TinyViTEncoder

    rename = renamer(TINY_VIT_RENAMES, TINY_VIT_DEAD_KEYS)
    return SamVariant(TinyViTEncoder(), runtime, rename)
