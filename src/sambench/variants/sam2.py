"""SAM 2 and 2.1, EdgeTAM and SAM 3's tracker on still images, on the modules of transformers.

Official code: sam2/sam2_image_predictor.py (what a still image goes through),
sam2/modeling/sam/mask_decoder.py (the four mask tokens and `dynamic multimask via stability`),
sam3/model/sam1_task_predictor.py. The memory of past video frames has no part in it; of all that, only
`no_mem_embed`, added where memory would be, is left.

transformers' own Sam2Model is not used whole: it selects among the mask tokens inside, keeps the random
matrix of the positional encoding twice, and computes positional encodings of the feature maps that a still
image never reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.models.edgetam.configuration_edgetam import EdgeTamVisionConfig
from transformers.models.edgetam.modeling_edgetam import EdgeTamVisionModel
from transformers.models.sam2.configuration_sam2 import (
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder, Sam2PromptEncoder, Sam2VisionModel
from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig
from transformers.models.sam3.modeling_sam3 import Sam3VisionModel
from transformers.models.timm_wrapper.configuration_timm_wrapper import TimmWrapperConfig

from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.fast_decoder import (
    Cells,
    Draw,
    DrawnCandidates,
    decode,
    draw_masks,
    enlarger,
    lay_out,
    parts_of,
)
from sambench.variants.neural import renamer
from sambench.variants.stability import stability_score
from sambench.variants.stretch import StretchVariant

MULTIMASK = (1, 2, 3)  # mask tokens of the multimask output
STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98

# Blocks a stage, global attention blocks, width of the first stage, its heads, windows, and the side of the
# coarse positional embedding: sam2/configs/sam2.1/*.yaml (those of SAM 2.0 are the same).
HIERA: Mapping[str, tuple[list[int], list[int], int, int, list[int], int]] = {
    "tiny": ([1, 2, 7, 2], [5, 7, 9], 96, 1, [8, 4, 14, 7], 7),
    "small": ([1, 2, 11, 2], [7, 10, 13], 96, 1, [8, 4, 14, 7], 7),
    "base_plus": ([2, 3, 16, 3], [12, 16, 20], 112, 2, [8, 4, 14, 7], 14),
    "large": ([2, 6, 36, 4], [23, 33, 43], 144, 2, [8, 4, 16, 8], 7),
}

# What only video needs: attention to past frames, their encoder, object pointers, and EdgeTAM's compression
# of memory.
VIDEO_KEYS = [
    r"^maskmem_tpos_enc$",
    r"^no_mem_pos_enc$",
    r"^no_obj_ptr$",
    r"^no_obj_embed_spatial$",
    r"^mask_downsample\.",
    r"^memory_attention\.",
    r"^memory_encoder\.",
    r"^obj_ptr_proj\.",
    r"^obj_ptr_tpos_proj\.",
    r"^spatial_perceiver\.",
]
HEADS = r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head|hf_mlp))"
DECODER_RENAMES = [
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
     "prompt_encoder.shared_embedding.positional_embedding"),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"^(mask_decoder\.transformer\..*)\.out_proj\.", r"\1.o_proj."),
    (r"^(mask_decoder\.transformer\..*)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^(mask_decoder\.transformer\..*)\.mlp\.layers\.0\.", r"\1.mlp.proj_in."),
    (r"^(mask_decoder\.transformer\..*)\.mlp\.layers\.1\.", r"\1.mlp.proj_out."),
    (r"^mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    # The heads of three layers: first, last, middle.
    (HEADS + r"\.layers\.0\.", r"\1.proj_in."),
    (HEADS + r"\.layers\.2\.", r"\1.proj_out."),
    (HEADS + r"\.layers\.1\.", r"\1.layers.0."),
]  # fmt: skip
NECK_RENAMES = [(r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1.")]
HIERA_RENAMES = [
    *NECK_RENAMES,
    (r"^image_encoder\.trunk\.patch_embed\.proj\.", "vision_encoder.backbone.patch_embed.projection."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+)\.mlp\.layers\.0\.", r"\1.mlp.proj_in."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+)\.mlp\.layers\.1\.", r"\1.mlp.proj_out."),
]
EDGE_TAM_RENAMES = [*NECK_RENAMES, (r"^image_encoder\.trunk\.body\.", "vision_encoder.backbone.timm_model.")]
# SAM 3 is published by its authors in transformers' own layout; the detector of concepts shares the backbone.
# The fourth level of the neck, the coarsest, is computed and dropped by the official code.
SAM3_RENAMES = [
    (r"^detector_model\.vision_encoder\.backbone\.", "vision_encoder.backbone."),
    (r"^tracker_neck\.", "vision_encoder.neck."),
    (r"^tracker_model\.", ""),
]
SAM3_DROPPED = [
    r"^detector_model\.(?!vision_encoder\.backbone\.)",
    r"^tracker_neck\.fpn_layers\.3\.",
    r"^tracker_model\.(memory_|mask_downsample\.|object_pointer_proj\.)",
    r"^tracker_model\.temporal_positional_encoding_projection_layer\.",
    r"^tracker_model\.(no_memory_positional_encoding|no_object_pointer|occlusion_spatial_embedding_parameter)$",
    r"^tracker_model\.shared_image_embedding\.",  # once more the matrix of the prompt encoder
]


def sam3_head_renames(neck: str) -> list[tuple[str, str]]:
    """Official keys of SAM 3's neck and decoder -> ours; neck: a pattern of all before a level's number."""
    level = neck + r"(\d)\."
    return [
        (level + r"dconv_2x2(?:_0)?\.", r"vision_encoder.neck.fpn_layers.\1.scale_layers.0."),
        (level + r"dconv_2x2_1\.", r"vision_encoder.neck.fpn_layers.\1.scale_layers.2."),
        (level + r"conv_1x1\.", r"vision_encoder.neck.fpn_layers.\1.proj1."),
        (level + r"conv_3x3\.", r"vision_encoder.neck.fpn_layers.\1.proj2."),
        (r"^(sam_mask_decoder\.transformer\..*)\.mlp\.lin1\.", r"\1.mlp.proj_in."),
        (r"^(sam_mask_decoder\.transformer\..*)\.mlp\.lin2\.", r"\1.mlp.proj_out."),
    ]


# SAM 3.1 is published in the layout of the official code alone. Its head for points and boxes lies beside the tracker
# of many objects at once, under names of its own; a load that is not strict would leave it random.
_TRUNK31 = r"^detector\.backbone\.vision_backbone\.trunk\."
SAM31_RENAMES = [
    (r"^tracker\.model\.interactive_(sam_\w+)\.", r"\1."),
    (r"^tracker\.model\.interactivity_no_mem_embed$", "no_mem_embed"),
    (_TRUNK31 + r"pos_embed$", "vision_encoder.backbone.embeddings.position_embeddings"),
    (_TRUNK31 + r"patch_embed\.proj\.", "vision_encoder.backbone.embeddings.patch_embeddings.projection."),
    (_TRUNK31 + r"ln_pre\.", "vision_encoder.backbone.layer_norm."),
    (_TRUNK31 + r"blocks\.(\d+)\.norm(\d)\.", r"vision_encoder.backbone.layers.\1.layer_norm\2."),
    (_TRUNK31 + r"blocks\.(\d+)\.attn\.qkv\.", r"vision_encoder.backbone.layers.\1.attention.qkv."),
    (_TRUNK31 + r"blocks\.(\d+)\.attn\.proj\.", r"vision_encoder.backbone.layers.\1.attention.o_proj."),
    (_TRUNK31 + r"blocks\.(\d+)\.mlp\.", r"vision_encoder.backbone.layers.\1.mlp."),
    *sam3_head_renames(r"^detector\.backbone\.vision_backbone\.interactive_convs\."),
]  # fmt: skip
SAM31_DROPPED = [
    r"^detector\.(?!backbone\.vision_backbone\.(trunk|interactive_convs)\.)",
    _TRUNK31 + r"blocks\.\d+\.attn\.(freqs_cis|relative_coords)$",
    r"^detector\.backbone\.vision_backbone\.interactive_convs\.3\.",
    r"^tracker\.(?!model\.(interactive_sam_|interactivity_no_mem_embed$))",
]


def sam2_renamer(
    renames: Sequence[tuple[str, str]], dropped: Sequence[str] = VIDEO_KEYS
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Official keys -> those of Sam2Network: the encoder's `renames`, the decoder's, and video `dropped`.

    The embeddings of the four point labels are one table in transformers.
    """
    rename = renamer([*renames, *DECODER_RENAMES], dropped)

    def convert(state: Mapping[str, Any]) -> dict[str, Any]:
        ours = rename(state)
        labels = [f"prompt_encoder.point_embeddings.{i}.weight" for i in range(4)]
        if all(label in ours for label in labels):
            ours["prompt_encoder.point_embed.weight"] = torch.cat([ours.pop(label) for label in labels])
        return ours

    return convert


def rename_sam31(state: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of SAM 3.1's file -> those of Sam2Network: the three projections apart, no position of a class token."""
    ours: dict[str, Any] = {}
    for key, value in sam2_renamer(SAM31_RENAMES, SAM31_DROPPED)(state).items():
        if ".attention.qkv." in key:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                ours[key.replace(".qkv.", f".{name}_proj.")] = part
        elif key.endswith(".position_embeddings"):
            ours[key] = value[:, 1:]
        else:
            ours[key] = value
    return ours


class AllTokensDecoder(Sam2MaskDecoder):
    """SAM 2's mask decoder without its choice: all tokens come out, (1, N, 4, h, w), scores (1, N, 4)."""

    def _dynamic_multimask_via_stability(
        self, all_mask_logits: torch.Tensor, all_iou_scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return all_mask_logits, all_iou_scores


class NoPositions(nn.Module):
    """In place of the positional encodings of the feature maps, which only the memory of a video reads."""

    def forward(self, *shape_device_dtype: Any) -> torch.Tensor:
        return torch.empty(0)


def stable_single(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The token of SAM 2's single mask output: 0 when it is stable, else the best of the multimask tokens.

    logits (N, 4, h, w), scores (N, 4) -> (N,) int64. An empty mask counts as stable.
    """
    stability = stability_score(logits[:, 0], offset=STABILITY_DELTA).nan_to_num(nan=1.0)
    best = scores[:, 1:].argmax(dim=1) + 1
    return torch.where(stability >= STABILITY_THRESHOLD, torch.zeros_like(best), best)


def single_of(candidates: DrawnCandidates) -> torch.Tensor:
    """The same for candidates that draw only token 0 for it."""
    zero = torch.zeros(len(candidates.scores), dtype=torch.int64, device=candidates.scores.device)
    return stable_single(candidates.take(zero)[0][:, None], candidates.scores)


class Sam2Network(nn.Module):
    """Encoder, prompt encoder and mask decoder for `pixel_size`, and the embedding of an absent memory."""

    def __init__(
        self,
        vision_encoder: nn.Module,
        *,
        pixel_size: int = 1024,
        patch_size: int = 16,
        decoder: type[AllTokensDecoder] = AllTokensDecoder,
    ) -> None:
        super().__init__()
        self.vision_encoder = vision_encoder
        self.prompt_encoder = Sam2PromptEncoder(Sam2PromptEncoderConfig(image_size=pixel_size, patch_size=patch_size))
        decoder_config = Sam2MaskDecoderConfig()
        decoder_config._attn_implementation = "sdpa"
        self.mask_decoder = decoder(decoder_config)
        self.no_memory_embedding = nn.Parameter(torch.zeros(1, 1, 256))

    def image_positions(self) -> torch.Tensor:
        """(1, 256, h, w) positional encoding of the centres of the embedding's cells."""
        table = self.prompt_encoder.shared_embedding.positional_embedding
        height, width = self.prompt_encoder.image_embedding_size
        y = (torch.arange(height, device=table.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=table.device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return self.prompt_encoder.shared_embedding(grid).permute(2, 0, 1)[None]


class Sam2Variant(StretchVariant):
    """A model with SAM 2's decoder, which adds two maps of higher resolution while it enlarges the mask."""

    module: Sam2Network
    takes_masks = True

    def keep_float32(self) -> None:
        self.module.prompt_encoder.float()

    def compile(self) -> None:
        self.module.vision_encoder.compile()

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """image_embed (B, 256, h, w), high_res_feats0 (B, 32, 4h, 4w), high_res_feats1 (B, 64, 2h, 2w)."""
        finest, finer, coarse = self.module.vision_encoder(pixels).fpn_hidden_states
        return {
            "image_embed": self.without_memory(coarse),
            "high_res_feats0": self.module.mask_decoder.conv_s0(finest),
            "high_res_feats1": self.module.mask_decoder.conv_s1(finer),
        }

    def without_memory(self, embedding: torch.Tensor) -> torch.Tensor:
        """(B, 256, h, w) with the embedding of an absent memory added."""
        return embedding + self.module.no_memory_embedding.view(1, -1, 1, 1)

    def high_resolution(self, features: Features) -> list[torch.Tensor]:
        """The two maps that the decoder adds, finest first."""
        return [features.maps["high_res_feats0"], features.maps["high_res_feats1"]]

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        points, labels = self.labelled_points(features, prompts)
        # transformers counts images in front of prompts: there is one. But it has one mask per image, so with masks
        # each prompt is an image's only one.
        images, masks = 1, prompts.masks
        if masks is not None:
            images, masks = len(prompts), masks[:, None].float()
        points, labels = points.unflatten(0, (images, -1)), labels.unflatten(0, (images, -1))
        sparse, dense = self.module.prompt_encoder(points, labels, None, masks)
        sparse, dense = sparse.to(self.dtype), dense.to(self.dtype)
        upsampling = Upsampling(size=features.original_size)
        if self.fast:
            draw, scores = self.draw(features, sparse.flatten(0, 1), dense, upsampling, share=masks is None)
            return DrawnCandidates(draw, scores, MULTIMASK, single_of, upsampling)
        logits, scores, *_ = self.module.mask_decoder(
            image_embeddings=features.maps["image_embed"].expand(images, -1, -1, -1),
            image_positional_embeddings=self.positions().expand(images, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            high_resolution_features=self.high_resolution(features),
        )
        logits, scores = logits.flatten(0, 1), scores.flatten(0, 1).float()
        return MaskCandidates(logits, scores, MULTIMASK, stable_single(logits, scores), upsampling)

    def positions(self) -> torch.Tensor:
        """(1, 256, h, w) positional encoding of the embedding."""
        return self.module.image_positions().to(self.dtype)

    def draw(
        self, features: Features, sparse: torch.Tensor, dense: torch.Tensor, upsampling: Upsampling, *, share: bool
    ) -> tuple[Draw, torch.Tensor]:
        """What draws the logits (see DrawnCandidates), and the scores (N, 4): the fast decoder.

        sparse: (N, P, 256). dense: (1, 256, h, w) for all prompts, which may `share` it, or (N, 256, h, w).
        """
        parts = parts_of(self.module.mask_decoder)

        def make() -> Cells:
            return lay_out(parts, features.maps["image_embed"] + dense, self.positions(), share=share)

        cells = features.once("cells", make) if share else make()
        enlarge = features.once("enlarger", lambda: enlarger(parts, cells.grid, self.finer(features)))
        values, weights, scores = decode(parts, cells, sparse)
        return draw_masks(enlarge, values, weights, upsampling), scores

    def finer(self, features: Features) -> Sequence[torch.Tensor]:
        """The maps that are added while the mask is enlarged, in that order; nothing where they are nothing."""
        return [features.maps["high_res_feats1"], features.maps["high_res_feats0"]]


class Sam3Variant(Sam2Variant):
    """SAM 3's point and box model resizes whole pixels and normalizes them to [-1, 1].

    Official code: sam3/model/sam3_image_processor.py, whose images `predict_inst` takes.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    whole = True


def hiera_encoder(size: str) -> Sam2VisionModel:
    """Hiera `tiny`, `small`, `base_plus` or `large` with its neck."""
    blocks, global_blocks, width, heads, windows, background = HIERA[size]
    widths = [width * 2**stage for stage in range(4)]
    hiera = Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=heads,
        blocks_per_stage=blocks,
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
        window_size_per_stage=windows,
        global_attention_blocks=global_blocks,
        window_positional_embedding_background_size=[background, background],
    )
    encoder = Sam2VisionModel(Sam2VisionConfig(backbone_config=hiera, backbone_channel_list=widths[::-1]))
    encoder.neck.register_module("position_encoding", NoPositions())
    return encoder


def build_sam2(runtime: Runtime, size: str) -> Sam2Variant:
    """SAM 2 or 2.1 with Hiera `tiny`, `small`, `base_plus` or `large` (arXiv 2408.00714)."""
    return Sam2Variant(Sam2Network(hiera_encoder(size)), runtime, sam2_renamer(HIERA_RENAMES))


def build_edge_tam(runtime: Runtime) -> Sam2Variant:
    """EdgeTAM: SAM 2 with RepViT-M1 as the encoder (arXiv 2501.07256)."""
    repvit = TimmWrapperConfig(
        architecture="repvit_m1",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    encoder = EdgeTamVisionModel(EdgeTamVisionConfig(backbone_config=repvit))
    encoder.neck.register_module("position_encoding", NoPositions())
    return Sam2Variant(Sam2Network(encoder), runtime, sam2_renamer(EDGE_TAM_RENAMES))


def build_sam31(runtime: Runtime) -> Sam3Variant:
    """SAM 3.1's point and box model: the network of SAM 3's, from the file of the official code."""
    return Sam3Variant(sam3_network(), runtime, rename_sam31, pixel_size=1008)


def build_sam3_tracker(runtime: Runtime) -> Sam3Variant:
    """SAM 3's point and box model, from its file in transformers' layout."""
    return Sam3Variant(sam3_network(), runtime, renamer(SAM3_RENAMES, SAM3_DROPPED), pixel_size=1008)


def sam3_network() -> Sam2Network:
    """The Perception Encoder at 1008 pixels with SAM 2's decoder."""
    encoder = Sam3VisionModel(Sam3VisionConfig(scale_factors=[4.0, 2.0, 1.0]))
    encoder.neck.register_module("position_encoding", NoPositions())
    return Sam2Network(encoder, pixel_size=1008, patch_size=14)
