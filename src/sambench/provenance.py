"""Where a number comes from: code, libraries, device, configuration."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sambench
from sambench.status import OK

REASON = "reason"  # why a file holds no numbers
LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segment-anything",
    "pycocotools",
    "rlemasklib",
    "hotcoco",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "ultralytics-opencv-headless",
    "ultralytics",
)


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def git_state(folder: Path | None = None) -> tuple[str, bool]:
    """(commit, dirty) of the checkout that holds the package; (`unknown`, False) outside of one."""
    folder = folder or Path(sambench.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        # A package installed into somebody else's repository is not that repository's code.
        if not git("ls-files", "__init__.py"):
            return "unknown", False
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


def library_versions() -> dict[str, str]:
    """Versions of the libraries that can move a number, those that are installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def cpu_name() -> str:
    """The model of the processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def provenance(config: Any, device: str = "", **facts: str) -> dict[str, str]:
    """What every result file carries in its metadata.

    config: the part of the configuration that decides the content. device: the accelerator's name, the processor's
    when empty. facts: further entries, such as the digest of a checkpoint.
    """
    commit, dirty = git_state()
    return {
        "sambench_version": sambench.__version__,
        "git_commit": commit,
        "git_dirty": str(dirty).lower(),
        "libraries": json.dumps(library_versions(), sort_keys=True),
        "device": device or cpu_name(),
        "config_digest": digest(config),
        **facts,
    }


def why_none(status: str, reason: str) -> dict[str, str]:
    """The record of why a file holds no numbers; none where the status is `ok`."""
    return {} if status == OK else {REASON: f"{status}: {reason}"}


def deciding(metadata: Mapping[str, str]) -> dict[str, str]:
    """What of a provenance record can move a number; the code itself is told by a digest of its own."""
    return {
        name: value for name, value in metadata.items() if name not in ("sambench_version", "git_commit", "git_dirty")
    }


def read_libraries(metadata: Mapping[str, str]) -> dict[str, str]:
    """The library versions of a provenance record."""
    libraries: dict[str, str] = json.loads(metadata.get("libraries", "{}"))
    return libraries
