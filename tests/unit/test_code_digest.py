"""The digest of a stage's code: what computes is in it; words, versions, plumbing and other stages' columns are not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sambench import code_digest
from sambench.code_digest import PLUMBING, RUNTIMES, module_files, runtime_modules

SCRIPTS = (
    *("scenes", "index", "prompts", "boxes", "boxes_merge", "segany", "average_precision", "segevery"),
    *("latency", "throughput", "agreement", "efficiency"),
)
BASELINE, SAM = "sambench.variants.baselines", "sambench.variants.sam"
PROGRAM = """
import sys
from pathlib import Path
from sambench.code_digest import source_digest
scripts = Path(sys.argv[1])
for stage in sys.argv[2:]:
    name, _, model = stage.partition("+")
    measure = name in ("latency", "throughput", "agreement", "efficiency")
    modules = ([f"sambench.measure.{name}"] if measure else []) + (model.split(",") if model else [])
    print(stage, source_digest(scripts / f"{'measure' if measure else name}.py", *modules))
"""


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library and the scripts that tests may edit."""
    folder = tmp_path_factory.mktemp("digest")
    for part in ("src", "workflow"):
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


STAGES = [
    *SCRIPTS[:5],
    *(f"{name}+{BASELINE}" for name in SCRIPTS[5:] if name != "average_precision"),
    *(f"{name}+{SAM}" for name in ("segany", "latency", "efficiency")),
    f"segany+{SAM},{','.join(RUNTIMES['engine', 'onnxruntime'])}",
    "average_precision",
]


def digests(project: Path) -> dict[str, str]:
    """The digest of every stage, in a process that sees the copy."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(project / "workflow" / "scripts"), *STAGES],
        env={"PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def before(project: Path) -> dict[str, str]:
    return digests(project)


@pytest.fixture
def edited(project: Path) -> Iterator[list[tuple[Path, str]]]:
    """Files with the text that they had; they get it back after the test."""
    changed: list[tuple[Path, str]] = []
    yield changed
    for path, text in changed:
        path.write_text(text)


def edit(project: Path, edited: list[tuple[Path, str]], file: str, pattern: str, replacement: str) -> None:
    path = project / file
    text = path.read_text()
    edited.append((path, text))
    made, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE | re.DOTALL)
    assert count == 1, f"{file} has no {pattern}"
    path.write_text(made)


def test_words_versions_and_plumbing_change_no_stage(
    project: Path, before: dict[str, str], edited: list[tuple[Path, str]]
) -> None:
    # The version, and a constant in each file of plumbing.
    edit(project, edited, "src/sambench/__init__.py", r'__version__ = "[^"]*"', '__version__ = "99.0"')
    for module in sorted(PLUMBING - {"sambench", "sambench.results.tables"}):
        edit(project, edited, f"src/{module.replace('.', '/')}.py", r"\Z", "\nEDITED = True\n")
    # A comment, a docstring, a hint and a printed line in modules that compute.
    edit(project, edited, "src/sambench/evaluate/segany.py", r"\Z", "\n# A comment.\n")
    edit(project, edited, "src/sambench/masks.py", r'\A"""', '"""Other words. ')
    edit(
        project, edited, "src/sambench/datasets/annotations.py", r'remedy = "add the image', 'remedy = "name the image'
    )
    edit(project, edited, "src/sambench/evaluate/detections.py", r"\Z", "\n\n# Another comment.\n")
    edit(project, edited, "src/sambench/measure/throughput.py", r'print\(f"', 'print(f"other ')
    # A column of a table of results, and a status word that no stage uses yet.
    edit(
        project, edited, "src/sambench/results/tables/latency.py", r'"device", "weights"', '"device", "new", "weights"'
    )
    edit(project, edited, "src/sambench/status.py", r"\Z", '\nNEW = "new"\n')
    edit(project, edited, "src/sambench/results/statistics.py", r"\Z", "\nEDITED = True\n")
    assert digests(project) == before


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "stages"),
    [
        ("variants/baselines.py", r"\Z", "\nEDITED = True\n", {s for s in STAGES if BASELINE in s}),
        ("variants/sam.py", r"FRAME = 1024", "FRAME = 1000", {s for s in STAGES if SAM in s}),
        ("variants/onnx_graphs.py", r"OPSET = 17", "OPSET = 18", {s for s in STAGES if "onnx_runtime" in s}),
        ("measure/latency.py", r"BOX_SEED = 0", "BOX_SEED = 1", {s for s in STAGES if s[:7] in ("latency", "agreeme")}),
        ("measure/throughput.py", r"SHARE = 0.9", "SHARE = 0.8", {s for s in STAGES if s.startswith("throughput")}),
        ("evaluate/segevery.py", r"\Z", "\nEDITED = True\n", {s for s in STAGES if s.startswith("segevery")}),
        ("evaluate/average_precision.py", r"\Z", "\nEDITED = True\n", {"average_precision", "boxes"}),
        ("datasets/scenes.py", r"\Z", "\nEDITED = True\n", {"scenes"}),
        ("detectors/classes.py", r"\Z", "\nEDITED = True\n", {"boxes"}),
        # A new column of one record, and the images of a shard.
        ("records.py", r'pa.field\("predicted_iou", pa.float32\(\)\),\n        pa.field\("selected',
         'pa.field("new", pa.float32()),\n        pa.field("selected', {s for s in STAGES if s.startswith("segany")}),
        ("jobs.py", r"return images.iloc\[shard::shards\]", "return images.iloc[shard:]",
         {"boxes", "average_precision", *(s for s in STAGES if s.startswith("segany"))}),
    ],
)  # fmt: skip
def test_a_constant_changes_the_stages_that_it_can_change(
    project: Path,
    before: dict[str, str],
    edited: list[tuple[Path, str]],
    file: str,
    pattern: str,
    replacement: str,
    stages: set[str],
) -> None:
    edit(project, edited, f"src/sambench/{file}", pattern, replacement)
    after = digests(project)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == stages


def test_a_script_counts_for_its_stage_alone(
    project: Path, before: dict[str, str], edited: list[tuple[Path, str]]
) -> None:
    edit(project, edited, "workflow/scripts/prompts.py", r"\Z", "\nEDITED = True\n")
    after = digests(project)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == {"prompts"}


def test_a_runtime_brings_its_modules() -> None:
    assert runtime_modules({"dtype": "float32", "compile": True}) == []
    assert runtime_modules({"engine": "onnxruntime"}) == [
        "sambench.variants.onnx_graphs",
        "sambench.variants.engines.onnx_runtime",
    ]
    assert runtime_modules({"attention": "sdpa"}) == ["sambench.variants.fast"]


def test_modules_are_followed_into_functions_but_not_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "farm"
    folder.mkdir()
    files = {
        "__init__": "",
        "barn": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from farm import cow\n"
        "def feed():\n    from farm import hay\n",
        "hay": "",
        "cow": "",
        "goat": "raise SystemExit('imported')",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    code_digest._package_folder.cache_clear()
    assert [file.stem for file in module_files("farm.barn")] == ["__init__", "barn", "hay"]
    assert [file.stem for file in module_files("farm.goat")] == ["goat"], "nothing is imported"
