"""From what a checkpoint file holds to one state dict: wrappers and prefixes of training frameworks come off.

A file is a nest of mappings and lists with tensors somewhere in it. Every place with tensors, and every way to take
prefixes off their names, is tried until the names are those that are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sambench.variants.hub_layouts import to_official

State = Mapping[str, torch.Tensor]

# Averaged weights come first: where both are saved, they are the ones that were evaluated.
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema")
# Where training frameworks keep the weights, and what they put before the names.
WRAPPERS = (*AVERAGED, "model_state_dict", "state_dict", "model", "module", "net", "network", "weights", "sam")
PREFIXES = (*WRAPPERS, "sam_model", "_orig_mod", "_forward_module")
# What DistributedDataParallel, torch.compile and others put before the names of a part, anywhere in a name.
INFIXES = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
MAX_DEPTH = 6


@dataclass(frozen=True)
class Weights:
    """A state dict that was found in a file.

    where: the mappings and prefixes that lead to it, such as `state_dict.model`; empty for the file as it is.
    others: where more such weights are, which were not taken.
    """

    state: dict[str, torch.Tensor]
    where: str = ""
    others: tuple[str, ...] = field(default=())

    @property
    def averaged(self) -> bool:
        """Whether they are an average over training, by the name that they have."""
        return any(part in AVERAGED for part in self.where.split("."))


def find(content: Any, fits: Callable[[State], bool]) -> list[Weights]:
    """All state dicts in a file whose names fit, averaged ones first, then in the order of the file."""
    found = {weights.where: weights for place in places(content) for weights in _stripped(place, fits)}
    return sorted(found.values(), key=lambda weights: not weights.averaged)


def best_guess(content: Any) -> Weights | None:
    """The state dict that a file most likely is about, where none fits: averaged, else the largest one.

    Mappings with anything else than tensors do not count. A prefix of training that every name has comes off.
    """
    pure = [place for place in places(content, pure=True) if place.state]
    if not pure:
        return None
    place = min(pure, key=lambda place: (not place.averaged, -len(place.state)))
    state = place.state
    while all(key.partition(".")[0] in INFIXES and "." in key for key in state):
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return Weights(state, place.where)


def places(content: Any, where: str = "", *, pure: bool = False) -> Iterator[Weights]:
    """Every mapping with tensors in a nest, outer ones first; with `pure`, those with nothing else.

    A mapping of nothing but state dicts, each a part of a network, is one too, with the names of the parts before the
    keys. The state of an optimizer is left out.
    """
    if isinstance(content, (list, tuple)):
        content = {str(number): value for number, value in enumerate(content)}
    if not isinstance(content, Mapping) or where.count(".") >= MAX_DEPTH:
        return
    content = {key: _as_tensor(value) for key, value in content.items()}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors and not (pure and len(tensors) < len(content)):
        yield Weights(tensors, where)
    inner = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, (Mapping, list, tuple)) and not key.startswith("optim")
    }
    parts = {key: value for key, value in inner.items() if isinstance(value, Mapping)}
    if len(parts) == len(content) > 1 and not parts.keys() & set(WRAPPERS) and all(map(_only_tensors, parts.values())):
        yield Weights({f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}, where)
    for key, value in inner.items():
        yield from places(value, _join(where, key), pure=pure)


def _only_tensors(state: Mapping[Any, Any]) -> bool:
    return bool(state) and all(isinstance(value, torch.Tensor) for value in state.values())


def _as_tensor(value: Any) -> Any:
    """An array of numbers as a tensor, which is the same to whoever saved it; anything else as it is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value


def _stripped(place: Weights, fits: Callable[[State], bool]) -> Iterator[Weights]:
    """What fits when prefixes are taken off a place, one after the other, the fewest first."""
    queue, seen = [place], set()
    while queue:
        weights = queue.pop(0)
        names = frozenset(weights.state)
        if names in seen or weights.where.count(".") > 2 * MAX_DEPTH:
            continue
        seen.add(names)
        if fits(weights.state):
            yield weights
            continue
        queue += [Weights(state, _join(weights.where, step)) for step, state in _steps(weights.state)]


def _steps(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Each single thing that can be taken off the names, as (the prefix, what is left)."""
    official = to_official(state)
    if official is not None:
        yield "", official
    plain = {".".join(part for part in key.split(".") if part not in INFIXES): value for key, value in state.items()}
    if plain.keys() != state.keys() and len(plain) == len(state):
        yield "", plain
    for prefix in PREFIXES:
        start = f"{prefix}."
        inside = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
        if inside:
            yield prefix, inside


def _join(where: str, step: str) -> str:
    return ".".join(filter(None, (where, step)))
