"""What makes a stage run again, and what a result says of its origin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sambench import provenance
from sambench.files import atomic


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `farm`: script -> barn -> (inside a function) hay; cow under TYPE_CHECKING; goat unrelated."""
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
    (tmp_path / "script.py").write_text("from farm.barn import feed\n")
    monkeypatch.syspath_prepend(tmp_path)
    for function in (provenance._package_folder, provenance._source, provenance._imports):
        function.cache_clear()
    yield folder
    for function in (provenance._package_folder, provenance._source, provenance._imports):
        function.cache_clear()


def test_modules_are_followed_into_functions_but_not_types(package: Path) -> None:
    names = [file.stem for file in provenance.module_files("farm.barn")]
    assert names == ["__init__", "barn", "hay"]
    assert [file.stem for file in provenance.module_files("farm.goat")] == ["goat"], "nothing is imported"


def test_digest_follows_content_alone(package: Path) -> None:
    script = package.parent / "script.py"

    def digest() -> str:
        provenance._imports.cache_clear()
        return provenance.source_digest(script, "farm.barn")

    first = digest()
    os.utime(package / "hay.py", (1, 1))
    (package / "goat.py").write_text("other = 1\n")
    (package / "cow.py").write_text("other = 1\n")
    assert digest() == first
    (package / "hay.py").write_text("bale = 1\n")
    assert digest() != first


def test_git_state_of_a_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert provenance.git_state(tmp_path) == ("unknown", False)
    git("init", "-q")
    (tmp_path / "__init__.py").write_text("")
    assert provenance.git_state(tmp_path)[0] == "unknown", "not tracked there: somebody else's repository"
    git("add", ".")
    git("commit", "-qm", "first")
    commit, dirty = provenance.git_state(tmp_path)
    assert len(commit) == 40 and not dirty
    (tmp_path / "__init__.py").write_text("edited = 1")
    assert provenance.git_state(tmp_path) == (commit, True)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("result.txt", "old")]
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_provenance_names_libraries_and_device() -> None:
    record = provenance.provenance({"a": 1})
    assert record["config_digest"] == provenance.digest({"a": 1}) != provenance.digest({"a": 2})
    assert provenance.read_libraries(record)["python"].startswith(f"{sys.version_info.major}.")
    assert record["device"]
