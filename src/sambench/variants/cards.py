"""Cards: what each variant is, whether it can run here, and if not, why. Nothing here computes a result."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sambench.errors import InputError, near_matches
from sambench.files import is_file
from sambench.status import (
    NO_DEVICE,
    NO_WEIGHTS,
    NOT_AVAILABLE,
    NOT_INSTALLED,
    OK,
    UNSUPPORTED_RUNTIME,
)
from sambench.variants import origin
from sambench.variants.base import TORCH
from sambench.variants.engines import ENGINES, absent
from sambench.variants.likes import complete

if TYPE_CHECKING:
    from sambench.variants.base import Runtime


ENTRY_POINT_GROUP = "sambench.variants"
CEILING = "ground_truth"  # 100 % by definition: no competitor, and beside others it would only shrink their axes
PERMISSIVE = frozenset({"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0"})


@dataclass(frozen=True)
class Card:
    """One variant, as config/variants.yaml describes it; docs/configuration.md explains the fields.

    builder: `module:function` that takes (runtime, **arguments) and returns a Variant with random weights; empty
        when there is no public code.
    module: a package that the builder needs beyond sambench's own requirements, and `extra`, the extra that brings it.
    checkpoints: the files to load, in order: file, url, bytes, sha256, git_blob, sha256_source, package (a Python
        package that holds the file too), and weights_key, which says where in the file the weights to take are.
    plain_only: it has no torch network whose dtype, attention, compilation or engine a runtime could change.
    onnx: its image encoder and mask decoder can be exported for runtimes with an engine other than torch.
    volumes: it segments volumes and not images.
    counts: known image_size (height, width), parameters, flops, macs and products, used instead of building it as the
        EER's reference.
    like: the variant whose architecture it has, where the user gave a file of his own (likes.py).
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
    volumes: bool = False
    module: str = ""
    extra: str = ""
    licence_code: str = ""
    licence_weights: str = ""
    paper: str = ""
    code: str = ""
    params_m: float | None = None
    status: str = "released"
    reason: str = ""
    notes: str = ""
    checked: str = ""
    counts: Mapping[str, Any] | None = None
    like: str = ""

    @property
    def permissive(self) -> bool:
        """Whether code and weights may be used and passed on freely, commercially too."""
        licences = {self.licence_code, *([self.licence_weights] if self.checkpoints else [])}
        return licences <= PERMISSIVE

    def weights(self, folders: Iterable[Path]) -> list[Path] | None:
        """The checkpoint files, each in the first folder that has it; None when one is missing.

        The files of a variant that is `like` another one are also looked for in the working directory.
        """
        folders = [*folders, *([Path()] if self.like else [])]
        paths = []
        for checkpoint in self.checkpoints:
            path = next((f / checkpoint["file"] for f in folders if is_file(f / checkpoint["file"])), None)
            if path is None:
                return None
            paths.append(path)
        return paths

    def counted_files(self, folders: Iterable[Path]) -> list[Any]:
        """What the count of its cost takes from its files: their size, and an encoder that is an ONNX file."""
        graphs = [path for path in self.weights(folders) or [] if path.suffix == ".onnx"]
        return [self.checkpoint_bytes(folders), *(path.stat().st_mtime_ns for path in graphs)]

    def checkpoint_bytes(self, folders: Iterable[Path]) -> int | None:
        """The size of the files that are here, else the size that the card names; None when neither is known."""
        paths = self.weights(folders)
        if paths:
            return sum(path.stat().st_size for path in paths)
        sizes = [checkpoint["bytes"] for checkpoint in self.checkpoints if checkpoint.get("bytes")]
        return sum(sizes) if sizes and len(sizes) == len(self.checkpoints) else None

    def origins(self, folders: Iterable[Path], known: Iterable[Card] | None = None) -> list[str]:
        """What each checkpoint file is, by its digest (origin.py); empty when one is missing.

        known: the variants that a file may be mistaken for; by default those that come with sambench.
        """
        folders = list(folders)
        paths = self.weights(folders)
        if not paths:
            return []
        return origin.origins(self, paths, shipped_cards() if known is None else known, folders)

    def origin(self, folders: Iterable[Path], known: Iterable[Card] | None = None) -> str:
        """Its worst file: `official file`, `no digest known`, `another file` or `known as VARIANT`; empty without."""
        return origin.summary(self.origins(folders, known))

    def availability(self, folders: Iterable[Path], runtime: Runtime | None = None) -> str:
        """`ok`, or why the variant cannot yield an accuracy here (in that runtime)."""
        if not self.builder:
            return NOT_AVAILABLE
        if self.module and importlib.util.find_spec(self.module) is None:
            return NOT_INSTALLED
        if runtime is not None and not runtime.plain and self.plain_only:
            return UNSUPPORTED_RUNTIME
        if runtime is not None and runtime.engine != TORCH:
            if not self.onnx:
                return UNSUPPORTED_RUNTIME
            if ENGINES[runtime.engine].missing_packages:
                return NOT_INSTALLED
        if runtime is not None and runtime.compile and not has_compiler():
            return NOT_INSTALLED
        if runtime is not None and lacking(runtime):
            return NO_DEVICE
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
        if state == NOT_INSTALLED and runtime is not None:
            engine = ENGINES[runtime.engine]
            return f"needs {' and '.join(engine.missing_packages)}: pip install 'sambench[{engine.extra}]'"
        if state == UNSUPPORTED_RUNTIME and runtime is not None and runtime.engine != TORCH and not self.plain_only:
            return "its card does not say `onnx: true`: there is no export of its family; choose engine torch"
        if state == UNSUPPORTED_RUNTIME:
            return (
                "choose a runtime with dtype float32, attention native, compile false and engine torch, such as eager"
            )
        if state == NO_DEVICE and runtime is not None:
            other = "device auto or cpu" if runtime.engine == TORCH else "another engine"
            return f"{lacking(runtime)}; choose a runtime with {other}"
        if state == NO_WEIGHTS:
            return self._how_to_get_weights(folders)
        return ""

    def _how_to_get_weights(self, folders: Iterable[Path]) -> str:
        files = ", ".join(str(checkpoint["file"]) for checkpoint in self.checkpoints)
        if self.like:
            places = " or ".join(str(folder) for folder in folders)
            return f"no file {files} here or in {places}: correct variants.{self.name}.file"
        by_hand = f"put {files} into {' or '.join(str(folder) for folder in folders)}"
        urls = [checkpoint["url"] for checkpoint in self.checkpoints if checkpoint.get("url")]
        if not (urls or any(checkpoint.get("package") for checkpoint in self.checkpoints)):
            return f"{by_hand} (no public address is known)"
        source = f" (from {', '.join(urls)})" if urls else ""
        return f"`sambench download {self.name}` brings the weights; or {by_hand}{source}"


def lacking(runtime: Runtime) -> str:
    """Which part of the machine a runtime asks for and does not find, in a few words; empty when it is there."""
    missing = runtime.missing_device()
    if missing or runtime.engine == TORCH:
        return missing
    return absent(runtime.engine, runtime.device)


def has_compiler() -> bool:
    """Whether a C++ compiler is at hand, which torch.compile calls on a CPU, and on a GPU for its launchers."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def packaged_entries() -> dict[str, Mapping[str, Any]]:
    """The entries of variants that installed packages bring."""
    found: dict[str, Mapping[str, Any]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.update(point.load()())
    return found


def read_cards(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Card]:
    """Cards of the config (`variants:`) and those that installed packages bring by entry point.

    An entry point of the group `sambench.variants` names a function that returns a mapping of the same form.
    """
    merged = packaged_entries()
    merged.update(entries)
    return {name: Card(name=name, **entry) for name, entry in complete(merged).items()}


@cache
def shipped_cards() -> tuple[Card, ...]:
    """The cards of the registry that comes with sambench."""
    from sambench.config import read_registries

    return tuple(Card(name=name, **entry) for name, entry in read_registries(["variants"])["variants"].items())


def find_card(cards: Mapping[str, Card], name: str) -> Card:
    """The card of that name; InputError with near matches otherwise."""
    if name not in cards:
        raise InputError("variants", name, expected="a variant of the registry", remedy=near_matches(name, cards))
    return cards[name]
