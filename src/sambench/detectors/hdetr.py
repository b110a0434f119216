"""H-Deformable-DETR with a Swin backbone: transformers' Deformable DETR under the official names.

Paper: arXiv 2207.13080 (the queries "one-to-many" help training only and are left out). Official code:
https://github.com/HDETR/H-Deformable-DETR, models/deformable_transformer.py and models/deformable_detr.py. It differs
from transformers' network in one thing, mixed selection: the content of a query is learned, only its position comes
from the encoder.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sambench.detectors.base import BoxDetector, Detections
from sambench.detectors.classes import coco_names_by_id
from sambench.detectors.detr import ProcessedImage, best_pairs
from sambench.detectors.images import MEAN, STD, detr_size, normalize, resize
from sambench.detectors.random_weights import randomize
from sambench.detectors.swin import rename_swin, split_projections, swin_config, without_last_norm
from sambench.variants.base import Runtime
from sambench.variants.loading import read_checkpoint
from sambench.variants.neural import renamer
from sambench.variants.strict import load_strictly

WIDTH = 256
LAYER = r"(transformer\.(?:en|de)coder\.layers\.\d+)\."
RULES = (
    (LAYER + r"linear(\d)\.", r"\1.mlp.fc\2."),
    (r"(decoder\.layers\.\d+)\.cross_attn\.", r"\1.encoder_attn."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"\.self_attn\.in_proj_", r".self_attn.{}_proj."),
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
    (r"^transformer\.", "detr.model."),
    (r"^input_proj\.", "detr.model.input_proj."),
    (r"^(class_embed|bbox_embed)\.", r"detr.\1."),
)
# The decoder's heads are those of the network under a second name.
HEADS = r"^transformer\.decoder\.(class_embed|bbox_embed)\."
BACKBONE = "backbone.0.body."


class HybridNetwork(nn.Module):
    """Deformable DETR in two stages with refined boxes and mixed selection.

    pixels (B, 3, h, w) -> output of transformers' DeformableDetrForObjectDetection: logits (B, Q, 91),
    pred_boxes (B, Q, 4) centre x, centre y, width, height as fractions.
    """

    def __init__(self, backbone: str, queries: int, one_to_many: int) -> None:
        super().__init__()
        import transformers

        kind: Any = transformers.DeformableDetrConfig
        config = kind(
            backbone_config=swin_config(backbone),
            two_stage=True,
            with_box_refine=True,
            two_stage_num_proposals=queries,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
            d_model=WIDTH,
            dropout=0.0,
            num_labels=91,
            tie_word_embeddings=False,
        )
        self.queries = queries
        self.detr: Any = transformers.DeformableDetrForObjectDetection(config)
        without_last_norm(self.detr.model.backbone.model)
        decoder = self.detr.model.decoder
        decoder.class_embed, decoder.bbox_embed = self.detr.class_embed, self.detr.bbox_embed
        self.query_embed = nn.Embedding(queries + one_to_many, WIDTH)
        decoder.register_forward_pre_hook(self._select, with_kwargs=True)

    def _select(self, decoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        """Mixed selection: what the encoder offers as content gives way to the learned queries."""
        content = self.query_embed.weight[: self.queries].expand_as(named["inputs_embeds"])
        return given, {**named, "inputs_embeds": content}

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.detr(pixel_values=pixels)


def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Official keys -> those of HybridNetwork, both names of the shared heads included."""
    swin = {key.removeprefix(BACKBONE): value for key, value in state.items() if key.startswith(BACKBONE)}
    rest = {key: value for key, value in state.items() if not key.startswith(BACKBONE)}
    ours = split_projections(renamer(RULES, [HEADS])(rest), "qkv")
    ours |= {f"detr.model.backbone.model.{key}": value for key, value in rename_swin(swin).items()}
    twins = {key: value for key, value in ours.items() if key.startswith(("detr.class_embed.", "detr.bbox_embed."))}
    return ours | {key.replace("detr.", "detr.model.decoder.", 1): value for key, value in twins.items()}


class HybridDetector(BoxDetector):
    """H-Deformable-DETR as its evaluation runs it.

    short, longest: sides of the network's input, see `detr_size`. limit: best pairs of query and class of an image
    (`--topk`); no suppression follows.
    """

    def __init__(
        self, runtime: Runtime, backbone: str, queries: int, one_to_many: int, short: int, longest: int, limit: int
    ) -> None:
        self.device = runtime.torch_device()
        self.short, self.longest, self.limit = short, longest, limit
        self.module = HybridNetwork(backbone, queries, one_to_many).eval().requires_grad_(False)

    def load_files(self, paths: Sequence[Path]) -> None:
        (path,) = paths
        self.load_official(read_checkpoint(path, lambda state: "query_embed.weight" in state), str(path))

    def load_official(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """The official state dict, strictly, and to the device. Raises InputError."""
        load_strictly(self.module, rename, state, source, self.name)
        self.module.eval().to(self.device)

    def start_random(self) -> None:
        randomize(self.module)
        self.module.to(self.device)

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        return coco_names_by_id()

    def prepare(self, image: np.ndarray) -> ProcessedImage:
        height, width = image.shape[:2]
        size = detr_size(height, width, self.short, self.longest)
        return ProcessedImage(normalize(resize(image, size), MEAN, STD, scale=255), (height, width))

    def shape(self, prepared: ProcessedImage) -> Hashable:
        return prepared.pixels.shape

    @torch.inference_mode()
    def detect(self, prepared: Sequence[ProcessedImage]) -> list[Detections]:
        output = self.module(torch.cat([each.pixels for each in prepared]).to(self.device))
        return [
            best_pairs(scores, boxes, image.original_size, self.limit)
            for scores, boxes, image in zip(output.logits.sigmoid(), output.pred_boxes, prepared, strict=True)
        ]


def build_hybrid(
    runtime: Runtime,
    backbone: str = "large",
    queries: int = 900,
    one_to_many: int = 1500,
    short: int = 800,
    longest: int = 1333,
    limit: int = 300,
) -> HybridDetector:
    """H-Deformable-DETR; by default the model of the segment-anything surveys, Swin-L with 900 queries."""
    return HybridDetector(runtime, backbone, queries, one_to_many, short, longest, limit)
