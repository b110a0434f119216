"""Every command of README and docs: options, targets and files that it names are there, and what needs nothing is run.

A block of commands follows a comment `<!-- needs: WHAT -->` where it needs more than a checkout, and `<!-- text -->`
where it has no commands at all.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cyclopts
import pytest
from markdown_it import MarkdownIt

from sambench.cli import app
from sambench.settings import MEASURES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
SHELL = {"", "sh", "bash", "console"}
# A file of the user's, a finished study, a program, a cluster, minutes.
NEEDS = {"network", "gpu", "data", "results", "browser", "slurm", "server", "time"}
# What is no command of ours: it stands in the middle of a recipe.
OTHERS = {".", "cd", "cp", "export", "for", "done", "git", "ls", "sacct", "squeue", "ssh", "tail", "tmux", "chromium"}
# Files that the reader has; any other file of a command lies in the repository.
THEIRS = re.compile(r"^([/~.$]|mine|mycluster|STUDY|RUN|study)")
MAKE = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
RULES = set(MEASURES) | {
    name
    for file in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    for name in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)
}


@dataclass(frozen=True)
class Command:
    """One command of a page. needs: what its block is marked with."""

    page: str
    line: int
    words: tuple[str, ...]
    needs: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {' '.join(self.words)}"


def commands(page: str, text: str) -> list[Command]:
    """The commands of a page: blocks of code and, on their own, snippets within text that start with `sambench `."""
    found, marker = [], ""
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "html_block":
            marker = token.content.strip().removeprefix("<!--").removesuffix("-->").strip()
            continue
        first = token.map[0] + 1 if token.map else 0
        if token.type == "code_block" or (token.type == "fence" and token.info.strip() in SHELL):
            needs = marker.removeprefix("needs:").strip() if marker.startswith("needs:") else ""
            assert not needs or needs in NEEDS, f"{page}:{first}: {needs} is none of {NEEDS}"
            if marker != "text":
                found += [Command(page, first, words, needs) for words in split(token.content)]
        marker = "" if token.nesting != 1 else marker
    return found


def split(text: str) -> list[tuple[str, ...]]:
    """The words of each command of a shell text, without comments and variables before the command."""
    found, open_quote = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(open_quote + line, comments=True)
        except ValueError:  # a quotation goes on
            open_quote += f"{line}\n"
            continue
        open_quote = ""
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            found.append(tuple(words))
    assert not open_quote, f"a quotation without an end: {open_quote}"
    return found


ALL = [c for page in PAGES for c in commands(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))]


def of(*programs: str, needs: bool | None = None) -> list[Command]:
    return [c for c in ALL if c.words[0] in programs and needs in (None, bool(c.needs))]


def check_file(command: Command, name: str) -> None:
    assert THEIRS.match(name) or (ROOT / name).exists(), f"{command}: {name} is not in the repository"


def test_there_are_commands_and_all_are_known() -> None:
    known = {"sambench", "snakemake", "make", "python", ".venv/bin/python", "pip", "uv", "less"} | OTHERS
    assert len(ALL) > 60
    assert [str(c) for c in ALL if c.words[0] not in known] == []


@pytest.mark.parametrize("command", of("sambench"), ids=str)
def test_sambench_takes_it(command: Command) -> None:
    words = [word.removesuffix("…") for word in command.words[1:]]
    app.parse_args(words, print_error=False, exit_on_error=False)


def test_snippets_in_text_are_commands() -> None:
    """`sambench …` within a sentence: the command exists and has these options; what is required may be left out."""
    wrong = []
    for page in PAGES:
        for snippet in re.findall(r"`(sambench [a-z][^`]*)`", page.read_text(encoding="utf-8")):
            try:
                app.parse_args(split(snippet)[0][1:], print_error=False, exit_on_error=False)
            except cyclopts.MissingArgumentError:
                pass
            except cyclopts.CycloptsError as error:
                wrong.append(f"{page.name}: {snippet}: {error}")
    assert wrong == []


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_make_has_the_target(command: Command) -> None:
    assert {word for word in command.words[1:] if "=" not in word} <= MAKE


def test_snakemake_has_targets_and_files() -> None:
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    for command in of("snakemake"):
        words = [word for word in command.words[1:] if word != "…"]
        given = parser.parse_args(words)
        assert set(map(str, given.targets)) <= RULES, str(command)
        for file in [*(given.configfile or []), given.workflow_profile, *(given.profile or [])]:
            if file:
                check_file(command, str(file))


@pytest.mark.parametrize("command", of("python", ".venv/bin/python"), ids=str)
def test_python_finds_modules_files_and_options(command: Command) -> None:
    words = command.words[1:]
    if words[0] == "-m":
        assert find_spec(words[1]), str(command)
    elif words[0] != "-c" and not command.needs:
        check_file(command, words[0])
        source = (ROOT / words[0]).read_text()
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []
    for word in words:
        if word.startswith("tests/"):
            check_file(command, word)


def test_run_what_needs_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of sambench that need nothing but the checkout, in one process."""
    monkeypatch.chdir(tmp_path)
    ready = of("sambench", needs=False)
    assert len(ready) >= 3
    for command in ready:
        app(command.words[1:], result_action="return_value")
        assert capsys.readouterr().out, str(command)


def test_dry_run_what_needs_nothing(tmp_path: Path) -> None:
    """Studies that a checkout is enough for are planned, all their targets at once for each configuration."""
    ready = of("snakemake", needs=False)
    assert ready
    for words in {c.words for c in ready}:
        plan = [sys.executable, "-m", *words, "--dry-run", "--quiet", "all", "--snakefile", str(ROOT / "Snakefile")]
        place = [str(ROOT / word) if word.startswith("config/") else word for word in plan]
        subprocess.run([*place, "--directory", str(tmp_path)], check=True, cwd=ROOT, timeout=120)


def test_what_breaks_is_found() -> None:
    """The parser of pages: marks, comments, continuations, variables; blocks of other languages are left alone."""
    text = (
        "    A=1 sambench check mine.yaml   # why\n\ntext\n\n"
        "<!-- needs: time -->\n\n```sh\nsnakemake \\\n  --cores 2\n```\n\n"
        "<!-- text -->\n\n    a layout\n\n```yaml\nkey: value\n```\n"
    )
    assert [(c.words, c.needs) for c in commands("page", text)] == [
        (("sambench", "check", "mine.yaml"), ""),
        (("snakemake", "--cores", "2"), "time"),
    ]
    with pytest.raises(cyclopts.CycloptsError):
        app.parse_args(["check", "--no-such-option", "mine.yaml"], print_error=False, exit_on_error=False)
    with pytest.raises(AssertionError, match="none of"):
        commands("page", "<!-- needs: luck -->\n\n    make run\n")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "configuration.md"], ids=lambda page: page.name
)
def test_no_page_is_long(page: Path) -> None:
    """At most 1,200 words; docs/configuration.md is generated reference."""
    assert len(page.read_text(encoding="utf-8").split()) <= 1200
