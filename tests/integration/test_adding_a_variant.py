"""docs/adding-a-variant.md, followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.fixture
def package(root: Path, tmp_path: Path) -> Path:
    """The page's files, and what installing them leaves: the module and the metadata of its entry point."""
    page = (root / "docs" / "adding-a-variant.md").read_text()
    files = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert set(files) == {"ellipse/__init__.py", "pyproject.toml"}
    assert sum(text.count("\n") for text in files.values()) < 50
    site = tmp_path / "site"
    (site / "ellipse").mkdir(parents=True)
    (site / "ellipse" / "__init__.py").write_text(files["ellipse/__init__.py"])
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def run(package: Path, program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_adds_a_variant(package: Path) -> None:
    assert "ellipse" in run(package, "from sambench.cli import app; app(['variants'])")
    program = """
import math, numpy as np
from sambench.config import read_registries, read_study
from sambench.variants.base import Prompts, Runtime
from sambench.variants.registry import build
config = read_registries()
config["study"]["variants"] = ["ellipse"]
study = read_study(config)
assert study.builder_modules("ellipse") == ["ellipse"]
variant = build(study.cards["ellipse"], Runtime(device="cpu"))
features = variant.encode([np.zeros((100, 200, 3), np.uint8)])[0]
found = variant.decode(features, Prompts(boxes=np.array([[20, 10, 180, 90]], np.float32)))
area = int(found.upsampling.masks(found.logits[:, 0]).sum())
assert abs(area / (math.pi * 80 * 40) - 1) < 0.01, area
"""
    run(package, program)
