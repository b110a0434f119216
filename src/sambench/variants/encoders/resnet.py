"""The ResNet-18 encoder of NanoSAM, in torch and from the ONNX file that NVIDIA published.

Official file: nanosam/models/timm_image_encoder.py; its tensor names in ONNX are `image` and
`image_embeddings`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from timm.models.resnet import resnet18
from torch import nn

from sambench.errors import InputError


class NanoSamEncoder(nn.Module):
    """(B, 3, 1024, 1024) -> (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet18(features_only=True)
        self.up_1 = nn.Sequential(
            nn.Conv2d(512, 256, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(256, 256, 3, stride=2, padding=1, output_padding=1),
            nn.GELU(),
        )
        self.proj = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.GELU(), nn.Conv2d(256, 256, 1))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 256, 64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self.up_1(self.backbone(x)[-1])) + self.pos_embedding


class OnnxEncoder(nn.Module):
    """An encoder (B, 3, S, S) -> (B, 256, S/16, S/16) from an ONNX file, through onnxruntime, one image at a time.

    side: S. What is float32 outside may be computed in integers inside; that is the file's business.
    """

    def __init__(self, threads: int | None = None, side: int = 1024) -> None:
        super().__init__()
        self.threads = threads
        self.side = side
        self.session = None

    def load(self, path: Path) -> None:
        """Raises InputError when onnxruntime cannot read the file as an encoder of this shape."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        if self.threads:
            options.intra_op_num_threads = self.threads
        try:
            session = ort.InferenceSession(str(path), options, providers=ort.get_available_providers())
        except Exception as error:  # onnxruntime has a dozen exception types without a common one of its own
            raise InputError(
                path,
                expected="an ONNX image encoder",
                found=str(error).splitlines()[0],
                remedy="download or export it again",
            ) from error
        shapes = [list(tensor.shape) for tensor in (*session.get_inputs(), *session.get_outputs())]
        cells = self.side // 16
        if [shape[1:] for shape in shapes] != [[3, self.side, self.side], [256, cells, cells]]:
            raise InputError(
                path,
                "inputs and outputs",
                expected=f"(1, 3, {self.side}, {self.side}) -> (1, 256, {cells}, {cells})",
                found=shapes,
                remedy="use the encoder of NanoSAM, not its mask decoder",
            )
        self.session = session

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.session is None:
            raise InputError("nanosam_onnx", expected="an ONNX file", found="none", remedy="see `sambench variants`")
        name = self.session.get_inputs()[0].name
        outputs = [self.session.run(None, {name: image[None].float().cpu().numpy()})[0] for image in x]
        return torch.cat([torch.from_numpy(output) for output in outputs]).to(x)
