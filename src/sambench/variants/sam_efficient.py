"""The SAM-1 variants with a small encoder of their own; SAM's prompt encoder and decoder serve them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sambench.errors import BadWeights
from sambench.variants.base import Features, Runtime, Upsampling
from sambench.variants.neural import renamer
from sambench.variants.sam import FRAME, PIXEL_MEAN, PIXEL_STD, ResizedImage, SamVariant

# MobileSAMv2's file of the prompt-guided decoder spells its parts so.
DECODER_PARTS = renamer([(r"^PromtEncoder\.", "prompt_encoder."), (r"^MaskDecoder\.", "mask_decoder.")])
DECODER_PREFIXES = ("prompt_encoder.", "mask_decoder.")


class EfficientViTSamVariant(SamVariant):
    """EfficientViT-SAM normalizes values in [0, 1], and its decoder runs with LayerNorms of eps 1e-6.

    Official file: efficientvit/models/efficientvit/sam.py; sam_model_zoo.py sets the eps of every norm.
    """

    def __init__(self, image_encoder: nn.Module, runtime: Runtime, **arguments: Any) -> None:
        super().__init__(image_encoder, runtime, **arguments)
        for module in self.module.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6

    def pixels(self, prepared: ResizedImage) -> torch.Tensor:
        x = self.on_device(torch.tensor(prepared.image)).permute(2, 0, 1)[None].contiguous().float() / 255
        mean, std = (
            self.on_device(torch.tensor([v / 255 for v in values]).view(1, 3, 1, 1))
            for values in (PIXEL_MEAN, PIXEL_STD)
        )
        height, width = prepared.image.shape[:2]
        return F.pad((x - mean) / std, (0, self.pixel_size - width, 0, self.pixel_size - height))


class MobileSamV2Variant(SamVariant):
    """MobileSAMv2: the encoder of MobileSAM with the prompt-guided decoder, which is a file of its own."""

    def load_files(self, paths: Sequence[Path]) -> None:
        encoder, decoder = paths
        whole = self.read(encoder, lambda state: self.fits(self.encoder_of(state) | self.decoder_names), 0)
        parts = self.read(decoder, lambda state: DECODER_PARTS(state).keys() == self.decoder_names.keys(), 1)
        others = [key for key in DECODER_PARTS(parts) if not key.startswith(DECODER_PREFIXES)]
        if others:
            # Such as the whole of MobileSAM, which would load here without a word.
            raise BadWeights(
                decoder, "state_dict", expected="MobileSAMv2's PromtEncoder and MaskDecoder alone",
                found=f"{len(others)} other keys: {', '.join(others[:3])}", remedy="check the order of the files",
            )  # fmt: skip
        self.load_official({**self.encoder_of(whole), **DECODER_PARTS(parts)}, f"{encoder} + {decoder}")

    @staticmethod
    def encoder_of(state: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in state.items() if key.startswith("image_encoder.")}

    @property
    def decoder_names(self) -> dict[str, torch.Tensor]:
        return {k: v for k, v in self.module.state_dict().items() if k.startswith(DECODER_PREFIXES)}


class NanoSamVariant(SamVariant):
    """NanoSAM: a ResNet-18 encoder, and MobileSAM's decoder in the form of its ONNX export.

    Official file: nanosam/utils/predictor.py. It rounds the resized size down and resizes bicubically, scales
    both coordinates by the same factor, adds no padding token to point prompts, and cuts the padding off at
    256 pixels.
    """

    def load_files(self, paths: Sequence[Path]) -> None:
        encoder, decoder = paths
        expected = {key for key in self.module.state_dict() if key.startswith(DECODER_PREFIXES)}
        whole = self.read(decoder, lambda state: {k for k in state if k.startswith(DECODER_PREFIXES)} == expected, 1)
        state = {k: v for k, v in whole.items() if k.startswith(DECODER_PREFIXES)}
        state.update(self.load_encoder(encoder))
        self.load_official(state, f"{encoder} + {decoder}")

    def load_encoder(self, path: Path) -> dict[str, torch.Tensor]:
        """NVIDIA's training script saves the encoder alone, without a prefix."""
        expected = self.module.image_encoder.state_dict().keys()
        return {f"image_encoder.{k}": v for k, v in self.read(path, lambda state: state.keys() == expected).items()}

    def prepare(self, image: np.ndarray) -> ResizedImage:
        height, width = image.shape[:2]
        aspect = width / height
        size = (FRAME, int(FRAME / aspect)) if aspect >= 1 else (int(FRAME * aspect), FRAME)
        resized = Image.fromarray(image).resize((max(size[0], 1), max(size[1], 1)), Image.Resampling.BICUBIC)
        return ResizedImage(np.asarray(resized), (height, width))

    def prompt_scale(self, features: Features) -> tuple[float, float]:
        scale = FRAME / max(features.original_size)
        return scale, scale

    def embed_prompts(
        self, points: torch.Tensor | None, labels: torch.Tensor | None, boxes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sparse, dense = super().embed_prompts(points, labels, boxes)
        return (sparse[:, :-1] if boxes is None else sparse), dense

    def upsampling(self, features: Features) -> Upsampling:
        height, width = features.original_size
        side = FRAME // 4
        crop = (int(side * height / width), side) if width > height else (side, int(side * width / height))
        return Upsampling(size=features.original_size, crop=(max(crop[0], 1), max(crop[1], 1)))


class NanoSamOnnxVariant(NanoSamVariant):
    """NanoSAM with the ONNX encoder, the only form in which its weights were ever published."""

    def load_encoder(self, path: Path) -> dict[str, torch.Tensor]:
        self.module.image_encoder.load(path)
        return {}

    def compile(self) -> None:
        """onnxruntime has optimized the graph already."""


def build_repvit_sam(runtime: Runtime) -> SamVariant:
    """RepViT-SAM: SAM with RepViT-M2.3 as the image encoder (arXiv 2312.05760)."""
    from sambench.variants.encoders.repvit import REPVIT_SAM_RENAMES, RepViTEncoder

    return SamVariant(RepViTEncoder(), runtime, renamer(REPVIT_SAM_RENAMES))


def build_edge_sam(runtime: Runtime) -> SamVariant:
    """EdgeSAM: SAM with RepViT-M1 and a two-level fusion as the image encoder (arXiv 2312.06660)."""
    from sambench.variants.encoders.repvit import EDGE_SAM_RENAMES, EdgeSamEncoder

    return SamVariant(EdgeSamEncoder(), runtime, renamer(EDGE_SAM_RENAMES))


def build_efficientvit_sam(runtime: Runtime, encoder: str) -> EfficientViTSamVariant:
    """EfficientViT-SAM `l0`, `l1`, `l2`, `xl0` or `xl1` (arXiv 2402.05008)."""
    from sambench.variants.encoders.efficientvit import EFFICIENTVIT_RENAMES, EfficientViTEncoder

    return EfficientViTSamVariant(
        EfficientViTEncoder(encoder),
        runtime,
        rename=renamer(EFFICIENTVIT_RENAMES),
        pixel_size=FRAME if encoder.startswith("xl") else FRAME // 2,
    )


def build_mobile_sam_v2(runtime: Runtime) -> MobileSamV2Variant:
    """MobileSAMv2 without its object-aware detector: boxes are prompts like any other (arXiv 2312.09579)."""
    from sambench.variants.encoders.tiny_vit import TINY_VIT_DEAD_KEYS, TINY_VIT_RENAMES, TinyViTEncoder

    return MobileSamV2Variant(TinyViTEncoder(), runtime, renamer(TINY_VIT_RENAMES, TINY_VIT_DEAD_KEYS))


def build_nano_sam(runtime: Runtime, backend: str = "torch") -> NanoSamVariant:
    """NanoSAM with a torch encoder, or with `backend: onnx` the published file through onnxruntime."""
    from sambench.variants.encoders.resnet import NanoSamEncoder, OnnxEncoder

    if backend == "onnx":
        return NanoSamOnnxVariant(OnnxEncoder(runtime.threads), runtime)
    return NanoSamVariant(NanoSamEncoder(), runtime)
