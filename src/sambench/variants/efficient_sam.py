"""EfficientSAM: a plain ViT with a decoder that looks like SAM's and is not (arXiv 2312.00863).

Official code: efficient_sam/efficient_sam.py (stretching, points), efficient_sam_decoder.py,
two_way_transformer.py. Against SAM's decoder: GELU everywhere, a residual in the first attention too,
positions added to the values, no dense prompt, always six points, and no embedding for a point outside the
object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from segment_anything.modeling.transformer import TwoWayAttentionBlock
from torch import nn

from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.encoders.plain_vit import PlainViT, grid_positions
from sambench.variants.fast_decoder import Draw, DrawnCandidates, decode, draw_masks, enlarger, lay_out, parts_of
from sambench.variants.neural import renamer
from sambench.variants.sam import MULTIMASK, SamNetwork
from sambench.variants.stretch import BOTTOM_RIGHT, TOP_LEFT, StretchVariant

SIZES = {"ti": (192, 3), "s": (384, 6)}  # width and heads
FRAME = 1024
GRID = 64
MAX_POINTS = 6  # corners of a box included; what is missing is padded
PADDING = -1
HEADS = r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))"
RENAMES = [
    (r"^(mask_decoder\.transformer\..*)\.mlp\.layers\.0\.0\.", r"\1.mlp.lin1."),
    (r"^(mask_decoder\.transformer\..*)\.mlp\.fc\.", r"\1.mlp.lin2."),
    (HEADS + r"\.layers\.0\.0\.", r"\1.0."),
    (HEADS + r"\.layers\.1\.0\.", r"\1.2."),
    (HEADS + r"\.fc\.", r"\1.4."),
    (r"^mask_decoder\.final_output_upscaling_layers\.0\.([01])\.", r"mask_decoder.output_upscaling.\1."),
    (r"^mask_decoder\.final_output_upscaling_layers\.1\.0\.", "mask_decoder.output_upscaling.3."),
]


def six_points(points: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """points (N, P, 2) and labels (N, P) of any P -> (N, 6, 2) and (N, 6), cut or padded with -1.

    A coordinate outside the image to the left or above becomes -1 like that of a padding point.
    """
    points = torch.where((points >= 0) & (labels != PADDING)[..., None], points, float(PADDING))
    missing = max(0, MAX_POINTS - labels.shape[1])
    points = F.pad(points[:, :MAX_POINTS], (0, 0, 0, missing), value=float(PADDING))
    return points, F.pad(labels[:, :MAX_POINTS], (0, missing), value=PADDING)


class PointEncoder(nn.Module):
    """Points in the 1024 square and labels -> (N, 6, 256): positional encoding plus an embedding a label."""

    def __init__(self) -> None:
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom(128)
        self.invalid_points = nn.Embedding(1, 256)
        self.point_embeddings = nn.Embedding(1, 256)
        self.bbox_top_left_embeddings = nn.Embedding(1, 256)
        self.bbox_bottom_right_embeddings = nn.Embedding(1, 256)

    def forward(self, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        embedding = self.pe_layer.forward_with_coords(points + 0.5, (FRAME, FRAME))
        for label, table in (
            (PADDING, self.invalid_points),
            (1, self.point_embeddings),
            (TOP_LEFT, self.bbox_top_left_embeddings),
            (BOTTOM_RIGHT, self.bbox_bottom_right_embeddings),
        ):
            embedding = embedding + table.weight * (labels == label)[..., None]
        return embedding

    def get_dense_pe(self) -> torch.Tensor:
        """(1, 256, 64, 64) positional encoding of the image embedding."""
        return self.pe_layer((GRID, GRID))[None]


class EfficientBlock(TwoWayAttentionBlock):
    """SAM's two-way block, with a residual around every attention and positions in the first one's values."""

    residual_everywhere = True  # the fast decoder asks for it

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, query_pe: torch.Tensor, key_pe: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.skip_first_layer_pe:
            queries = queries + query_pe
        queries = self.norm1(queries + self.self_attn(q=queries, k=queries, v=queries))
        attended = self.cross_attn_token_to_image(q=queries + query_pe, k=keys + key_pe, v=keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        attended = self.cross_attn_image_to_token(q=keys + key_pe, k=queries + query_pe, v=queries)
        return queries, self.norm4(keys + attended)


def head(outputs: int) -> nn.Sequential:
    """256 -> outputs in three layers."""
    return nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, outputs))


def efficient_mask_decoder() -> MaskDecoder:
    """SAM's decoder with the parts replaced in which EfficientSAM's differs."""
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    transformer.layers = nn.ModuleList(
        EfficientBlock(256, 8, 2048, activation=nn.GELU, skip_first_layer_pe=i == 0) for i in range(2)
    )
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    decoder.output_upscaling[1] = nn.GroupNorm(1, 64)
    decoder.output_hypernetworks_mlps = nn.ModuleList(head(32) for _ in range(decoder.num_mask_tokens))
    decoder.iou_prediction_head = head(decoder.num_mask_tokens)
    return decoder


class EfficientSamVariant(StretchVariant):
    """An EfficientSAM model."""

    module: SamNetwork
    antialias = False
    max_points = MAX_POINTS
    takes_background = False

    def keep_float32(self) -> None:
        self.module.prompt_encoder.float()

    def compile(self) -> None:
        self.module.image_encoder.compile()

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image_embedding": self.module.image_encoder(pixels)}

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        points, labels = six_points(*self.labelled_points(features, prompts))
        sparse = self.module.prompt_encoder(points, labels).to(self.dtype)
        single = torch.zeros(len(prompts), dtype=torch.int64, device=self.device)
        upsampling = Upsampling(size=features.original_size, mode="bicubic", inclusive=True)
        if self.fast:
            draw, scores = self.draw(features, sparse, upsampling)
            return DrawnCandidates(draw, scores, MULTIMASK, single, upsampling)
        embedding = features.maps["image_embedding"]
        logits, scores = self.module.mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.positions(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=embedding.new_zeros(1),
        )
        return MaskCandidates(logits, scores.float(), MULTIMASK, single, upsampling)

    def positions(self) -> torch.Tensor:
        """(1, 256, 64, 64) positional encoding of the image embedding."""
        return self.module.prompt_encoder.get_dense_pe().to(self.dtype)

    def draw(self, features: Features, sparse: torch.Tensor, upsampling: Upsampling) -> tuple[Draw, torch.Tensor]:
        """What draws the logits (see DrawnCandidates), and the scores (N, 4)."""
        parts = parts_of(self.module.mask_decoder)
        embedding = features.maps["image_embedding"]
        cells = features.once("cells", lambda: lay_out(parts, embedding, self.positions(), share=True))
        values, weights, scores = decode(parts, cells, sparse)
        return draw_masks(enlarger(parts, cells.grid), values, weights, upsampling), scores


def build_efficient_sam(runtime: Runtime, size: str) -> EfficientSamVariant:
    """EfficientSAM-Ti or -S (`ti`, `s`)."""
    rename = renamer(RENAMES)

    def convert(state: Mapping[str, Any]) -> dict[str, Any]:
        return grid_positions(rename(state), "image_encoder.pos_embed")

    network = SamNetwork(PlainViT(*SIZES[size]), PointEncoder(), efficient_mask_decoder())
    return EfficientSamVariant(network, runtime, convert)
