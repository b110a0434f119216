"""Reading checkpoint files: nothing in them is trusted, nothing is executed, every refusal is one line."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sambench.errors import InputError

# Where training frameworks keep the weights. Averaged weights come first: where both are saved, they are the
# ones that were evaluated.
WRAPPERS = ("model_ema", "state_dict_ema", "ema", "model_state_dict", "state_dict", "model", "module")
# What DistributedDataParallel and torch.compile put before every key.
PREFIXES = ("module.", "_orig_mod.")

GET_IT_AGAIN = "download it again"

# How each layout is known: names, then keys with the beginning of their shapes. The first line that fits
# counts, so a layout that extends another comes before it.
_PATCHES, _TINY_VIT = "image_encoder.pos_embed", "image_encoder.patch_embed.seq.0.c.weight"
_TRUNK, _BLOCKS = "image_encoder.trunk.patch_embed.proj.weight", "image_encoder.trunk.blocks.{}.norm1.weight"
_HQ, _SAM21 = "mask_decoder.hf_token.weight", "no_obj_embed_spatial"
_EVIT_TAP, _EVIT_MIDDLE = (
    "image_encoder.neck.input_ops.0.op_list.0.conv.weight",
    "image_encoder.neck.middle.op_list.{}.main.point_conv.conv.weight",
)
LAYOUTS: tuple[tuple[tuple[str, ...], dict[str, tuple[int, ...]]], ...] = (
    (("sam_hq_vit_b",), {_HQ: (), _PATCHES: (1, 64, 64, 768)}),
    (("sam_hq_vit_l",), {_HQ: (), _PATCHES: (1, 64, 64, 1024)}),
    (("sam_hq_vit_h",), {_HQ: (), _PATCHES: (1, 64, 64, 1280)}),
    (("light_hq_sam",), {_HQ: (), _TINY_VIT: ()}),
    (("sam_vit_b",), {_PATCHES: (1, 64, 64, 768)}),
    (("sam_vit_l",), {_PATCHES: (1, 64, 64, 1024)}),
    (("sam_vit_h",), {_PATCHES: (1, 64, 64, 1280)}),
    (("slimsam_50",), {_PATCHES: (1, 64, 64, 384)}),
    (("slimsam_77",), {_PATCHES: (1, 64, 64, 168)}),
    (("efficientsam_ti",), {_PATCHES: (1, 197, 192)}),
    (("efficientsam_s",), {_PATCHES: (1, 197, 384)}),
    (("mobilesam", "mobilesamv2", "tinysam"), {_TINY_VIT: ()}),
    (("edgesam", "edgesam_3x"), {"image_encoder.fuse_stage2.weight": ()}),
    (("repvit_sam",), {"image_encoder.features.0.0.c.weight": (40,)}),
    (("efficientvit_sam_xl1",), {_EVIT_TAP: (256, 1024), _EVIT_MIDDLE.format(11): ()}),
    (("efficientvit_sam_xl0",), {_EVIT_TAP: (256, 1024)}),
    (("efficientvit_sam_l2",), {_EVIT_TAP: (256, 512), _EVIT_MIDDLE.format(11): ()}),
    (("efficientvit_sam_l1",), {_EVIT_TAP: (256, 512), _EVIT_MIDDLE.format(7): ()}),
    (("efficientvit_sam_l0",), {_EVIT_TAP: (256, 512)}),
    (("nanosam",), {"image_encoder.up_1.0.weight": (256, 512)}),
    (("edgetam",), {"spatial_perceiver.latents": ()}),
    (("efficienttam_ti", "efficienttam_ti_512x512"), {_TRUNK: (192, 3, 16)}),
    (("efficienttam_s", "efficienttam_s_512x512"), {_TRUNK: (384, 3, 16)}),
    (("sam2.1_hiera_large",), {_SAM21: (), _TRUNK: (144,)}),
    (("sam2.1_hiera_base_plus",), {_SAM21: (), _TRUNK: (112,)}),
    (("sam2.1_hiera_small",), {_SAM21: (), _TRUNK: (96,), _BLOCKS.format(15): ()}),
    (("sam2.1_hiera_tiny",), {_SAM21: (), _TRUNK: (96,)}),
    (("sam2_hiera_large",), {_TRUNK: (144,)}),
    (("sam2_hiera_base_plus",), {_TRUNK: (112,)}),
    (("sam2_hiera_small",), {_TRUNK: (96,), _BLOCKS.format(15): ()}),
    (("sam2_hiera_tiny",), {_TRUNK: (96,)}),
    (("fastsam_s",), {"model.0.conv.weight": (32,), "model.22.proto.cv1.conv.weight": ()}),
    (("fastsam_x",), {"model.0.conv.weight": (80,), "model.22.proto.cv1.conv.weight": ()}),
)


def looks_like(state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """The variants whose official layout a state dict seems to have; empty when unknown."""
    for names, keys in LAYOUTS:
        if all(key in state and tuple(state[key].shape[: len(shape)]) == shape for key, shape in keys.items()):
            return names
    return ()


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """A .pth, .pt or .safetensors file -> its state dict, without wrappers and prefixes.

    Raises InputError when the file cannot be read as weights. Code in a pickle is never run.
    """
    check_bytes(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd pickles; what is wrong with one is said below
                # Training scripts save their options beside the weights; a Namespace holds values and runs nothing.
                with torch.serialization.safe_globals([argparse.Namespace]):
                    state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the readers stumble over
        raise _refusal(path, error) from error
    return unwrap(state, path)


def unwrap(state: Any, where: str | Path) -> dict[str, torch.Tensor]:
    """Follow `model`, `state_dict` and the like down to the tensors; drop a prefix that every key has.

    A file of several parts, each a state dict, becomes one with the names of the parts before the keys.

    Raises InputError when there is something else than tensors at the end.
    """
    while isinstance(state, Mapping) and not _tensors(state):
        inner = next((state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)), None)
        if inner is None:
            break
        state = inner
    if isinstance(state, Mapping) and state and all(isinstance(v, Mapping) and _tensors(v) for v in state.values()):
        state = {f"{part}.{key}": value for part, inner in state.items() for key, value in inner.items()}
    if not isinstance(state, Mapping) or not state or not _tensors(state):
        raise InputError(where, expected="a state dict of tensors", found=_describe(state), remedy=GET_IT_AGAIN)
    state = {str(key): value for key, value in state.items()}
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _tensors(state: Mapping[str, Any]) -> bool:
    return all(isinstance(value, torch.Tensor) for value in state.values())


def _describe(state: Any) -> str:
    """In a few words what a file holds instead of a state dict."""
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    if not state:
        return "an empty mapping"
    others = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    return f"a mapping with {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"


def check_bytes(path: Path) -> None:
    """Refuse what the first bytes, the length or the table of contents give away."""

    def refuse(found: str, remedy: str = GET_IT_AGAIN) -> InputError:
        return InputError(path, expected="a checkpoint", found=found, remedy=remedy)

    if not path.is_file():
        raise refuse("a folder" if path.is_dir() else "no such file")
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        raise refuse("an empty file")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise refuse("a web page", "open its address in a browser: it may ask to log in or to confirm")
    if head.startswith(b"version https://git-lfs"):
        raise refuse("a Git LFS pointer", "fetch the file itself with `git lfs pull`")
    if head.startswith(b"PK") and path.suffix != ".safetensors":
        if not zipfile.is_zipfile(path):
            raise refuse(f"a file that ends after {path.stat().st_size} bytes, before it is complete")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/code/" in name for name in names):
            raise refuse("a TorchScript program", "use the file of weights that it was made from")
        if not any(name.endswith("data.pkl") for name in names):
            weights = [name for name in names if name.endswith((".pt", ".pth", ".safetensors"))]
            raise refuse(
                f"a zip archive of {', '.join(names[:3]) or 'nothing'}",
                f"unpack it and use {weights[0]}" if weights else GET_IT_AGAIN,
            )


def _refusal(path: Path, error: Exception) -> InputError:
    """What went wrong while a file was read, in one line."""
    text = " ".join(str(error).split())
    code = re.search(r"GLOBAL ([\w.]+)", text)
    if code or (isinstance(error, pickle.UnpicklingError) and path.read_bytes()[:1] == pickle.PROTO):
        return InputError(
            path,
            expected="weights only",
            found=f"a pickle that needs to run {code[1]}" if code else "a pickle that torch.save did not write",
            remedy="it was not run; use a file that holds only tensors",
        )
    if isinstance(error, EOFError) or re.search(r"truncat|incomplete|unexpected end|header|central dir", text, re.I):
        found = f"a damaged or incomplete file of {path.stat().st_size} bytes"
    elif isinstance(error, pickle.UnpicklingError):
        found = "a file of another kind"  # the message is advice on how to switch the protection off
    else:
        found = f"a file that cannot be read ({type(error).__name__}: {text[:100]})"
    return InputError(path, expected="a checkpoint", found=found, remedy=GET_IT_AGAIN)
