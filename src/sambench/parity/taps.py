"""Intermediate tensors of a network, read by hooks, so that no variant carries code for its own inspection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Tap:
    """Where a tensor is read: an output of the module at `path`, of several the one at `index`.

    before: the module's first input instead of its output.
    """

    path: str
    index: int = 0
    before: bool = False


_PICOSAM = {
    "crop": Tap("encoder_stage1", before=True),
    "stage4": Tap("encoder_stage4"),
    "bottleneck": Tap("bottleneck"),
    "up4": Tap("up4"),
}
# By model: stage of the report -> name in the fixture -> where our network has the same tensor.
TAPS: dict[str, dict[str, dict[str, Tap]]] = {
    "picosam2": {"prompt embedding": {**_PICOSAM, "logits": Tap("output_head")}},
    "picosam3": {"prompt embedding": {**_PICOSAM, "logits": Tap("refine")}},
    "rap_sam_r50": {
        "backbone": {f"layer{i}": Tap(f"backbone.layer{i}") for i in (1, 2, 3, 4)},
        "decoder stages": {f"stage{i}": Tap(f"mask_decoder.mask_heads.{i}", 1) for i in range(3)},
    },
    "rwkv_sam": {
        "backbone": {"middle": Tap("image_encoder.backbone", 2), "last": Tap("image_encoder.backbone", 3)},
    },
    "squeeze_sam": {
        "prompt embedding": {
            "fused": Tap("patch_embed", before=True),
            "patch_embed": Tap("patch_embed"),
            "encoder0": Tap("encoder.0"),
            "encoder_last": Tap("encoder.7"),
            "iou_token": Tap("token_decoder", 0),
            "mask_tokens": Tap("token_decoder", 1),
            "transformed": Tap("token_decoder", 2),
            "unet": Tap("decoder.6"),
        },
    },
}


@contextmanager
def tapped(network: nn.Module, taps: Mapping[str, Tap]) -> Iterator[dict[str, torch.Tensor]]:
    """Within the context, calls of `network` leave the tensors of `taps` in the mapping, the latest of each name."""
    found: dict[str, torch.Tensor] = {}

    def reader(name: str, tap: Tap) -> Any:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            value = inputs if tap.before else output
            found[name] = value[tap.index] if isinstance(value, tuple | list) else value

        return read

    handles = [network.get_submodule(tap.path).register_forward_hook(reader(n, tap)) for n, tap in taps.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
