"""The models of the settings and what is written from them: schema and README say what the models check."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from sambench import settings, settings_docs
from sambench.config import CONFIG_FOLDER, read_registries
from sambench.errors import InputError

MODELS = [
    model
    for model in vars(settings).values()
    if isinstance(model, type) and issubclass(model, settings.Section) and model is not settings.Section
]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    written = json.loads((settings_docs.PROJECT / settings_docs.SCHEMA).read_text())
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


def test_what_is_generated_is_up_to_date() -> None:
    assert settings_docs.main(["--check"]) == 0


def test_what_is_out_of_date_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (settings_docs.SCHEMA, settings_docs.PAGE):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(settings_docs.PROJECT / file, tmp_path / file)
    monkeypatch.setattr(settings_docs, "PROJECT", tmp_path)
    page = tmp_path / settings_docs.PAGE
    text = page.read_text()
    page.write_text(text.replace("boxes per image, decoded one by one", "boxes"))
    assert settings_docs.main(["--check"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("docs/configuration.md: ") and settings_docs.COMMAND in line and line.count("\n") == 1
    (tmp_path / settings_docs.SCHEMA).unlink()
    assert settings_docs.main([]) == 0
    assert settings_docs.main(["--check"]) == 0
    assert page.read_text() == text
    page.write_text(text.replace("<!-- end: runtimes -->", ""))
    with pytest.raises(InputError, match=r"configuration\.md: expected the lines `<!-- generated: runtimes -->`"):
        settings_docs.main(["--check"])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_is_explained(model: type[BaseModel]) -> None:
    assert model.__doc__
    for key, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{key}"


def test_every_key_of_the_configuration_is_in_a_table() -> None:
    text = (settings_docs.PROJECT / settings_docs.PAGE).read_text()
    sections = {*settings_docs.STUDY, *settings_docs.STAGES}  # their keys are the rows
    for model in MODELS:
        for key in model.model_fields.keys() - sections:
            assert f"`{key}`" in text or f".{key}`" in text, f"{model.__name__}.{key}"


def test_the_schema_takes_every_file_of_the_folder(schema: jsonschema.Draft202012Validator) -> None:
    files = sorted(CONFIG_FOLDER.glob("*.yaml"))
    assert len(files) > 5
    for file in files:
        schema.validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("shard", 2),
        ("shards", 0),
        ("shards", "2"),
        ("study/runtimes", []),
        ("study/prompt_groups", ["a", "a"]),
        ("study/selections", ["single"]),
        ("study/selections", ["argmax", "argmax"]),
        ("study/samplers", ["grid_0"]),
        ("study/samplers", ["hierarchical_3"]),
        ("prompt_groups/none", []),
        ("detection/top_k/VOC", 5),
        ("efficiency/image_size", [534]),
        ("efficiency/image_size", [534, 800, 3]),
        ("segevery/settings/crop_n_layers", 5),
        ("segevery/settings/multimask_output", None),
        ("throughput/batches", []),
        ("throughput/memory_limit_mib", 0),
        ("statistics/resamples", 99),
        ("runtimes/eager/device", "cuda:x"),
        ("runtimes/onnx/dtype", "bfloat16"),
        ("datasets/a b", {"generator": "scenes"}),
        ("datasets/scenes/images", "here"),
        ("datasets/scenes/image_limit", None),
        ("detectors/yolov8n/hub", "no-owner"),
        ("detectors/yolov8n/published", {"a/b": "file.json"}),
        ("variants/box_fill/builder", "module"),
        ("variants/box_fill/checkpoints", [{"file": "a.pt", "sha256": "12"}]),
        ("variants/box_fill/counts", {"image_size": [534, 800, 3]}),
    ],
)
def test_schema_and_models_refuse_the_same(schema: jsonschema.Draft202012Validator, path: str, value: Any) -> None:
    config = read_registries()
    assert schema.is_valid(config) and settings.read_settings(config)
    config = copy.deepcopy(config)
    *parents, last = path.split("/")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    assert not schema.is_valid(config)
    with pytest.raises(InputError):
        settings.read_settings(config)


def test_settings_import_nothing_heavy() -> None:
    program = (
        "import sys, sambench.settings;"
        "print(*({'numpy', 'pandas', 'torch', 'jsonschema', 'snakemake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
