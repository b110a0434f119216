"""Benchmarks are not run by tests; that each one can start is checked here."""

from __future__ import annotations

import ast
import importlib
import runpy
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_benchmark_imports_is_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(file.parent)  # as for a script; they use one another
    names = runpy.run_path(str(file), run_name="benchmark")
    assert "main" in names and "run(main)" not in file.read_text(), "it is a command, not a script of the workflow"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_the_code_in_its_texts_imports_is_there(file: Path) -> None:
    """Benchmarks that start processes of their own hold code in texts."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\nimport " in node.value:
            for inner in ast.walk(ast.parse(node.value)):
                for name in inner.names if isinstance(inner, ast.Import) else ():
                    importlib.import_module(name.name)
