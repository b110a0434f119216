"""Packages whose networks are wanted without what their `__init__` imports besides.

`segment_anything` imports torchvision for its mask generator, timm reads data sets and registers 1,300 models, and
torchvision imports torch._dynamo: more seconds than the first image of a small variant takes. A deferred package
finds its submodules like any other; its own `__init__` runs when something is asked for that only it can give.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class DeferredPackage(ModuleType):
    """A package before its `__init__` ran.

    deferred_source: the submodule that is asked first for what the package lacks; empty for none.
    """

    deferred_source: str

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules (inspect, warnings, pickle) asks for names like __wrapped__ and finds none.
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if self.deferred_source:
            source = importlib.import_module(f"{self.__name__}.{self.deferred_source}")
            if hasattr(source, name):
                return getattr(source, name)
        # First, so that what `__init__` imports sees the package half made, as ever.
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and self.__spec__.loader is not None
        try:
            self.__spec__.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(self.__name__, None)  # as Python does, so that the next import tries again
            raise
        return getattr(self, name)


def defer(name: str, source: str = "") -> None:
    """Defer a package, unless it is imported already or not installed; its parents are deferred before it."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    package: Any = importlib.util.module_from_spec(spec)
    package.__class__ = DeferredPackage
    package.deferred_source = source
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)


def defer_timm() -> None:
    """Defer timm and import its layers, which take one class from torchvision, without torchvision's own `__init__`.

    What was read of torchvision is forgotten again: whoever imports it later gets it whole.
    """
    whole = "torchvision" in sys.modules
    for name in ("torchvision", "torchvision.ops", "torchvision.models"):
        defer(name)
    defer("timm", "version")
    defer("timm.models")
    defer("timm.data", "constants")
    try:
        importlib.import_module("timm.layers")
    finally:
        if not whole:
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
