"""Fixtures that all tests share."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# No test fetches anything but from servers of its own.
os.environ["SAMBENCH_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the project."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images, weights and parity fixtures, which lie beside the checkout and are not part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with real data and parity fixtures is not here")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Looked for, not imported: its import outside `variants.yolo.ultralytics` puts functions of its own into Pillow and
    # torch, for every later test of the process.
    if item.get_closest_marker("ultralytics") and find_spec("ultralytics") is None:
        pytest.skip("the extra `yolo` is not installed")
