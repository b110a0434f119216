"""EfficientSAM3's points and boxes on still images: SAM 3's neck and decoder behind a small encoder (arXiv 2511.15833).

Official code: sam3/sam3/model_builder.py (`build_efficientsam3_image_model` with `enable_inst_interactivity`) and
sam3/efficientsam3_examples/run_sam3_point_prompt.py. Its loader is not strict: what a file lacks it leaves random.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput, Sam3VisionNeck

from sambench.variants.base import Runtime
from sambench.variants.encoders.students import STUDENTS, StudentEncoder
from sambench.variants.sam2 import NoPositions, Sam2Network, Sam3Variant, sam2_renamer, sam3_head_renames

# As the loader of the official code takes them: the detector's keys with its name or without, and the encoder's with
# that of its training or without; the head for clicks by the name in SAM 3's file or that in the image model.
_DETECTOR = r"^(?:detector\.)?"
_TRUNK = _DETECTOR + r"backbone\.vision_backbone\.trunk\.model\.(?:student_trunk\.)?"
_NECK = _DETECTOR + r"backbone\.vision_backbone\.sam2_convs\."
_TRACKER = r"^(?:tracker|inst_interactive_predictor\.model)\."
DROPPED = [
    _DETECTOR + r"backbone\.(language_backbone|vision_backbone\.convs)\.",
    _DETECTOR + r"(transformer|geometry_encoder|segmentation_head|dot_prod_scoring)\.",
    _NECK + r"3\.",  # the coarsest level is computed and dropped by the official code
    _TRACKER + r"(maskmem_backbone|transformer|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\.",
    _TRACKER + r"(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$",
]


class StudentVision(nn.Module):
    """A student's encoder and SAM 3's neck: (B, 3, 1008, 1008) -> maps (B, 256, n, n) with n = 288, 144, 72."""

    def __init__(self, student: str) -> None:
        super().__init__()
        self.encoder = StudentEncoder(student)
        self.neck = Sam3VisionNeck(Sam3VisionConfig(scale_factors=[4.0, 2.0, 1.0]))
        self.neck.register_module("position_encoding", NoPositions())

    def forward(self, pixels: torch.Tensor) -> Sam3VisionEncoderOutput:
        maps, _ = self.neck(self.encoder(pixels))
        return Sam3VisionEncoderOutput(fpn_hidden_states=maps)


def build_efficient_sam3(runtime: Runtime, student: str) -> Sam3Variant:
    """EfficientSAM3 with the encoder `efficientvit` (EV-M), `repvit` (RV-M) or `tinyvit` (TV-M)."""
    renames = [
        (_TRACKER, ""),
        *sam3_head_renames(_NECK),
        (_TRUNK + r"head\.", "vision_encoder.encoder.head."),
        (_TRUNK + r"backbone\.model\.", "image_encoder."),
        *STUDENTS[student].renames,
        (r"^image_encoder\.", "vision_encoder.encoder."),
    ]
    network = Sam2Network(StudentVision(student), pixel_size=1008, patch_size=14)
    return Sam3Variant(network, runtime, sam2_renamer(renames, DROPPED), pixel_size=1008)
