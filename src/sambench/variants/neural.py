"""What the neural variants share: a module on a device, strict loading of official names, the runtime."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sambench.variants.base import FAST, TORCH, Features, Prompts, Runtime, Variant
from sambench.variants.fast import fuse_attention
from sambench.variants.fast_vit import tile_attention
from sambench.variants.loading import read_weights
from sambench.variants.strict import load_strictly

if TYPE_CHECKING:
    from collections.abc import Sequence


def renamer(
    rules: Iterable[tuple[str, str]], drop: Iterable[str] = ()
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function from official keys to ours: regular expressions applied in order, keys matching `drop` left out."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    dropped = [re.compile(pattern) for pattern in drop]

    def rename(state: Mapping[str, Any]) -> dict[str, Any]:
        renamed = {}
        for key, value in state.items():
            if any(pattern.match(key) for pattern in dropped):
                continue
            for pattern, replacement in compiled:
                key = pattern.sub(replacement, key)
            renamed[key] = value
        return renamed

    return rename


class NeuralVariant(Variant):
    """A variant with one torch module.

    module: the network; its keys after `rename` are exactly those of the official checkpoint.
    rename: official state dict -> names of `module`; it also drops what the image path never uses.
    weights_taken: where in each checkpoint file the loaded weights were; empty for a file of nothing else.
    """

    weights_taken: tuple[str, ...] = ()

    def __init__(
        self,
        module: nn.Module,
        runtime: Runtime,
        rename: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.rename = rename
        self.runtime = runtime
        self.device = runtime.torch_device()
        self.dtype = runtime.torch_dtype()
        # Chunks of a few prompts fit the caches of a CPU; a GPU wants to be filled.
        self.decode_chunk = 64 if self.device.type == "cuda" else 4

    @property
    def fast(self) -> bool:
        """Whether prompts go through the fast decoder."""
        return self.runtime.decoder == FAST and self.runtime.engine == TORCH

    def load_files(self, paths: Sequence[Path]) -> None:
        (path,) = paths
        self.load_official(self.read(path, self.fits), str(path))

    def read(self, path: Path, fits: Callable[[Mapping[str, Any]], bool], number: int = 0) -> dict[str, torch.Tensor]:
        """The state dict in the checkpoint file of that number, whose names fit; says which of several it takes."""
        key = self.weights_keys[number] if number < len(self.weights_keys) else ""
        weights = read_weights(path, fits, key)
        if not key and (weights.others or weights.averaged):
            left = (
                f", not `{'`, `'.join(name or 'the file itself' for name in weights.others)}`" if weights.others else ""
            )
            taken = f"`{weights.where or 'the file itself'}`{' (averaged)' if weights.averaged else ''}"
            print(f"{path}: takes {taken}{left}; `weights_key` in the card chooses", file=sys.stderr)
        self.weights_taken = (*self.weights_taken[:number], weights.where)
        return weights.state

    def fits(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict has all the official names, and no other."""
        if not state:
            return False
        try:
            return self.rename(state).keys() == self.module.state_dict().keys()
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError):  # a tensor of another shape than expected
            return False

    def load_official(self, state: Mapping[str, Any], source: str) -> None:
        """Load a state dict with the official names, strictly; raises what `load_strictly` raises."""
        name = self.name or type(self).__name__
        load_strictly(self.module, self.rename, state, source, name, layout=self.layout)
        # Some encoders (TinyViT) cache what they derive from weights when the mode changes.
        self.module.train().eval()

    def to_runtime(self) -> None:
        """Move to the device and dtype of the runtime, once the weights are in place."""
        self.module.to(self.device)
        exact = self.module.state_dict()
        self.module.to(self.dtype)
        self.keep_float32()
        # What stays float32 gets its values from before the cast: rounding is not undone by a wider type.
        for name, value in self.module.state_dict().items():
            if value.is_floating_point() and value.dtype != self.dtype:
                value.copy_(exact[name])
        self.module.train().eval()
        if self.runtime.attention == "sdpa":
            fuse_attention(self.module)
        elif self.runtime.decoder == FAST and self.runtime.plain and self.device.type == "cpu":
            tile_attention(self.module)
        if self.runtime.compile:
            self.compile()

    def keep_float32(self) -> None:
        """Undo the dtype where precision is part of the protocol: coordinates and positional encodings."""

    def compile(self) -> None:
        """Compile the image encoder in place."""

    def pixels(self, prepared: Any) -> torch.Tensor:
        """One prepared image -> the (1, 3, S, S) float32 tensor that the image encoder gets, on the device."""
        raise TypeError(f"{type(self).__name__} does not expose its input tensor")

    def image_embedding(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, S, S) -> named feature maps (B, C, h, w), ready for `decode`."""
        raise TypeError(f"{type(self).__name__} does not expose its feature maps")

    def sizes(self, prepared: Any) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of the original and of the resized, unpadded image."""
        raise TypeError(f"{type(self).__name__} does not expose its sizes")

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[Any]) -> list[Features]:
        pixels = [self.pixels(image) for image in prepared]
        batch = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
        maps = self.image_embedding(batch.to(self.dtype))
        return [
            Features({name: value[i : i + 1] for name, value in maps.items()}, *self.sizes(image))
            for i, image in enumerate(prepared)
        ]

    def on_device(self, values: torch.Tensor) -> torch.Tensor:
        """A CPU tensor on the device. From pinned memory a GPU copies it while the CPU goes on."""
        if self.device.type != "cuda":
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    def tensor_points(
        self, prompts: Prompts, scale: tuple[float, float]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Prompts -> (points (N, P, 2), labels (N, P), boxes (N, 4)) on the device, float32, scaled by (x, y).

        The scaling is done in float64 before the cast, as the official predictors do it in numpy.
        """
        import numpy as np

        def move(values: np.ndarray | None, factor: np.ndarray | None) -> torch.Tensor | None:
            if values is None:
                return None
            if factor is not None:
                values = (values.astype(np.float64) * factor).astype(np.float32)
            return self.on_device(torch.as_tensor(values))

        xy = np.array(scale)
        return move(prompts.points, xy), move(prompts.labels, None), move(prompts.boxes, np.tile(xy, 2))
