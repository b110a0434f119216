"""RAP-SAM, now RMP-SAM, with ResNet-50: a real-time panoptic model whose queries may also be clicks (arXiv 2401.10228).

Official code: xushilin1/RAP-SAM at commit 2e7bf1c, seg/models/necks/ramsam_neck.py (the pyramid),
heads/rapsam_head.py and yoso_head.py (queries and decoder stages), heads/mask2former_vid.py (a click as a box),
configs/rap_sam/rap_sam_r50_12e_adaptor.py; resizing, normalization and the encoding of boxes are those of mmdet 3.3.

Only the path of prompts is here: no classes, no panoptic queries, no video. The released configuration trains on one
positive click per object, which becomes a box of six pixels of the resized image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50
from torchvision.ops import DeformConv2d

from sambench.errors import InputError
from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime, Upsampling
from sambench.variants.neural import NeuralVariant, renamer
from sambench.variants.sam import PIXEL_MEAN, PIXEL_STD

SHORT_SIDE, LONG_SIDE = 800, 1333
MULTIPLE = 32  # sides are padded to it
CLICK = 3.0  # half the side of the box that stands for a click, in pixels of the resized image
WIDTH = 256
RENAMES = [
    (r"^panoptic_head\.(mask_tokens|pb_embedding|pos_linear)\.", r"prompt_encoder.\1."),
    (r"^panoptic_head\.", "mask_decoder."),
    (r"\.prompt_attn\.attn\.", ".prompt_attn."),
    (r"\.ffn\.layers\.0\.0\.", ".ffn.0."),
    (r"\.ffn\.layers\.1\.", ".ffn.2."),
]
# Classes, the hundred queries of panoptic segmentation, and their last stage.
DROPPED = [
    r"^panoptic_head\.kernels\.",
    r"^panoptic_head\.panoptic_(attn|cls)\.",
    r"^panoptic_head\.mask_heads\.\d\.cls_(fcs|proj)\.",
]


def shorter_side(height: int, width: int) -> tuple[int, int]:
    """(height, width) with the shorter side 800, or the longer one 1333 where it would be longer, rounded half up."""
    factor = min(LONG_SIDE / max(height, width), SHORT_SIDE / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


class DeformUp(nn.Module):
    """(B, I, h, w) -> (B, O, 2h, 2w): a modulated deformable convolution, then a transposed one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dcn_offset = nn.Conv2d(inputs, 27, 3, padding=1)  # two offsets and a weight for each of nine taps
        self.dcn = DeformConv2d(inputs, outputs, 3, padding=1, bias=False)
        self.dcn_bn = nn.BatchNorm2d(outputs)
        self.up_sample = nn.ConvTranspose2d(outputs, outputs, 4, stride=2, padding=1, bias=False)
        self.up_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset, weight = self.dcn_offset(x).split([18, 9], dim=1)
        # On a CPU the kernel of torchvision knows no bfloat16: this one product stays float32.
        x = self.dcn(x.float(), offset.float(), weight.sigmoid().float()).to(x.dtype)
        return self.up_bn(self.up_sample(self.dcn_bn(x).relu())).relu()


class Pyramid(nn.Module):
    """The four maps of a ResNet, finest first -> their aggregation (B, 128, h, w) at the finest resolution."""

    def __init__(self, width: int = 128, inputs: Sequence[int] = (256, 512, 1024, 2048)) -> None:
        super().__init__()
        fine_to_coarse = [side // 2 for side in inputs]
        for i, channels in enumerate(reversed(inputs)):
            self.add_module(f"lateral_conv{i}", nn.Conv2d(channels, channels // 2, 1))
        for i in (1, 2, 3):
            self.add_module(f"deform_conv{i}", DeformUp(fine_to_coarse[4 - i], fine_to_coarse[3 - i]))
        for level, channels in enumerate(fine_to_coarse, start=2):
            self.add_module(f"conv_a{level}", nn.Conv2d(channels, width, 1, bias=False))
        self.output_conv = nn.Conv2d(width, width, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        part = self.get_submodule
        x = part("lateral_conv0")(maps[3])
        total: torch.Tensor = self.bias
        for i, level in enumerate((5, 4, 3, 2)):
            if i:
                x = part(f"lateral_conv{i}")(maps[3 - i]) + part(f"deform_conv{i}")(x)
            same = part(f"conv_a{level}")(x)
            scale = 2 ** (level - 2)
            total = total + (F.interpolate(same, scale_factor=scale, mode="bilinear") if scale > 1 else same)
        return self.output_conv(total)


class Neck(nn.Module):
    """The maps of a ResNet -> (B, 256, h, w), the aggregated map with the coordinates of its cells mixed in."""

    def __init__(self) -> None:
        super().__init__()
        self.deconv = Pyramid()
        self.loc_conv = nn.Conv2d(128 + 2, WIDTH, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        x = self.deconv(maps)
        height, width = x.shape[-2:]
        rows, columns = (
            torch.linspace(-1, 1, length, device=x.device, dtype=torch.float32).to(x.dtype)
            for length in (height, width)
        )
        grid = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])
        return self.loc_conv(torch.cat([x, grid.expand(len(x), -1, -1, -1)], dim=1))


class ResNetMaps(nn.Module):
    """ResNet-50 without its classifier, (B, 3, H, W) -> maps at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        whole = resnet50()
        self.conv1, self.bn1, self.maxpool = whole.conv1, whole.bn1, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def box_encoding(boxes: torch.Tensor) -> torch.Tensor:
    """(N, 4) as x0, y0, x1, y1 in shares of the image -> (N, 512): sines of y, x, width and height, 128 each.

    mmdet's coordinate_to_encoding of the centre form, after inverse_sigmoid and sigmoid, which only clip it.
    """
    corners, opposite = boxes[:, :2], boxes[:, 2:]
    values = torch.cat([(corners + opposite) / 2, opposite - corners], dim=1)
    values = values.clamp(0, 1)
    values = (values.clamp(min=1e-5) / (1 - values).clamp(min=1e-5)).log().sigmoid()
    steps = 10000 ** (torch.arange(0, 128, 2, device=boxes.device, dtype=torch.float32) / 128)
    angles = values[:, [1, 0, 2, 3], None] * 2 * math.pi / steps
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class ClickEncoder(nn.Module):
    """Boxes (N, 4), in shares of the image -> queries (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_tokens = nn.Embedding(1, WIDTH)
        self.pb_embedding = nn.Embedding(2, WIDTH)
        self.pos_linear = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        return self.pos_linear(box_encoding(boxes)) + self.pb_embedding.weight[1] + self.mask_tokens.weight


class KernelUpdate(nn.Module):
    """K-Net's update (arXiv 2106.14855): what a mask covers, (N, 256), and its query (N, 256) -> a query (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.dynamic_layer = nn.Linear(WIDTH, 2 * WIDTH)
        self.input_layer = nn.Linear(WIDTH, 2 * WIDTH)
        self.input_gate = nn.Linear(WIDTH, WIDTH)
        self.update_gate = nn.Linear(WIDTH, WIDTH)
        self.norm_in, self.norm_out = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.input_norm_in, self.input_norm_out = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.fc_layer = nn.Linear(WIDTH, WIDTH)
        self.fc_norm = nn.LayerNorm(WIDTH)

    def forward(self, covered: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        new_gate, new = self.dynamic_layer(covered).chunk(2, dim=1)
        old_gate, old = self.input_layer(query).chunk(2, dim=1)
        gates = new_gate * old_gate
        keep = self.input_norm_in(self.input_gate(gates)).sigmoid()
        update = self.norm_in(self.update_gate(gates)).sigmoid()
        mixed = update * self.norm_out(new) + keep * self.input_norm_out(old)
        return self.fc_norm(self.fc_layer(mixed)).relu()


class Attention(nn.Module):
    """Attention of eight heads with the parameters of nn.MultiheadAttention, in the two forms that are needed here."""

    def __init__(self, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, x: torch.Tensor, part: int) -> torch.Tensor:
        """(N, 256) -> (N, 256), the queries (part 0), keys (1) or values (2) of all heads."""
        weight, bias = self.in_proj_weight.chunk(3)[part], self.in_proj_bias.chunk(3)[part]
        return F.linear(x, weight, bias)

    def alone(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 256), each of which attends to itself and nothing else: its own value."""
        return self.out_proj(self.project(x, 2))

    def forward(self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries (N, 256) that attend to projected keys and values (K, 256)."""
        q, k, v = (t.unflatten(1, (self.heads, -1)).transpose(0, 1)[None] for t in (self.project(x, 0), keys, values))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1))


class Stage(nn.Module):
    """One decoder stage: the query sees what its mask covers so far, and gives a new mask."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel_update = KernelUpdate()
        self.s_atten = Attention()
        self.s_atten_norm = nn.LayerNorm(WIDTH)
        self.ffn = nn.Sequential(nn.Linear(WIDTH, 2048), nn.ReLU(), nn.Linear(2048, WIDTH))
        self.ffn_norm = nn.LayerNorm(WIDTH)
        self.mask_fcs = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.LayerNorm(WIDTH), nn.ReLU())
        self.fc_mask = nn.Linear(WIDTH, WIDTH)
        self.iou_embed = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
        )

    def forward(
        self, features: torch.Tensor, query: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """features (256, h, w), query (N, 256), logits (N, h, w) -> the next query and logits, and scores (N, 1)."""
        # A hard mask: one cell that rounding moves over the threshold moves everything after it.
        hard = (logits.sigmoid() > 0.5).to(features.dtype)
        query = self.kernel_update(hard.flatten(1) @ features.flatten(1).T, query)
        # Prompts do not see each other.
        query = self.s_atten_norm(query + self.s_atten.alone(query))
        query = self.ffn_norm(query + self.ffn(query))
        mask = self.mask_fcs(query)
        return query, masks_of(self.fc_mask(mask), features), self.iou_embed(mask)


def masks_of(queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Queries (N, C) and features (C, h, w) -> logits (N, h, w)."""
    return (queries @ features.flatten(1)).unflatten(1, features.shape[1:])


class PromptDecoder(nn.Module):
    """Three stages, and the adapter of prompts, whose queries attend to the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_heads = nn.ModuleList(Stage() for _ in range(3))
        self.prompt_attn = Attention()
        self.prompt_norm = nn.LayerNorm(WIDTH)
        self.prompt_iou = nn.Linear(WIDTH, 1)

    def cells(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 256, h, w) -> keys and values (B, h * w, 256) of the adapter, the same for all prompts."""
        x = features.flatten(2).transpose(1, 2)
        return self.prompt_attn.project(x, 1), self.prompt_attn.project(x, 2)

    def forward(
        self, features: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, query: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """features (256, h, w), its keys and values, queries (N, 256) -> logits (N, h, w), scores (N, 1)."""
        logits = masks_of(query, features)
        for stage in self.mask_heads:
            query, logits, _ = stage(features, query, logits)
        query = self.prompt_norm(query + self.prompt_attn(query, keys, values))
        return masks_of(query, features), self.prompt_iou(query)


class RapSamNetwork(nn.Module):
    """Backbone and neck once per image, prompt encoder and mask decoder once per prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNetMaps()
        self.neck = Neck()
        self.prompt_encoder = ClickEncoder()
        self.mask_decoder = PromptDecoder()


@dataclass(frozen=True)
class Resized:
    """A resized image, (h, w, 3) uint8 RGB, and the (height, width) it came from."""

    image: np.ndarray
    original_size: tuple[int, int]


class RapSamVariant(NeuralVariant):
    """RAP-SAM on clicks: one positive point per prompt. A box goes through too, though no box was trained."""

    module: RapSamNetwork
    max_points = 1
    takes_background = False

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(RapSamNetwork(), runtime, renamer(RENAMES, DROPPED))

    def keep_float32(self) -> None:
        self.module.prompt_encoder.float()
        for module in self.module.neck.modules():
            if isinstance(module, DeformConv2d):
                module.float()

    def compile(self) -> None:
        self.module.backbone.compile()

    def prepare(self, image: np.ndarray) -> Resized:
        height, width = shorter_side(*image.shape[:2])
        return Resized(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), image.shape[:2])

    def pixels(self, prepared: Resized) -> torch.Tensor:
        x = self.on_device(torch.tensor(prepared.image)).permute(2, 0, 1)[None].contiguous()
        mean, std = (self.on_device(torch.tensor(v).view(1, 3, 1, 1)) for v in (PIXEL_MEAN, PIXEL_STD))
        height, width = prepared.image.shape[:2]
        return F.pad((x - mean) / std, (0, -width % MULTIPLE, 0, -height % MULTIPLE))

    def sizes(self, prepared: Resized) -> tuple[tuple[int, int], tuple[int, int]]:
        return prepared.original_size, prepared.image.shape[:2]

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """image_embedding (B, 256, H / 4, W / 4) of the padded image; keys and values (B, H * W / 16, 256)."""
        embedding = self.module.neck(self.module.backbone(pixels))
        keys, values = self.module.mask_decoder.cells(embedding)
        return {"image_embedding": embedding, "keys": keys, "values": values}

    def encode_prepared(self, prepared: Sequence[Any]) -> list[Features]:
        """One image at a time: padded images differ in size."""
        return [features for image in prepared for features in super(RapSamVariant, self).encode_prepared([image])]

    def query_boxes(self, features: Features, prompts: Prompts) -> torch.Tensor:
        """Prompts -> boxes (N, 4) as x0, y0, x1, y1 in pixels of the resized image.

        Raises InputError for a prompt of several points or of a negative one.
        """
        (height, width), (new_height, new_width) = features.original_size, features.input_size
        points, labels, boxes = self.tensor_points(prompts, (new_width / width, new_height / height))
        if boxes is not None:
            return boxes
        assert points is not None and labels is not None  # Prompts holds boxes or points
        if labels.shape[1] != 1 or bool((labels != 1).any()):
            found = f"labels {prompts.labels}"
            raise InputError(self.name, "prompts", expected="one positive point in each", found=found)
        return torch.cat([points[:, 0] - CLICK, points[:, 0] + CLICK], dim=1)

    @torch.inference_mode()
    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        height, width = features.input_size
        sides = self.on_device(torch.tensor([width, height, width, height], dtype=torch.float32))
        queries = self.module.prompt_encoder(self.query_boxes(features, prompts) / sides)
        embedding, keys, values = (features.maps[name][0] for name in ("image_embedding", "keys", "values"))
        logits, scores = self.module.mask_decoder(embedding, keys, values, queries.to(self.dtype))
        return MaskCandidates(
            logits=logits[:, None],
            scores=scores.float(),
            multimask=(0,),
            single=torch.zeros(len(prompts), dtype=torch.int64, device=self.device),
            upsampling=Upsampling(
                size=features.original_size,
                frame=(4 * embedding.shape[1], 4 * embedding.shape[2]),
                crop=features.input_size,
            ),
        )


def build_rap_sam(runtime: Runtime) -> RapSamVariant:
    """RAP-SAM with ResNet-50."""
    return RapSamVariant(runtime)
