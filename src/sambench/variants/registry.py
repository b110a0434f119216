"""The registry: how a variant is built from its card. Imports no network until one is built."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sambench.errors import BadWeights, InputError, UnsupportedRuntime
from sambench.status import BAD_WEIGHTS, NO_WEIGHTS, OK, UNSUPPORTED_RUNTIME
from sambench.variants import origin
from sambench.variants.base import TORCH
from sambench.variants.cards import Card

if TYPE_CHECKING:
    from sambench.variants.base import Runtime, Variant


class Loader(Protocol):
    """What has weights in files: a variant or a detector."""

    name: str

    def load_files(self, paths: Sequence[Path]) -> None: ...


def build(card: Card, runtime: Runtime, folders: Iterable[Path] = (), *, random_weights: bool = False) -> Variant:
    """Build a variant ready to run.

    random_weights: leave the weights as they are initialized; for efficiency and parity, never for an accuracy.

    Raises BadWeights when a checkpoint file cannot be read or belongs to another variant; another InputError when code,
    package, device or weights are missing, or the variant cannot run in this runtime.
    """
    folders = list(folders)
    state = card.availability(folders, runtime)
    if state != OK and not (state == NO_WEIGHTS and random_weights):
        remedy = card.explain(folders, runtime)
        raise InputError(card.name, expected="a variant that can run", found=state, remedy=remedy)
    module, _, function = card.builder.partition(":")
    variant: Variant = getattr(importlib.import_module(module), function)(runtime, **card.arguments)
    variant.name, variant.layout = card.name, card.like or card.name
    if card.prompts:
        variant.prompt_kinds = frozenset(card.prompts)
    paths = card.weights(folders)
    if paths and not random_weights:
        variant.weights_keys = [checkpoint.get("weights_key", "") for checkpoint in card.checkpoints]
        refuse_mistaken_files(card, paths, folders)
        load(variant, paths)
    variant.to_runtime()
    if runtime.engine != TORCH:
        from sambench.variants.onnx_graphs import use_onnx

        use_onnx(variant)
    return variant


def attempt(
    card: Card, runtime: Runtime, folders: Iterable[Path] = (), *, random_weights: bool = False
) -> tuple[Variant | None, str, str]:
    """Build a variant, or say why there is none -> (the variant, `ok`, ``) or (None, a status, one line on the reason).

    Takes what `build` takes. What no status stands for is raised.
    """
    folders = list(folders)
    state = card.availability(folders, runtime)
    if state != OK and not (state == NO_WEIGHTS and random_weights):
        return None, state, card.explain(folders, runtime)
    try:
        return build(card, runtime, folders, random_weights=random_weights), OK, ""
    except BadWeights as error:
        return None, BAD_WEIGHTS, str(error)
    except UnsupportedRuntime as error:
        return None, UNSUPPORTED_RUNTIME, str(error)


def refuse_mistaken_files(card: Card, paths: Sequence[Path], folders: Iterable[Path]) -> None:
    """Raise BadWeights when the digest of a file says that it is another variant's."""
    for path, found in zip(paths, card.origins(folders), strict=True):
        other = found.removeprefix(origin.KNOWN_AS)
        if found.startswith(origin.KNOWN_AS) and other != card.like:
            remedy = "put the right one there, or run the other variant under its own name"
            raise BadWeights(
                path, expected=f"the file of {card.name}", found=f"that of {other}, byte by byte", remedy=remedy
            )


def load(loader: Loader, paths: Sequence[Path]) -> None:
    """Let a variant or a detector load its files. Raises BadWeights for anything wrong with them."""
    from sambench.memory import memory_guard

    try:
        with memory_guard():
            loader.load_files(paths)
    except (BadWeights, MemoryError):
        raise
    except InputError as error:
        raise BadWeights(str(error)) from error
    except Exception as error:  # files are not trusted, and fail in as many ways as there are bytes
        text = " ".join(str(error).split())[:200]
        where = " + ".join(map(str, paths))
        raise BadWeights(
            where, expected=f"the weights of {loader.name}", found=f"{type(error).__name__}: {text}"
        ) from error
