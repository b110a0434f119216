"""TinySAM with an encoder in eight bits for the CPU: our own quantization, made when the float checkpoint is loaded.

The released Q-TinySAM is a pickled module whose quantization is simulated in float. Here the encoder is exported to
ONNX, and onnxruntime computes the products of its linear layers on integers: weights in int8 with a scale a channel,
activations in uint8 with a scale that each tensor gets when it is computed. There is no calibration, so the same
checkpoint always gives the same network. Convolutions, where integers were tried and are slower and much coarser, the
products of the attention, norms and all of the decoder stay float32.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from sambench.errors import UnsupportedRuntime
from sambench.variants.base import Runtime
from sambench.variants.encoders.resnet import OnnxEncoder
from sambench.variants.encoders.tiny_vit import TINY_VIT_DEAD_KEYS, TINY_VIT_RENAMES, TinyViTEncoder
from sambench.variants.neural import renamer
from sambench.variants.sam import SamVariant


def quantize(encoder: nn.Module, side: int, path: Path) -> None:
    """Write a float encoder of (1, 3, side, side) inputs to an ONNX file whose linear layers compute on integers."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exported = path.with_suffix(".float32.onnx")
    pixels = torch.zeros(1, 3, side, side)
    level = logging.root.level
    with warnings.catch_warnings():
        # The exporter by tracing is called old, and says so at length; the new one needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(encoder, (pixels,), str(exported), input_names=["image"], dynamo=False, opset_version=17)
    logging.root.setLevel(logging.ERROR)  # the advice to preprocess, which changes nothing here
    try:
        # Seven bits, since CPUs without VNNI add two products in sixteen bits and would overflow.
        quantize_dynamic(
            exported, path, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        logging.root.setLevel(level)


class Int8SamVariant(SamVariant):
    """A SAM-1 variant whose encoder is quantized when it is put into its runtime."""

    def to_runtime(self) -> None:
        if self.device.type == "meta":  # to count parameters and operations: those of the float network
            super().to_runtime()
            return
        if self.device.type != "cpu":
            raise UnsupportedRuntime(self.name, "runtime.device", expected="cpu", found=self.device)
        super().to_runtime()
        encoder = OnnxEncoder(self.runtime.threads, side=self.pixel_size)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = Path(folder) / "encoder.onnx"
            quantize(self.module.image_encoder, self.pixel_size, path)
            encoder.load(path)
        self.module.image_encoder = encoder


def build_tiny_sam_int8(runtime: Runtime) -> Int8SamVariant:
    """TinySAM (arXiv 2312.13789) with its encoder in int8."""
    return Int8SamVariant(TinyViTEncoder(), runtime, renamer(TINY_VIT_RENAMES, TINY_VIT_DEAD_KEYS))
