"""What users and machines do wrong is one line; nothing of a configuration is a command or breaks a path."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sambench.config import merge, read_registries, read_study, read_study_file
from sambench.errors import BadWeights, InputError, in_one_line, refusal_of
from sambench.variants.loading import read_checkpoint
from sambench.variants.registry import load

ODD = "a b'c\"d $(touch pwned);&|>`ü#%"


def refused(action: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1500
    return line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"study:\n  datasets: [a\n  variants: [b]\n", "line 3: expected YAML"),
        (b"shards: 2\n# caf\xe9\n", "expected text in UTF-8, found the byte 0xe9 in line 2; save it as UTF-8"),
        (b"a: 1\n\tb: 2\n", "line 2: expected YAML"),
        (b"- a\n", "expected keys and values, found list"),
        (b"shards: " + b"9" * 401, "shards: expected auto or at most 10000, found 999"),
        (b"latency: {images: " + b"9" * 401 + b"}", "latency.images: expected a number that something can be counted"),
        (b"latency: {min_seconds: .inf}", "latency.min_seconds: expected a finite number, found .inf"),
        (b"results: " + b"r" * 5000, "results: expected names of at most 200 bytes, found one of 5000"),
        (b'results: "a\\nb"', "results: expected a path in one line"),
        (b"results: 'a/{x}'", "results: expected a path in one line, without braces"),
        (b"results: -rf", "results: expected a path in one line, without braces and not after a hyphen"),
        (b'weights: ["a\\0b"]', "weights.0: expected a path in one line"),
        (b"datasets: {d: {annotations: " + b"a" * 5000 + b", images: x}}", "expected names of at most 200 bytes"),
        (b"study: {datasets: ['a/../b']}", "study.datasets.0: expected a name of letters, digits"),
        (b'study: {datasets: ["a\\nb"]}', "study.datasets.0: expected a name of letters, digits"),
        (b"study: {variants: ['$(touch pwned)']}", "study.variants.0: expected a name of letters, digits"),
        (b"[" * 5000, "expected YAML"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_line(text: bytes, line: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(text)
    assert line in refused(lambda: read_study(read_study_file(file)))


def test_a_configuration_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "expected a configuration file, found none" in refused(read_study_file, tmp_path / "study.yaml")
    assert "expected a configuration file, found" in refused(read_study_file, tmp_path)
    assert "expected a configuration file, found" in refused(read_study_file, tmp_path / ("s" * 5000))


def test_odd_paths_and_letters_of_any_alphabet_are_taken(tmp_path: Path) -> None:
    data = {name: str(tmp_path / f"{name} {ODD}") for name in ("annotations", "images")}
    for path in data.values():
        Path(path).mkdir()
    own = {"results": ODD, "weights": [ODD], "cache": ODD, "datasets": {"Größe_数": data}}
    own |= {"study": {"name": "Müller", "datasets": ["Größe_数"]}}
    study = read_study(merge(read_registries(), own))
    assert study.results == ODD and study["datasets"] == ["Größe_数"]


def test_snakemake_tells_file_and_line(root: Path, tmp_path: Path) -> None:
    """Its own reader of configurations, as every Snakemake of this environment has it, without starting one."""
    program = "\n".join(
        (
            "import sys, snakemake_logger_plugin_sambench",
            "from snakemake.common.configfile import load_configfile",
            "from snakemake_interface_common.exceptions import WorkflowError",
            "for file in sys.argv[1:]:",
            "    try: print(load_configfile(file))",
            "    except WorkflowError as error: print(error)",
        )
    )
    files = {"good": b"a: 1\n", "broken": b"a: [1\nb: 2\n", "latin": b"a: 1\nb: \xe9\n", "tab": b"a:\n\t- 1\n"}
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    paths = [str(tmp_path / name) for name in (*files, "missing")]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    good, broken, latin, tab, missing = done.stdout.splitlines()
    assert good == "{'a': 1}"
    assert broken.startswith(f"{tmp_path / 'broken'}: line 2: expected YAML")
    assert latin.startswith(f"{tmp_path / 'latin'}: expected text in UTF-8, found the byte 0xe9 in line 2")
    assert tab.startswith(f"{tmp_path / 'tab'}: line 2: expected YAML")
    assert "missing" in missing and ("not found" in missing or "found none" in missing)


def test_what_the_machine_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "results/x.parquet")
    assert refusal_of(full) == "results/x.parquet: found no space left on device; free some space and run again"
    assert refusal_of(OSError(errno.EROFS, "Read-only file system", "r")).endswith("name a folder that may be written")
    assert "disk is full" in refusal_of(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert len(refusal_of(OSError(errno.ENAMETOOLONG, "File name too long", "n" * 5000))) < 300
    assert refusal_of(OSError(errno.EBADF, "Bad file descriptor")) == "" and refusal_of(ValueError("x")) == ""
    with pytest.raises(SystemExit, match="1"), in_one_line():
        raise full
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError), in_one_line():
        _ = 1 / 0


def test_a_full_disk_leaves_no_half_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sambench.files import write_text

    (tmp_path / "old.txt").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "old.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"] and (tmp_path / "old.txt").read_text() == "old"


def test_a_damaged_zip_of_weights_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    torch.save({"a": torch.ones(300)}, file)
    whole = file.read_bytes()
    for cut in (1, 30, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:cut])
        refused(read_checkpoint, file)
    refusals = 0
    for place in range(0, len(whole), 7):  # the table of contents among it
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        file.write_bytes(broken)
        try:
            assert torch.equal(read_checkpoint(file)["a"], torch.ones(300)), place
        except InputError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > len(whole) / 7 / 2, "the checksums of its records are looked at"
    torch.serialization.set_crc32_options(False)  # such files have none that fit
    try:
        torch.save({"a": torch.ones(300)}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_checkpoint(file)["a"], torch.ones(300))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("w/data.pkl", b"")
    file.write_bytes(packed.getvalue())
    refused(read_checkpoint, file)


@pytest.mark.ultralytics
def test_a_model_that_is_no_module_is_one_line(tmp_path: Path) -> None:
    """As ultralytics saves it, but with a text, a number or a list where the network should be."""
    from sambench.variants.yolo import read_pickled_model

    class Loader:
        name = "yolov8n_seg"

        def load_files(self, paths: Sequence[Path]) -> None:
            read_pickled_model(paths[0]).float().state_dict()

    for model in ("yolov8n", 7, [1, 2], None, {"a": 1}, torch.ones(3)):
        file = tmp_path / "model.pt"
        torch.save({"model": model, "ema": None}, file)
        with pytest.raises(BadWeights) as caught:
            load(Loader(), [file])
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_annotations_with_numbers_of_401_digits_are_one_line(tmp_path: Path) -> None:
    from sambench.datasets.coco import index

    image = {"id": 1, "file_name": "1.png", "width": 4, "height": 4}
    row = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 2, 2],
        "area": 4,
        "segmentation": [[0, 0, 2, 0, 2, 2]],
    }
    (tmp_path / "1.png").touch()
    huge = int("9" * 401)
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [({"id": huge}, {}), ({"width": huge}, {})]
    cases += [({}, {"id": huge}), ({}, {"area": huge}), ({}, {"bbox": [0, 0, huge, 2]}), ({}, {"category_id": huge})]
    cases += [({}, {"segmentation": [[0, 0, huge, 0, 2, 2]]}), ({}, {"iscrowd": huge})]
    cases += [({"file_name": "n" * 5000}, {})]
    for of_image, of_row in cases:
        file = tmp_path / "annotations.json"
        file.write_text(json.dumps({"images": [image | of_image], "annotations": [row | of_row]}))
        refused(index, file, tmp_path)
