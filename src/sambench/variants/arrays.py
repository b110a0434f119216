"""Checkpoints of detectron2, pickles of NumPy arrays: read by an unpickler that knows arrays and nothing else."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.errors import InputError
from sambench.variants.loading import GET_IT_AGAIN, check_bytes

# Everything that a pickled array calls, under the names of NumPy 1 and 2.
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    *((module, name) for module in _MULTIARRAY for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in _NUMERIC),
}


class ArrayUnpickler(pickle.Unpickler):
    """Refuses every name that an array does not need, before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        found = super().find_class(module.replace("numpy.core.", "numpy._core."), name)
        # A pickle may set attributes of what it names: the one function that is written in Python stays out of reach.
        return (lambda *given: found(*given)) if name == "_frombuffer" else found


def read_arrays(path: Path) -> dict[str, torch.Tensor]:
    """A `.pkl` of detectron2 -> its state dict, arrays as tensors.

    The file is a mapping with the arrays under `model` (detectron2/checkpoint/detection_checkpoint.py).

    Raises InputError for anything else; code in the pickle is never run.
    """
    check_bytes(path)
    try:
        with path.open("rb") as file:
            content = ArrayUnpickler(file, encoding="latin1").load()
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler stumble over
        raise _refusal(path, error) from error
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, dict | OrderedDict) or not state:
        raise InputError(path, expected="a mapping of arrays", found=f"a {type(state).__name__}", remedy=GET_IT_AGAIN)
    wrong = [
        str(key) for key, value in state.items() if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub"
    ]
    if wrong:
        found = f"something else under {', '.join(wrong[:5])}"
        raise InputError(path, "model", expected="arrays of numbers", found=found, remedy=GET_IT_AGAIN)
    return {str(key): torch.from_numpy(np.require(value, requirements=["C", "W"])) for key, value in state.items()}


def _refusal(path: Path, error: Exception) -> InputError:
    text = " ".join(str(error).split())
    if text.startswith("GLOBAL "):
        return InputError(
            path,
            expected="a pickle of arrays",
            found=f"one that needs to run {text.removeprefix('GLOBAL ')}",
            remedy="it was not run; use a file that holds only arrays",
        )
    size = path.stat().st_size
    found = f"a damaged or foreign file of {size} bytes ({type(error).__name__}: {text[:100]})"
    return InputError(path, expected="a pickle of arrays", found=found, remedy=GET_IT_AGAIN)
