"""What the neural variants share: a module on a device, strict loading of official names, the runtime."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sambench.errors import InputError
from sambench.variants.base import ONNX, Features, Prompts, Runtime, Variant
from sambench.variants.fast import fuse_attention
from sambench.variants.loading import looks_like, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_ONNX = "remove `onnx: true` from its card"


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


def load_strictly(
    module: nn.Module,
    ours: Mapping[str, Any],
    official: Mapping[str, Any],
    source: str,
    name: str,
    *,
    assign: bool = False,
) -> None:
    """Load a state dict that must fit to the last key.

    ours: with the keys of `module`; official: as it was in the file `source`; name: of the card that the file is for.
    assign: take the tensors themselves instead of copying them, for a module without storage (on the device `meta`).

    Raises InputError naming the variant that the file seems to belong to, or else every missing, unexpected and
    misshapen key.
    """
    expected = module.state_dict()
    problems = {
        "missing": sorted(expected.keys() - ours.keys()),
        "unexpected": sorted(ours.keys() - expected.keys()),
        "of another shape": sorted(
            key for key in expected.keys() & ours.keys() if expected[key].shape != ours[key].shape
        ),
    }
    if any(problems.values()):
        others = looks_like(official)
        found = "; ".join(f"{len(keys)} {title}: {', '.join(keys)}" for title, keys in problems.items() if keys)
        if others and name not in others:
            # The file of another variant differs nearly everywhere: its name says more than a thousand keys.
            counts = ", ".join(f"{len(keys)} {title}" for title, keys in problems.items() if keys)
            found = f"what looks like {' or '.join(others)} ({counts})"
        raise InputError(
            source,
            "state_dict",
            expected=f"the keys of {name}",
            found=found,
            remedy="check that the file belongs to this variant",
        )
    module.load_state_dict(ours, strict=True, assign=assign)


class NeuralVariant(Variant):
    """A variant with one torch module.

    module: the network; its keys after `rename` are exactly those of the official checkpoint.
    rename: official state dict -> names of `module`; it also drops what the image path never uses.
    """

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

    def load_files(self, paths: Sequence[Path]) -> None:
        (path,) = paths
        self.load_official(read_checkpoint(path), str(path))

    def load_official(self, state: Mapping[str, Any], source: str) -> None:
        """Load a state dict with the official names, strictly; raises what `load_strictly` raises."""
        load_strictly(self.module, self.rename(state), state, source, self.name or type(self).__name__)
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
        if self.runtime.compile:
            self.compile()
        if self.runtime.engine == ONNX:
            self.use_onnx()

    def keep_float32(self) -> None:
        """Undo the dtype where precision is part of the protocol: coordinates and positional encodings."""

    def compile(self) -> None:
        """Compile the image encoder in place."""

    def use_onnx(self) -> None:
        """Put exported graphs in the place of the image encoder and the mask decoder."""
        raise InputError(self.name, "onnx", expected="a variant of SAM 1", found=type(self).__name__, remedy=NO_ONNX)

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
