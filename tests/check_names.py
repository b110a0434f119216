"""Names that have a successor, and words with two spellings: `python tests/check_names.py`.

It prints `file:line: word -> new word` for each use and exits with 1 if there is one, so that one thing keeps one name.
docs/renames.md tells users of old results the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READ = (
    *("Snakefile", "Makefile", "README.md", "CONTRIBUTING.md", "config", "docs", "rules", "src", "workflow"),
    *("benchmarks", "tests"),
)
ENDINGS = frozenset({"", ".csv", ".html", ".md", ".py", ".smk", ".toml", ".tsv", ".yaml", ".yml"})
# They tell of old names, or make them up.
ALLOWED = ("docs/renames.md", "CHANGELOG.md", "tests/check_names.py", "tests/unit/test_check_names.py")
# Tests read old results and so may say old names; one spelling is for all.
NAMES_MAY_STAND_IN = ("tests/*", "benchmarks/*")


@dataclass(frozen=True)
class Retired:
    """A name that has a successor.

    pattern: where `old` stands for what was renamed; a match ends on the line of the name. It is also looked for in the
    path of the file. files: globs (`*` crosses folders) of the files that are read.
    """

    old: str
    new: str
    pattern: str
    files: tuple[str, ...] = ("*",)

    @property
    def key(self) -> str:
        """What a text without any use does not have: a quick first look."""
        return self.old.lower().rpartition(".")[2]


def table(name: str) -> str:
    """Where a word is the name of a table: in paths, in prose and where tables are registered, written or listed."""
    return (
        rf"\btables[./]{name}\b"
        rf"|\btables? (?:`\w+`(?:, | and ))*`{name}`"
        rf'|\b(?:write_table\(|table=)[^\n]*"{name}"|^    name="{name}",$'
    )


RETIRED = (
    # Tables.
    Retired("segany_time", "latency", r"(?i)\bsegany_time\b"),
    Retired("detectors", "boxes", table("detectors")),
    Retired("instances", "average_precision", table("instances")),
    Retired("boxes", "accuracy_boxes", r'"boxes": \["boxes"\]', ("rules/*",)),
    Retired("points", "accuracy_points", table("points")),
    # Targets and rules.
    Retired(
        "instances",
        "average_precision",
        r"^rule instances:|\brules/instances\.smk|\b(?:results|scripts)[./]instances_table\b",
    ),
    Retired("instances", "average_precision", r"\bsnakemake (?:[^`\n]* )?instances(?=[ `\n])", ("*.md",)),
    Retired("instances", "average_precision", r"^One stage at a time:.*`instances`", ("*.md",)),
    Retired("index_dataset", "index", r"\bindex_dataset\b"),
    Retired("merge_boxes", "boxes_merge", r"\bmerge_boxes\b"),
    Retired("box_precision", "average_precision_boxes", r"\bbox_precision\b(?!_)", ("rules/*", "docs/*", "config/*")),
    Retired("mask_precision", "average_precision_masks", r"\bmask_precision\b", ("rules/*", "docs/*", "config/*")),
    Retired("mask_precision", "average_precision", r"\bMASK_PRECISION\b"),
    *(
        Retired(f"{stage}_variant", "measure", rf"\b{stage}_variant\b", ("rules/*", "docs/*", "config/*"))
        for stage in ("efficiency", "latency", "throughput", "agreement")
    ),
    Retired("download", "retrieve", r"^rule download:|\bscripts/download\.py"),
    Retired("download", "retrieve", r"\bsnakemake (?:[^`\n]* )?download(?=[ `\n])", ("*.md",)),
    # The variant `oracle`; the selection rule keeps its name, as do the sampler oracle_boxes and the column iou_oracle.
    Retired("oracle", "ground_truth", r"\bvariants: ?\[[^\]]*\boracle\b", ("*.yaml", "*.md")),
    Retired("oracle", "ground_truth", r"^\s*- oracle\b", ("config/*.yaml",)),
    Retired("oracle", "ground_truth", r"^\s*oracle:", ("config/variants.yaml",)),
    Retired("oracle", "ground_truth", r"^\|(?:[^|\n]*\|)? ?`oracle` \|", ("*.md",)),
    Retired("oracle", "ground_truth", r"\bvariant `?oracle\b|(?i:\bthe `?oracle`?)(?= gets| answers|:)"),
    Retired("oracle", "ground_truth", r"`oracle`(?= answers| with `| \(the ground truth\))", ("*.md", "*.py")),
    Retired("oracle", "ground_truth", r'"oracle": [0-9.]+|"oracle: ', ("src/*",)),
    Retired("Oracle", "GroundTruth", r"\bclass Oracle\b|\bbaselines:GroundTruth\b"),
    # Modules.
    Retired("sambench.score", "sambench.evaluate.score", r"\bsambench[./]score\b"),
    Retired("evaluate.masks", "masks", r"\bevaluate[./]masks\b|\bevaluate import masks\b"),
    Retired("measure.memory", "memory", r"\bmeasure[./]memory\b|\bmeasure import memory\b"),
    Retired("evaluate.stability", "variants.stability", r"\bevaluate[./]stability\b|\bevaluate import stability\b"),
    Retired("measure.cost", "measure.efficiency", r"\bmeasure[./]cost\b|\bmeasure import cost\b"),
)

# -ize, never -ise, for these stems; words such as noise, raise and precise have no other spelling. The file name of a
# checkpoint (`..._dequantised.safetensors`) stays as it is.
STEMS = (
    *("author", "capital", "categor", "character", "custom", "discret", "emphas", "equal", "final", "general"),
    *("initial", "local", "maxim", "memor", "minim", "modern", "neutral", "normal", "optim", "organ", "parallel"),
    *("penal", "prior", "quant", "random", "raster", "real", "recogn", "regular", "serial", "special", "stabil"),
    *("standard", "summar", "symbol", "synchron", "token", "util", "vector", "visual"),
)
ISE = re.compile(r"is(?:e|es|ed|er|ers|ing|able|ation|ations)(?![a-z]|\.safetensors)")
WORD_START = re.compile(r"[A-Za-z]*$")


def files(root: Path) -> Iterator[str]:
    """The text files that are read, relative to the root, with slashes."""
    for name in READ:
        top = root / name
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.is_file() and file.suffix in ENDINGS and "__pycache__" not in path and path not in ALLOWED:
                yield path


def names(path: str, text: str) -> Iterator[tuple[int, str, str]]:
    """(line, old name, new name) of each name that has a successor; line 1 for the name of the file itself."""
    if any(fnmatchcase(path, glob) for glob in NAMES_MAY_STAND_IN):
        return
    lowered = f"{path}\n{text}".lower()
    for retired in RETIRED:
        if retired.key in lowered and any(fnmatchcase(path, glob) for glob in retired.files):
            if re.search(retired.pattern, path):
                yield 1, retired.old, retired.new
            for match in re.finditer(retired.pattern, text, re.MULTILINE):
                yield text.count("\n", 0, match.end()) + 1, retired.old, retired.new


def spellings(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, word, its one spelling) of each word with -ise for -ize."""
    for match in ISE.finditer(text):
        start = text[max(match.start() - 40, 0) : match.start()]
        if start.lower().endswith(STEMS):
            stem, ending = WORD_START.search(start).group(), match.group()  # type: ignore[union-attr]
            yield text.count("\n", 0, match.start()) + 1, stem + ending, f"{stem}iz{ending[2:]}"


def check(root: Path = ROOT) -> list[str]:
    """What there is to correct, one line each."""
    found = set()
    for path in files(root):
        text = (root / path).read_text(encoding="utf-8")
        found |= {(path, *hit) for hit in (*names(path, text), *spellings(text))}
    return [f"{path}:{line}: {old} -> {new}" for path, line, old, new in sorted(found)]


if __name__ == "__main__":
    report = check()
    print("\n".join(report) or "every name is the current one")
    sys.exit(bool(report))
