"""Where a number comes from: code, libraries, device, configuration."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sambench

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
    "ultralytics-opencv-headless",
    "ultralytics",
)


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def module_files(*modules: str) -> list[Path]:
    """The source files that modules import from their own package, directly or not, themselves included.

    Imports inside functions count too: lazy is not the same as unused. What is imported under TYPE_CHECKING alone
    does not run and does not count. Nothing is imported to find this out.
    """
    found: dict[str, Path] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        file = _source(name)
        if name not in found and file is not None:
            found[name] = file
            queue.extend(_imports(file, name.partition(".")[0]))
    return sorted(found.values())


@functools.cache
def _package_folder(package: str) -> Path | None:
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


@functools.cache
def _source(module: str) -> Path | None:
    """The file of a module, found by its name alone: importlib would import its parents."""
    package, _, rest = module.partition(".")
    folder = _package_folder(package)
    if folder is None:
        return None
    path = folder.joinpath(*rest.split(".")) if rest else folder
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@functools.cache
def _imports(file: Path, package: str) -> list[str]:
    """The names that a file imports from a package; some may be functions, which no file bears the name of."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.partition(".")[0] == package]


def source_digest(script: Path, *modules: str) -> str:
    """A digest of a script, the modules of sambench that it imports, and further modules with theirs.

    It depends on the content of the files only, so a touch, a fresh checkout or a moved repository leaves it alone.
    """
    hasher = hashlib.sha256()
    for file in [script, *module_files(*_imports(script, "sambench"), *modules)]:
        hasher.update(hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()[:16]


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


def read_libraries(metadata: Mapping[str, str]) -> dict[str, str]:
    """The library versions of a provenance record."""
    libraries: dict[str, str] = json.loads(metadata.get("libraries", "{}"))
    return libraries
