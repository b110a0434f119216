"""What makes a stage run again, and what a result says of its origin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sambench import provenance
from sambench.files import atomic


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
