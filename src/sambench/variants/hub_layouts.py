"""Checkpoints of SAM and SAM 2 in the layout of transformers -> the names of the official files.

The names are those of SamModel, Sam2Model and Sam2VideoModel; what only video needs keeps the prefixes by which the
official names are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

_MATRIX = "positional_encoding_gaussian_matrix"
_HEADS = r"^((?:sam_)?mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head))"
Rules = Sequence[tuple[str, str]]

_DECODER: Rules = [
    # Heads of three layers: transformers counts only the middle one.
    (_HEADS + r"\.layers\.0\.", r"\1.layers.1."),
    (_HEADS + r"\.proj_in\.", r"\1.layers.0."),
    (_HEADS + r"\.proj_out\.", r"\1.layers.2."),
    (r"mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
    (r"prompt_encoder\.shared_embedding\.positional_embedding$", f"prompt_encoder.pe_layer.{_MATRIX}"),
    (r"prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
]
SAM: Rules = [
    (r"^shared_image_embedding\.positional_embedding$", f"prompt_encoder.pe_layer.{_MATRIX}"),
    *_DECODER,
    (r"^prompt_encoder\.point_embed\.(\d)\.", r"prompt_encoder.point_embeddings.\1."),
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"image_encoder.blocks.\1.norm\2."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
]
SAM2: Rules = [
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"^shared_image_embedding\.positional_embedding$", f"sam_prompt_encoder.pe_layer.{_MATRIX}"),
    *_DECODER,
    (r"^(sam_mask_decoder\.transformer\..*)\.o_proj\.", r"\1.out_proj."),
    (r"^(sam_mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_in\.", r"\1.layers.0."),
    (r"^(sam_mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_out\.", r"\1.layers.1."),
    (r"^vision_encoder\.backbone\.patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+\.mlp)\.proj_in\.", r"\1.layers.0."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+\.mlp)\.proj_out\.", r"\1.layers.1."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
]
# The labels' embeddings are one table in transformers' SAM 2, four in the official file.
_SAM2_LABELS = "sam_prompt_encoder.point_embed.weight"


def to_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """A state dict with the names of transformers' SAM or SAM 2 -> the official names; None when it is neither."""
    if "mask_decoder.upscale_conv1.weight" not in state:
        return None
    sam2 = any(key.startswith("vision_encoder.backbone.") for key in state)
    rules = [(re.compile(pattern), replacement) for pattern, replacement in (SAM2 if sam2 else SAM)]
    official = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = pattern.sub(replacement, key)
        official[key] = value
    if sam2 and _SAM2_LABELS in official:
        for i, row in enumerate(official.pop(_SAM2_LABELS).split(1)):
            official[f"sam_prompt_encoder.point_embeddings.{i}.weight"] = row
    return official
