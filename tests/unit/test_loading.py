"""Checkpoint files, good and bad: every refusal is one line and nothing in a file is ever run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from sambench.errors import InputError
from sambench.parity.models import CARD_NAMES
from sambench.variants.base import Runtime
from sambench.variants.loading import looks_like, read_checkpoint
from sambench.variants.neural import NeuralVariant

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


class TwoByThree(NeuralVariant):
    """The least variant with weights."""

    name = "two_by_three"

    def __init__(self) -> None:
        module = torch.nn.Module()
        module.layer = torch.nn.Linear(3, 2)
        super().__init__(module, Runtime(device="cpu"))

    def decode(self, features: object, prompts: object) -> None:  # type: ignore[override]
        raise NotImplementedError


def refusal(path: Path) -> str:
    """The message of the refusal of a file, which is one line that names the file."""
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert "expected" in message
    assert "found" in message
    return message


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "epoch": 3},
        {"state_dict": STATE},
        {"checkpoint": 1, "model": {"model_state_dict": STATE}},
        {f"module.{key}": value for key, value in STATE.items()},
        {"model": {f"module._orig_mod.{key}": value for key, value in STATE.items()}},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, content: object) -> None:
    assert same(read_checkpoint(save(tmp_path / "weights.pth", content)))


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    raw = {key: value + 1 for key, value in STATE.items()}
    assert same(read_checkpoint(save(tmp_path / "weights.pt", {"model": raw, "ema": STATE})))


def test_prefix_of_some_keys_stays(tmp_path: Path) -> None:
    content = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(read_checkpoint(save(tmp_path / "weights.pt", content))) == ["module.a", "b"]


def test_parts_become_one_state_dict(tmp_path: Path) -> None:
    content = {"PromtEncoder": {"a": torch.zeros(1)}, "MaskDecoder": {"b": torch.ones(1)}}
    assert list(read_checkpoint(save(tmp_path / "parts.pt", content))) == ["PromtEncoder.a", "MaskDecoder.b"]


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "weights.safetensors")
    assert same(read_checkpoint(tmp_path / "weights.safetensors"))
    whole = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-7])
    assert "incomplete" in refusal(tmp_path / "cut.safetensors")


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\xef\xbb\xbf\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        (b"not a checkpoint at all", "a file of another kind"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert found in refusal(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_file(tmp_path: Path, legacy: bool, kept: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save({f"{i}": torch.rand(100) for i in range(20)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    message = refusal(path)
    assert any(part in message for part in ("before it is complete", "incomplete", "another kind", "cannot be read"))


class Trap:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("save_as", ["zip", "plain"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, save_as: str) -> None:
    target, path = tmp_path / "touched", tmp_path / "weights.pth"
    trap = {"model": Trap(target)}
    if save_as == "zip":
        torch.save(trap, path)
    else:
        path.write_bytes(pickle.dumps(trap))
    assert "it was not run" in refusal(path)
    assert not target.exists()


def test_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip archive of readme.txt" in refusal(path)


def test_zipped_checkpoint_says_to_unpack(tmp_path: Path) -> None:
    path = tmp_path / "efficient_sam_vits.pt.zip"
    inner = io.BytesIO()
    torch.save(STATE, inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("efficient_sam_vits.pt", inner.getvalue())
    assert "unpack it and use efficient_sam_vits.pt" in refusal(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "a list"),
        ({}, "an empty mapping"),
        ({"model": {}}, "an empty mapping"),
        ({"optimizer": {"lr": 1.0}}, "a mapping with optimizer"),
        ({"epoch": 3, "layer.weight": torch.zeros(1)}, "a mapping with epoch"),
    ],
)
def test_no_state_dict_inside(tmp_path: Path, content: object, found: str) -> None:
    assert found in refusal(save(tmp_path / "weights.pth", content))


def test_strict_loading_names_every_key() -> None:
    variant = TwoByThree()
    wrong = {"layer.weight": torch.zeros(3, 3), "layer.scale": torch.zeros(1)}
    with pytest.raises(InputError) as caught:
        variant.load_official(wrong, "weights.pth")
    message = str(caught.value)
    assert "1 missing: layer.bias" in message
    assert "1 unexpected: layer.scale" in message
    assert "1 of another shape: layer.weight" in message
    variant.load_official(STATE, "weights.pth")
    assert torch.equal(variant.module.layer.weight, STATE["layer.weight"])


def test_file_of_another_variant_is_recognized() -> None:
    state = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024)}
    with pytest.raises(InputError, match="expected the keys of two_by_three, found what looks like sam_vit_l"):
        TwoByThree().load_official(state, "weights.pth")


def test_layouts_of_all_fixtures_are_recognized(shared: Path) -> None:
    seen = 0
    for path in sorted((shared / "parity").glob("*.json")):
        fixture = json.loads(path.read_text())
        if "state_dict" in fixture:
            state = {key: torch.empty(shape, device="meta") for key, shape, *_ in fixture["state_dict"]}
            name = fixture["model"]
            if "/" in name:
                continue  # a detector, whose file no variant could be mistaken for
            assert CARD_NAMES.get(name, name) in looks_like(state), path.name
            seen += 1
    assert seen
