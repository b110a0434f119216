"""Reading checkpoint files: nothing in them is trusted, nothing is executed, every refusal is one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

WRAPPERS = ("model", "state_dict", "model_state_dict", "ema")


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """A .pth, .pt or .safetensors file -> its state dict, without wrappers and `module.` prefixes.

    Raises InputError when the file cannot be read as weights.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    return unwrap(state)


def unwrap(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Follow `model`, `state_dict` and the like down to the tensors; drop a `module.` that every key has."""
    while not all(isinstance(value, torch.Tensor) for value in state.values()):
        inner = next((state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)), None)
        if inner is None:
            break
        state = inner
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)
