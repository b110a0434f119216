"""What makes a stage run again: a digest of the code that can change its numbers, and of nothing else.

Snakemake gets the digest as a parameter of every rule. It covers the syntax trees of the stage's script and of the
modules that compute for it, without comments, docstrings, type annotations and the texts of errors and messages. It
leaves out the version, plumbing (errors, files, provenance, ...), how cards are read and explained, and definitions
(schemas, status words) that the stage does not use. A runtime's module counts only where that runtime is used.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = "sambench"
# They move files and words, not numbers.
PLUMBING = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        *(
            "cluster",
            "code_digest",
            "config",
            "errors",
            "files",
            "parquet",
            "partial",
            "progress",
            "provenance",
            "script",
        ),
        "record_checks",
        *(
            "settings",
            "study",
            "resources",
            "digests",
            "datasets.faults",
            "results.table",
            "results.tables",
            "variants.cards",
            "variants.origin",
        ),
    )
) | {PACKAGE}
# Of these only what is imported by name counts, with what it refers to: one schema, one status word.
DEFINITIONS = frozenset(f"{PACKAGE}.{name}" for name in ("records", "status", "jobs"))
# Variables whose texts are parts of errors and messages.
WORDS = frozenset(("remedy", "hint", "message", "reason", "expected"))
# Chosen by the runtime, so they count only where it asks for them: `runtime_modules`.
_GRAPHS, _ENGINES = f"{PACKAGE}.variants.onnx_graphs", f"{PACKAGE}.variants.engines"
RUNTIMES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("attention", "sdpa"): (f"{PACKAGE}.variants.fast",),
    **{("engine", name): (_GRAPHS, f"{_ENGINES}.onnx_runtime") for name in ("onnxruntime", "tensorrt", "coreml")},
    ("engine", "openvino"): (_GRAPHS, f"{_ENGINES}.openvino"),
}
_CHOSEN = frozenset(module for modules in RUNTIMES.values() for module in modules)


def runtime_modules(runtime: Mapping[str, Any]) -> list[str]:
    """The modules that a runtime of the configuration brings into play."""
    return [module for (key, value), modules in RUNTIMES.items() if runtime.get(key) == value for module in modules]


def source_digest(script: Path, *modules: str) -> str:
    """A digest of a script, the modules of sambench that compute for it, and further modules with theirs.

    It depends on what the code says only: a touch, a fresh checkout, a moved repository, another version or wording
    leave it alone.
    """
    hasher = hashlib.sha256(_meaning(script).encode())
    for part in sorted(_closure(_imports(script), modules)):
        hasher.update(part.encode())
    return hasher.hexdigest()[:16]


def module_files(*modules: str) -> list[Path]:
    """The source files of modules and of all that they import from their own package, plumbing included."""
    found: dict[str, Path] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        file = _source(name)
        if file is not None and name not in found:
            found[name] = file
            queue += [imported for module, names in _imports(file) for imported in _candidates(module, names)]
    return sorted(set(found.values()))


def _closure(imports: Iterable[tuple[str, tuple[str, ...]]], modules: Iterable[str]) -> Iterator[str]:
    """The meanings of everything that counts, each once."""
    queue = [*imports, *((module, ()) for module in modules)]
    asked = frozenset(modules)
    seen: set[Any] = set()
    while queue:
        module, names = queue.pop()
        if module in DEFINITIONS:
            for name in set(names) - seen:
                seen.add(name)
                yield from _definition(_source(module), name)
            continue
        for name in _candidates(module, names):
            if name in seen or name in PLUMBING or (name in _CHOSEN and name not in asked):
                continue
            seen.add(name)
            file = _source(name)
            if name in DEFINITIONS:  # imported as a whole: what is used of it is read from the importing code
                continue
            if file is not None:
                yield _meaning(file)
                queue += _imports(file)


def _candidates(module: str, names: Iterable[str]) -> list[str]:
    """The modules that `from module import names` may mean."""
    return [module, *(f"{module}.{name}" for name in names)]


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
def _tree(file: Path) -> ast.Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = [ast.Pass()]
    return tree


@functools.cache
def _imports(file: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import of a file from its own package, inside functions too: lazy is not unused.

    `from sambench import records` with uses such as `records.SEGANY` gives (sambench.records, (SEGANY, ...)).
    """
    package = _package_of(file)
    found: dict[str, set[str]] = {}
    aliases: dict[str, str] = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == package:
                    found.setdefault(alias.name, set())
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.partition(".")[0] != package:
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in DEFINITIONS:
                    aliases[alias.asname or alias.name] = whole
                else:
                    found.setdefault(node.module, set()).add(alias.name)
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            found.setdefault(aliases[node.value.id], set()).add(node.attr)
    return [(module, tuple(sorted(names))) for module, names in sorted(found.items())]


def _package_of(file: Path) -> str:
    """The package that a source file belongs to; scripts and modules outside of any count as sambench's."""
    folder = file.parent
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder.name if (folder / "__init__.py").is_file() else PACKAGE


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class _Wordless(ast.NodeTransformer):
    """Takes away what changes no number: docstrings, annotations, the texts of errors and of what is printed."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        self._strip(node)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._strip(node)
        return self.generic_visit(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self._strip(node)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """A text that is kept for an error, such as `remedy = "add the image"`."""
        worded = all(isinstance(target, ast.Name) and target.id in WORDS for target in node.targets)
        return ast.Pass() if worded and _is_text(node.value) else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
            return ast.Pass()
        return self.generic_visit(node)

    @staticmethod
    def _strip(node: ast.FunctionDef | ast.ClassDef | ast.Module) -> None:
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]


@functools.cache
def _meaning(file: Path) -> str:
    """A digest of what the code of a file says, without its words."""
    return _digest(_tree(file))


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(ast.dump(_Wordless().visit(ast.parse(ast.unparse(node)))).encode()).hexdigest()


@functools.cache
def _bindings(file: Path) -> dict[str, ast.stmt]:
    """Top-level statement by the name that it binds."""
    found: dict[str, ast.stmt] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            found |= {name.id: node for name in names}
    return found


@functools.cache
def _definition(file: Path | None, name: str) -> list[str]:
    """A definition and those of the same module that it refers to, as meanings."""
    if file is None:
        return []
    bindings, queue, seen = _bindings(file), [name], set[str]()
    while queue:
        current = queue.pop()
        if current in seen or current not in bindings:
            continue
        seen.add(current)
        queue += [node.id for node in ast.walk(bindings[current]) if isinstance(node, ast.Name)]
    return [_digest(bindings[each]) for each in sorted(seen)]
