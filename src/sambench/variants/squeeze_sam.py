"""SqueezeSAM: a U-Net that sees the prompt as two more channels of the image (arXiv 2312.06736).

Official code: folder squeeze_sam of yformer/EfficientSAM at commit 3477a43 (2023-12-16), which its authors withdrew two
days later: early_fusion.py (the channels), unet_encoder.py, detection_transformer.py, unet_decoder.py, mask_decoder.py.

Since prompts enter before the encoder (early fusion), nothing but the resized image is shared between the prompts of an
image: the whole network runs once per prompt, and `encodes_prompts` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import TwoWayTransformer
from torch import nn

from sambench.errors import InputError
from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.efficient_sam import EfficientBlock
from sambench.variants.neural import renamer
from sambench.variants.stretch import StretchVariant

SIDE = 512
RADIUS = 5.0  # of the disc around a point, in pixels of the square
WIDTHS = (64, 128, 128, 128, 128, 164, 256, 256)  # of the U-Net's eight levels, each half as wide as the one before
TOKENS = 4
RENAMES = [
    (r"^patch_embed\.proj\.", "patch_embed."),
    (r"^get_iou_predictions_and_mask_tokens\.", "token_decoder."),
    (r"^unet_encoder\.down_layers\.", "encoder."),
    (r"^unet_decoder\.unet_upscaling_layers\.", "decoder."),
    (r"\.up\.upsampler_linear\.0\.", ".up.linear."),
    (r"\.(?:maxpool_conv\.1\.|conv\.)?double_conv\.(\d)\.conv\.0\.", r".conv\1.0."),
    (r"\.(?:maxpool_conv\.1\.|conv\.)?double_conv\.(\d)\.norm\.", r".conv\1.2."),
    (r"^(token_decoder\.transformer\..*)\.mlp\.layers\.0\.0\.", r"\1.mlp.lin1."),
    (r"^(token_decoder\.transformer\..*)\.mlp\.fc\.", r"\1.mlp.lin2."),
    (r"^(mask_decoder\..*)\.layers\.0\.0\.", r"\1.0."),
    (r"^(mask_decoder\..*)\.layers\.1\.0\.", r"\1.2."),
    (r"^(mask_decoder\..*)\.fc\.", r"\1.4."),
]
OLDER_KEY = "mask_decoder.unet_upscaling_layers."  # begins keys only of the file of 2023-12-14


def prompt_channels(
    boxes: torch.Tensor | None, points: torch.Tensor | None, labels: torch.Tensor | None
) -> torch.Tensor:
    """Prompts in pixels of the square -> (N, 2, 512, 512) of zeros and ones: the box, discs around positive points.

    boxes: (N, 4) as x0, y0, x1, y1, edges included; without one the whole square counts. points: (N, P, 2) as x, y;
    labels (N, P), of which only 1 leaves a mark.
    """
    given = boxes if boxes is not None else points
    assert given is not None  # Prompts holds boxes or points
    axis = torch.arange(SIDE, device=given.device, dtype=torch.float32)
    rows, columns = axis[:, None], axis[None, :]
    shape = (len(given), SIDE, SIDE)
    box = torch.ones(shape, dtype=torch.bool, device=given.device)
    if boxes is not None:
        # The official code takes two corners in any order.
        corners = boxes.view(-1, 2, 2)
        (x0, y0), (x1, y1) = (values[:, :, None, None].unbind(1) for values in (corners.amin(1), corners.amax(1)))
        box = (rows >= y0) & (rows <= y1) & (columns >= x0) & (columns <= x1)
    discs = torch.zeros(shape, dtype=torch.bool, device=given.device)
    if points is not None and labels is not None:
        for (x, y), label in zip(points.permute(1, 2, 0)[..., None, None], labels.T, strict=True):
            near = (columns - x).square() + (rows - y).square() <= RADIUS**2
            discs |= near & (label == 1)[:, None, None]
    return torch.stack([box, discs], dim=1).float()


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with a ReLU and then a norm: (B, I, h, w) -> (B, O, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = (
            nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs))
            for width in (inputs, outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(self.conv0(x))


class Double(nn.Module):
    """(B, I, h, w) -> (B, O, 2h, 2w): each cell becomes four by a linear layer, a ReLU and a norm of all 4 * O."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 4 * outputs)
        self.norm = nn.BatchNorm2d(4 * outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2)
        return F.pixel_shuffle(self.norm(x), 2)


class Up(DoubleConv):
    """A coarse map doubled beside the finer one of the encoder, then two convolutions."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__(coarse // 2 + fine, fine)
        self.up = Double(coarse, coarse // 2)

    def forward(self, x: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(torch.cat([finer, self.up(x)], dim=1))


class TokenDecoder(nn.Module):
    """SAM's two-way transformer between five tokens, one zero token, and the coarsest map, without positions."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=256, activation=nn.ReLU)
        self.transformer.layers = nn.ModuleList(
            EfficientBlock(256, 8, 256, activation=nn.ReLU, skip_first_layer_pe=i == 0) for i in range(2)
        )
        self.iou_token = nn.Embedding(1, 256)
        self.mask_tokens = nn.Embedding(TOKENS, 256)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 256, h, w) -> the token of the scores (B, 256), of the masks (B, 4, 256), and the map (B, 256, h, w)."""
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight, torch.zeros_like(self.iou_token.weight)])
        tokens, cells = self.transformer(x, x.new_zeros(1, x.shape[1], 1, 1), tokens.expand(len(x), -1, -1))
        return tokens[:, 0], tokens[:, 1 : 1 + TOKENS], cells.transpose(1, 2).reshape(x.shape)


def head(outputs: int) -> nn.Sequential:
    """256 -> outputs in three layers."""
    return nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs))


class MaskHead(nn.Module):
    """Tokens (B, 256), (B, 4, 256) and the finest map (B, 64, h, w) -> logits (B, 4, h, w), scores (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.output_hypernetworks_mlps = nn.ModuleList(head(WIDTHS[0]) for _ in range(TOKENS))
        self.iou_prediction_head = head(TOKENS)

    def forward(
        self, iou_token: torch.Tensor, mask_tokens: torch.Tensor, finest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return (weights @ finest.flatten(2)).unflatten(2, finest.shape[2:]), self.iou_prediction_head(iou_token)


class SqueezeSamNetwork(nn.Module):
    """Image and prompt in five channels, (B, 5, 512, 512) -> logits (B, 4, 256, 256), scores (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Conv2d(5, WIDTHS[0], 2, stride=2), nn.GroupNorm(1, WIDTHS[0]))
        self.encoder = nn.ModuleList(DoubleConv(*widths) for widths in pairwise((WIDTHS[0], *WIDTHS)))
        self.token_decoder = TokenDecoder()
        coarse_to_fine = WIDTHS[::-1]
        self.decoder = nn.ModuleList(Up(coarse, fine) for coarse, fine in pairwise((WIDTHS[-1], *coarse_to_fine[1:])))
        self.mask_decoder = MaskHead()

    def forward(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.patch_embed(fused)
        maps = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            maps.append(x)
        iou_token, mask_tokens, x = self.token_decoder(maps.pop())
        for block in self.decoder:
            x = block(x, maps.pop())
        return self.mask_decoder(iou_token, mask_tokens, x)


class SqueezeSamVariant(StretchVariant):
    """SqueezeSAM: encoding an image only normalizes it; decoding runs the network once per prompt."""

    module: SqueezeSamNetwork
    encodes_prompts = True
    antialias = False

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(SqueezeSamNetwork(), runtime, renamer(RENAMES), pixel_size=SIDE)
        # A prompt costs here what an image costs elsewhere.
        self.decode_chunk = 16 if self.device.type == "cuda" else 4

    def load_official(self, state: Mapping[str, Any], source: str) -> None:
        if any(key.startswith(OLDER_KEY) for key in state):
            raise InputError(
                source,
                "state_dict",
                expected=f"the keys of {self.name}",
                found="the file of the same name that was published two days earlier, of another network",
                remedy="use weights/squeeze_sam.pt of commit 3477a43 of yformer/EfficientSAM",
            )
        super().load_official(state, source)

    def compile(self) -> None:
        self.module.compile()

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The normalized image (B, 3, 512, 512) itself."""
        return {"image": pixels}

    def fused(self, features: Features, prompts: Prompts) -> torch.Tensor:
        """What the network gets, (N, 5, 512, 512) in the dtype of the runtime.

        Raises InputError for a prompt of points alone without a positive one: the network knows no other points, and
        the official code would take the first two for a box.
        """
        if prompts.boxes is None and prompts.labels is not None and not (prompts.labels == 1).any(axis=1).all():
            raise InputError(
                self.name, "prompts", expected="a box or a positive point in every prompt", found="neither"
            )
        points, labels, boxes = self.tensor_points(prompts, (1.0, 1.0))
        height, width = features.original_size
        side = self.on_device(torch.tensor([width, height], dtype=torch.float32))

        def in_square(values: torch.Tensor | None) -> torch.Tensor | None:
            """(N, ..., 2) as x, y; what is left of the image or above it becomes -1."""
            if values is None:
                return None
            return torch.where(values >= 0, values * SIDE / side, -1.0)

        corners = in_square(None if boxes is None else boxes.view(-1, 2, 2))
        channels = prompt_channels(None if corners is None else corners.flatten(1), in_square(points), labels)
        image = features.maps["image"].expand(len(prompts), -1, -1, -1)
        return torch.cat([image, channels.to(image.dtype)], dim=1)

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        logits, scores = self.module(self.fused(features, prompts))
        return MaskCandidates(
            logits=logits,
            scores=scores.float(),
            multimask=(1, 2, 3),
            # The official forward drops token 0; the official example takes the first of the other three.
            single=torch.ones(len(prompts), dtype=torch.int64, device=self.device),
            upsampling=Upsampling(size=features.original_size, mode="bicubic", inclusive=True),
        )


def build_squeeze_sam(runtime: Runtime) -> SqueezeSamVariant:
    """SqueezeSAM with the network of the file that was withdrawn."""
    return SqueezeSamVariant(runtime)
