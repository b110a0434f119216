"""The registry: cards that say what each variant is, and how to build one. Imports no network until one is built."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sambench.errors import InputError, near_matches
from sambench.status import NO_WEIGHTS, NOT_AVAILABLE, NOT_INSTALLED, OK, UNSUPPORTED_RUNTIME
from sambench.variants.base import ONNX

if TYPE_CHECKING:
    from sambench.variants.base import Runtime, Variant

ENTRY_POINT_GROUP = "sambench.variants"
ONNX_MODULES = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Card:
    """One variant, as config/variants.yaml describes it; config/README.md explains the fields.

    builder: `module:function` that takes (runtime, **arguments) and returns a Variant with random weights; empty
        when there is no public code.
    module: a package that the builder needs beyond sambench's own requirements, and `extra`, the extra that brings it.
    checkpoints: the files to load, in order: file, url, bytes, sha256, sha256_source.
    plain_only: it has no torch network whose dtype, attention, compilation or engine a runtime could change.
    checked: the day, as 2026-11-25, on which it was last looked up whether code and weights are public, and where.
    onnx: its image encoder and mask decoder can be exported for runtimes with `engine: onnxruntime`.
    """

    name: str
    family: str
    builder: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input_size: int | None = None
    prompts: Sequence[str] = ()
    selection: str = "argmax"
    checkpoints: Sequence[Mapping[str, Any]] = ()
    plain_only: bool = False
    onnx: bool = False
    module: str = ""
    extra: str = ""
    licence_code: str = ""
    licence_weights: str = ""
    paper: str = ""
    code: str = ""
    params_m: float | None = None
    status: str = "released"
    reason: str = ""
    checked: str = ""
    notes: str = ""

    def weights(self, folders: Iterable[Path]) -> list[Path] | None:
        """The checkpoint files, each in the first folder that has it; None when one is missing."""
        folders = list(folders)
        paths = []
        for checkpoint in self.checkpoints:
            path = next((f / checkpoint["file"] for f in folders if (f / checkpoint["file"]).is_file()), None)
            if path is None:
                return None
            paths.append(path)
        return paths

    def availability(self, folders: Iterable[Path], runtime: Runtime | None = None) -> str:
        """`ok`, or why the variant cannot yield an accuracy here (in that runtime)."""
        if not self.builder:
            return NOT_AVAILABLE
        if self.module and importlib.util.find_spec(self.module) is None:
            return NOT_INSTALLED
        if runtime is not None and not runtime.plain and self.plain_only:
            return UNSUPPORTED_RUNTIME
        if runtime is not None and runtime.engine == ONNX:
            if not self.onnx:
                return UNSUPPORTED_RUNTIME
            if any(importlib.util.find_spec(name) is None for name in ONNX_MODULES):
                return NOT_INSTALLED
        if runtime is not None and runtime.compile and not has_compiler():
            return NOT_INSTALLED
        return OK if self.weights(folders) is not None else NO_WEIGHTS

    def explain(self, folders: Iterable[Path], runtime: Runtime | None = None) -> str:
        """One line on what is missing and how to get it; empty when the variant is ready."""
        state = self.availability(folders, runtime)
        if state == NOT_AVAILABLE:
            return self.reason
        if state == NOT_INSTALLED and self.module and importlib.util.find_spec(self.module) is None:
            return f"needs the package `{self.module}`: pip install 'sambench[{self.extra}]'"
        if state == NOT_INSTALLED and runtime is not None and runtime.compile:
            return "torch.compile needs a C++ compiler: install g++ or clang++, or name one in CXX"
        if state == NOT_INSTALLED:
            return f"needs the packages {' and '.join(ONNX_MODULES)}: pip install 'sambench[onnx]'"
        if state == UNSUPPORTED_RUNTIME and runtime is not None and runtime.engine == ONNX and not self.plain_only:
            return "its card does not say `onnx: true`: only the family of SAM 1 is exported; choose engine torch"
        if state == UNSUPPORTED_RUNTIME:
            return (
                "choose a runtime with dtype float32, attention native, compile false and engine torch, such as eager"
            )
        if state == NO_WEIGHTS:
            files = ", ".join(c["file"] for c in self.checkpoints)
            sources = ", ".join(c.get("url") or "no public address" for c in self.checkpoints)
            return f"put {files} into {' or '.join(str(f) for f in folders)} (from {sources})"
        return ""


def has_compiler() -> bool:
    """Whether a C++ compiler is at hand, which torch.compile calls on a CPU, and on a GPU for its launchers."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def read_cards(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Card]:
    """Cards of the config (`variants:`) and those that installed packages bring by entry point.

    An entry point of the group `sambench.variants` names a function that returns a mapping of the same form.
    """
    merged: dict[str, Mapping[str, Any]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        merged.update(point.load()())
    merged.update(entries)
    return {name: Card(name=name, **entry) for name, entry in merged.items()}


def find_card(cards: Mapping[str, Card], name: str) -> Card:
    """The card of that name; InputError with near matches otherwise."""
    if name not in cards:
        raise InputError("variants", name, expected="a variant of the registry", remedy=near_matches(name, cards))
    return cards[name]


def build(card: Card, runtime: Runtime, folders: Iterable[Path] = (), *, random_weights: bool = False) -> Variant:
    """Build a variant ready to run.

    random_weights: leave the weights as they are initialised; for efficiency and parity, never for an accuracy.

    Raises InputError when code, package or weights are missing, or the variant cannot run in this runtime.
    """
    folders = list(folders)
    state = card.availability(folders, runtime)
    if state != OK and not (state == NO_WEIGHTS and random_weights):
        remedy = card.explain(folders, runtime)
        raise InputError(card.name, expected="a variant that can run", found=state, remedy=remedy)
    module, _, function = card.builder.partition(":")
    variant: Variant = getattr(importlib.import_module(module), function)(runtime, **card.arguments)
    variant.name = card.name
    if card.prompts:
        variant.prompt_kinds = frozenset(card.prompts)
    paths = card.weights(folders)
    if paths and not random_weights:
        variant.load_files(paths)
    variant.to_runtime()
    return variant
