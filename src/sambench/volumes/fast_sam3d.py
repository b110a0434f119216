"""FastSAM3D (arXiv 2403.09827): a small encoder of volumes, distilled from SAM-Med3D's, with SAM-Med3D's decoder.

Official code: arcadelab/FastSAM3D at commit 226dfb5, validation_student.py (what runs), modeling/image_encoder3D.py,
prompt_encoder3D.py and mask_decoder3D.py. It runs plain attention; the sparse one of the paper is in other builders.
The two-way transformer is segment-anything's, which does not care how many axes its cells have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.common import MLPBlock
from segment_anything.modeling.mask_decoder import MLP
from torch import nn

from sambench.errors import InputError
from sambench.variants.base import Runtime
from sambench.volumes.base import VolumeVariant

SIDE, PATCH, WIDTH, HEADS = 128, 16, 768, 6
CELLS = SIDE // PATCH
EMBEDDING = 384
TOKENS = 4
ENCODER = "image_encoder."


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, D, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, 1e-6).movedim(-1, 1)


class Attention(nn.Module):
    """Attention among all cells of a cube, (B, n, n, n, C), with relative positions decomposed along the three axes.

    The official code puts these positions on other axes than they are about: all three go along the last axis of the
    keys, and those of the height and width take their query from the depth and height of the key. The weights were
    trained with it, so it is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        for axis in "dhw":
            self.register_parameter(f"rel_pos_{axis}", nn.Parameter(torch.zeros(2 * CELLS - 1, WIDTH // HEADS)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, n = len(x), CELLS
        q, k, v = self.qkv(x).reshape(batch, n**3, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        grid = q.unflatten(2, (n, n, n))
        steps = torch.arange(n, device=x.device)
        at = steps[:, None] - steps[None] + n - 1
        d, h, w = (self.get_parameter(f"rel_pos_{axis}")[at] for axis in "dhw")
        d = torch.einsum("bmdhwc,dkc->bmdhwk", grid, d)[:, :, :, :, :, None, None, :]
        h = torch.einsum("bmdhwc,hkc->bmdhwk", grid, h)[:, :, :, :, None, :, None, :]
        w = torch.einsum("bmdhwc,wkc->bmdhwk", grid, w)[:, :, :, :, None, None, :, :]
        bias = (d + h + w).reshape(batch, HEADS, n**3, n**3)
        x = F.scaled_dot_product_attention(q, k, v, bias)
        return self.proj(x.transpose(1, 2).reshape(batch, n, n, n, WIDTH))


class Block(nn.Module):
    """A block whose second norm is on the residual path itself, as the official code has it.

    attends: the first two blocks of the student have no attention.
    """

    def __init__(self, *, attends: bool) -> None:
        super().__init__()
        if attends:
            self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
            self.attn = Attention()
        self.attends = attends
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = MLPBlock(WIDTH, 4 * WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.attends:
            x = x + self.attn(self.norm1(x))
        x = self.norm2(x)
        return x + self.mlp(x)


class PatchEmbed(nn.Module):
    """(B, 1, 128, 128, 128) -> (B, 8, 8, 8, 768)."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, WIDTH, PATCH, PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).movedim(1, -1)


class Encoder(nn.Module):
    """The student, (B, 1, 128, 128, 128) -> (B, 384, 8, 8, 8)."""

    def __init__(self, depth: int = 6, without_attention: int = 2) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.pos_embed = nn.Parameter(torch.zeros(1, CELLS, CELLS, CELLS, WIDTH))
        self.blocks = nn.ModuleList(Block(attends=i >= without_attention) for i in range(depth))
        self.neck = nn.Sequential(
            nn.Conv3d(WIDTH, EMBEDDING, 1, bias=False),
            ChannelNorm(EMBEDDING),
            nn.Conv3d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False),
            ChannelNorm(EMBEDDING),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.movedim(-1, 1))


class Positions(nn.Module):
    """Random Fourier features of coordinates (..., 3) in shares of the cube -> (..., 384): sine, cosine, sine again."""

    positional_encoding_gaussian_matrix: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(3, EMBEDDING // 3))

    def forward(self, shares: torch.Tensor) -> torch.Tensor:
        angles = 2 * math.pi * ((2 * shares - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos(), angles.sin()], dim=-1)

    def grid(self) -> torch.Tensor:
        """(1, 384, 8, 8, 8), the middles of the cells. Axis 1 comes before axis 0, unlike in clicks: officially so."""
        middles = (torch.arange(CELLS, device=self.positional_encoding_gaussian_matrix.device) + 0.5) / CELLS
        first, second, third = torch.meshgrid(middles, middles, middles, indexing="ij")
        return self(torch.stack([second, first, third], dim=-1)).movedim(-1, 0)[None]


class PromptEncoder(nn.Module):
    """Clicks -> tokens (1, P + 1, 384); logits of the answer before -> (1, 384, 8, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.pe_layer = Positions()
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, EMBEDDING) for _ in range(2))
        self.not_a_point_embed = nn.Embedding(1, EMBEDDING)
        self.no_mask_embed = nn.Embedding(1, EMBEDDING)  # of files; the official loop always gives logits
        self.mask_downscaling = nn.Sequential(
            nn.Conv3d(1, 4, 2, 2),
            ChannelNorm(4),
            nn.GELU(),
            nn.Conv3d(4, 16, 2, 2),
            ChannelNorm(16),
            nn.GELU(),
            nn.Conv3d(16, EMBEDDING, 1),
        )

    def forward(
        self, points: torch.Tensor, labels: torch.Tensor, previous: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outside, inside = (embedding.get_parameter("weight") for embedding in self.point_embeddings)
        tokens = self.pe_layer((points + 0.5) / SIDE) + torch.where(labels[:, None] == 1, inside, outside)
        return torch.cat([tokens, self.not_a_point_embed.weight])[None], self.mask_downscaling(previous)


class MaskDecoder(nn.Module):
    """SAM's decoder with one axis more: embeddings -> logits (1, 4, 32, 32, 32) and predicted IoU (1, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth=2, embedding_dim=EMBEDDING, num_heads=8, mlp_dim=2048)
        self.iou_token = nn.Embedding(1, EMBEDDING)
        self.mask_tokens = nn.Embedding(TOKENS, EMBEDDING)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(EMBEDDING, EMBEDDING // 4, 2, 2),
            ChannelNorm(EMBEDDING // 4),
            nn.GELU(),
            nn.ConvTranspose3d(EMBEDDING // 4, EMBEDDING // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(EMBEDDING, EMBEDDING, EMBEDDING // 8, 3) for _ in range(TOKENS)
        )
        self.iou_prediction_head = MLP(EMBEDDING, 256, TOKENS, 3)

    def forward(
        self, embedding: torch.Tensor, positions: torch.Tensor, clicks: torch.Tensor, dense: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])[None]
        # The transformer wants two axes of cells: one row of all of them is the same to it.
        cells, places = (x.flatten(2)[..., None] for x in (embedding + dense, positions))
        tokens, cells = self.transformer(cells, places, torch.cat([tokens, clicks], dim=1))
        upscaled = self.output_upscaling(cells.transpose(1, 2).unflatten(2, (CELLS, CELLS, CELLS)))
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return logits, self.iou_prediction_head(tokens[:, 0])


class FastSam3DNetwork(nn.Module):
    """The three parts under their official names; the encoder's file has no prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = Encoder()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()


class FastSam3D(VolumeVariant):
    """FastSAM3D on cubes of 128 voxels a side."""

    module: FastSam3DNetwork
    side, low_side = SIDE, SIDE // 4

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(FastSam3DNetwork(), runtime)

    def load_files(self, paths: Sequence[Path]) -> None:
        """The student's encoder, and SAM-Med3D, of which everything but its own encoder is taken."""
        encoder, teacher = paths
        expected = self.module.state_dict().keys()
        own = {key.removeprefix(ENCODER) for key in expected if key.startswith(ENCODER)}
        rest = {key for key in expected if not key.startswith(ENCODER)}
        student = self.read(encoder, lambda state: state.keys() == own, 0)
        whole = self.read(teacher, lambda state: {key for key in state if not key.startswith(ENCODER)} == rest, 1)
        state = {f"{ENCODER}{key}": value for key, value in student.items()}
        state |= {key: value for key, value in whole.items() if not key.startswith(ENCODER)}
        self.load_official(state, f"{encoder} + {teacher}")

    def keep_float32(self) -> None:
        self.module.prompt_encoder.float()

    def compile(self) -> None:
        self.module.image_encoder.compile()

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """Less the mean and over the standard deviation (n - 1) of the voxels above zero.

        Raises InputError for another shape, such as that of an image, or where no two voxels above zero differ.
        """
        if image.shape != (self.side,) * 3:
            raise InputError(self.name, expected=f"a cube of {self.side} voxels per side", found=image.shape)
        voxels = torch.as_tensor(np.ascontiguousarray(image, dtype=np.float32))
        above = voxels[voxels > 0]
        if above.numel() < 2 or not (scale := above.std()) > 0:
            raise InputError("volume", expected="voxels above zero that differ", found="none")
        return ((voxels - above.mean()) / scale)[None, None]

    @torch.inference_mode()
    def encode_volume(self, prepared: torch.Tensor) -> torch.Tensor:
        return self.module.image_encoder(self.on_device(prepared).to(self.dtype))

    @torch.inference_mode()
    def answer(
        self, embedding: torch.Tensor, points: np.ndarray, labels: np.ndarray, previous: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if previous is None:
            previous = torch.zeros((self.low_side,) * 3, device=self.device)
        clicks, dense = self.module.prompt_encoder(
            self.on_device(torch.tensor(points, dtype=torch.float32)),
            self.on_device(torch.tensor(labels)),
            previous[None, None].to(torch.float32),
        )
        positions = self.module.prompt_encoder.pe_layer.grid()
        logits, scores = self.module.mask_decoder(embedding, *(x.to(self.dtype) for x in (positions, clicks, dense)))
        return logits[0], scores[0].float()


def build_fast_sam3d(runtime: Runtime) -> FastSam3D:
    """FastSAM3D: the student's encoder with SAM-Med3D's prompt encoder and mask decoder."""
    return FastSam3D(runtime)
