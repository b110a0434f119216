"""What starting a job imports, and that a deferred package is whole once somebody asks for more of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sambench.variants.deferred import DeferredPackage, defer

JOB = """
import sys
import numpy as np
import sambench.evaluate.detections, sambench.evaluate.segevery, sambench.records
from sambench.evaluate.filters import suppress
suppress(np.array([[0, 0, 4, 4], [0, 0, 4, 5]]), np.array([0.5, 0.6]), 0.7)
from sambench.config import read_registries
from sambench.variants.base import Runtime
from sambench.variants.cards import read_cards
from sambench.variants.registry import build
cards = read_cards(read_registries(["variants"])["variants"])
for name in sys.argv[1:]:
    build(cards[name], Runtime(device="cpu"), random_weights=True)
print(*sys.modules)
"""
HEAVY = {"torchvision", "torch._dynamo", "sympy", "timm.models.beit", "timm.data.loader", "transformers"}


def test_a_job_imports_only_what_its_variant_needs() -> None:
    # One process for all: each would import torch anew.
    names = ["mobilesam", "slimsam_77", "repvit_sam", "efficientvit_sam_l0", "nanosam", "efficientsam_ti"]
    command = [sys.executable, "-W", "error", "-c", JOB, *names]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert {"segment_anything.modeling", "timm.models.tiny_vit", "timm.models.resnet", "torch"} <= loaded
    assert not HEAVY & loaded


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of which the `__init__` and the submodule `part` count how often they run."""
    name = "sambench_test_package"
    for path, text in {
        "__init__.py": "import builtins\nfrom .part import VALUE\nfrom . import inner\n__all__ = ['VALUE', 'runs']\n"
        "runs = getattr(builtins, 'sambench_runs', 0) + 1\nbuiltins.sambench_runs = runs\n",
        "part.py": "VALUE = object()\n",
        "version.py": "__version__ = '1.2'\n",
        "inner/__init__.py": "from ..part import VALUE\nfrom .leaf import LEAF\n",
        "inner/leaf.py": "LEAF = 3\n",
    }.items():
        file = tmp_path / name / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("builtins.sambench_runs", 0, raising=False)
    before = set(sys.modules)
    yield name
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_a_submodule_does_not_run_the_package(package: str) -> None:
    defer(package, "version")
    defer(f"{package}.inner")
    part = __import__(f"{package}.part", fromlist=["VALUE"])
    leaf = __import__(f"{package}.inner.leaf", fromlist=["LEAF"])
    whole = sys.modules[package]
    assert leaf.LEAF == 3 and whole.part is part and whole.__version__ == "1.2"
    assert isinstance(whole, DeferredPackage) and isinstance(whole.inner, DeferredPackage)
    assert not hasattr(whole, "__wrapped__") and isinstance(whole, DeferredPackage)


def test_what_only_the_package_can_give_runs_it_once(package: str) -> None:
    defer(package, "version")
    defer(f"{package}.inner")
    part = __import__(f"{package}.part", fromlist=["VALUE"])
    whole = sys.modules[package]
    assert whole.VALUE is part.VALUE
    assert whole.runs == 1 and whole.inner.VALUE is part.VALUE and type(whole) is type(whole.inner) is ModuleType
    with pytest.raises(AttributeError):
        _ = whole.nothing


def test_a_star_import_and_a_failing_package(package: str, tmp_path: Path) -> None:
    defer(package)
    names: dict[str, object] = {}
    exec(f"from {package} import *", names)
    assert names["runs"] == 1
    (tmp_path / "sambench_test_broken").mkdir()
    (tmp_path / "sambench_test_broken" / "__init__.py").write_text("import sambench_test_absent\n")
    defer("sambench_test_broken")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="sambench_test_absent"):
            from sambench_test_broken import anything  # noqa: F401


def test_absent_and_loaded_packages_are_left_alone(package: str) -> None:
    defer("sambench_test_absent")
    assert "sambench_test_absent" not in sys.modules
    loaded = __import__(package)
    defer(package)
    assert sys.modules[package] is loaded and not isinstance(loaded, DeferredPackage)


@pytest.mark.slow  # torch._dynamo and timm's models take their time
def test_the_real_packages_come_whole_when_asked_for() -> None:
    from segment_anything.modeling import ImageEncoderViT

    from sambench.variants.encoders.tiny_vit import TinyVit

    import segment_anything  # isort: skip
    import timm
    import torchvision

    assert isinstance(segment_anything.sam_model_registry, dict) and segment_anything.SamPredictor
    assert segment_anything.modeling.ImageEncoderViT is ImageEncoderViT
    model = timm.create_model("tiny_vit_5m_224")
    assert type(model) is TinyVit and timm.data.create_transform and timm.models.tiny_vit.TinyVit is TinyVit
    assert torchvision.ops.misc.FrozenBatchNorm2d and torchvision.ops.nms and torchvision.models.resnet18
