"""Reading checkpoint files: nothing in them is trusted, nothing is executed, every refusal is one line."""

from __future__ import annotations

import argparse
import importlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.errors import InputError
from sambench.variants.unwrapping import WRAPPERS, State, Weights, best_guess, find

GET_IT_AGAIN = "download it again"

# How each layout is known: names, then keys with the beginning of their shapes. The first line that fits
# counts, so a layout that extends another comes before it.
_PATCHES, _TINY_VIT = "image_encoder.pos_embed", "image_encoder.patch_embed.seq.0.c.weight"
_TRUNK, _BLOCKS = "image_encoder.trunk.patch_embed.proj.weight", "image_encoder.trunk.blocks.{}.norm1.weight"
_HQ = "mask_decoder.hf_token.weight"
# SAM 2.1 has an embedding that 2.0 lacks; files without the parts for video may be of either.
_SAM21, _SAM20 = "no_obj_embed_spatial", "maskmem_tpos_enc"
_EVIT_TAP, _EVIT_MIDDLE = (
    "image_encoder.neck.input_ops.0.op_list.0.conv.weight",
    "image_encoder.neck.middle.op_list.{}.main.point_conv.conv.weight",
)
# EfficientSAM3's keys begin with that of the detector, or not.
_STUDENT = "backbone.vision_backbone.trunk.model.backbone.model."
_STUDENTS: dict[str, dict[str, tuple[int, ...]]] = {
    "efficientsam3_ev_m": {"input_stem.op_list.0.conv.weight": (16, 3)},
    "efficientsam3_rv_m": {"features.0.0.c.weight": (32, 3)},
    "efficientsam3_tv_m": {"layers.3.blocks.0.attn.proj.weight": (448, 448)},
}
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
    (("mobilesam", "mobilesamv2", "tinysam", "tinysam_int8"), {_TINY_VIT: ()}),
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
    (("sam2.1_hq_hiera_large",), {"sam_mask_decoder.hf_token.weight": (), _TRUNK: (144,)}),
    (("sam2.1_hiera_large",), {_SAM21: (), _TRUNK: (144,)}),
    (("sam2.1_hiera_base_plus",), {_SAM21: (), _TRUNK: (112,)}),
    (("sam2.1_hiera_small",), {_SAM21: (), _TRUNK: (96,), _BLOCKS.format(15): ()}),
    (("sam2.1_hiera_tiny",), {_SAM21: (), _TRUNK: (96,)}),
    (("sam2_hiera_large",), {_SAM20: (), _TRUNK: (144,)}),
    (("sam2_hiera_base_plus",), {_SAM20: (), _TRUNK: (112,)}),
    (("sam2_hiera_small",), {_SAM20: (), _TRUNK: (96,), _BLOCKS.format(15): ()}),
    (("sam2_hiera_tiny",), {_SAM20: (), _TRUNK: (96,)}),
    (("sam2.1_hiera_large", "sam2_hiera_large"), {_TRUNK: (144,)}),
    (("sam2.1_hiera_base_plus", "sam2_hiera_base_plus"), {_TRUNK: (112,)}),
    (("sam2.1_hiera_small", "sam2_hiera_small"), {_TRUNK: (96,), _BLOCKS.format(15): ()}),
    (("sam2.1_hiera_tiny", "sam2_hiera_tiny"), {_TRUNK: (96,)}),
    *(
        ((name,), {f"{detector}{_STUDENT}{key}": shape for key, shape in keys.items()})
        for detector in ("detector.", "")
        for name, keys in _STUDENTS.items()
    ),
    (("rap_sam_r50",), {"panoptic_head.prompt_iou.weight": (), "backbone.layer4.2.bn3.weight": (2048,)}),
    (("rwkv_sam",), {"backbone.layers.0.attn.spatial_decay": (384,)}),
    (("picosam3",), {"encoder_stage1.3.weight": (48, 3), "refine.0.weight": (40,)}),
    (("picosam2",), {"encoder_stage1.3.weight": (48, 3), "output_head.weight": (1, 40)}),
    (("squeeze_sam",), {"get_iou_predictions_and_mask_tokens.iou_token.weight": ()}),
    (("fastsam3d",), {"image_encoder.blocks.2.attn.rel_pos_d": (15, 128)}),
    (("fastsam_s",), {"model.0.conv.weight": (32,), "model.22.proto.cv1.conv.weight": ()}),
    (("fastsam_x",), {"model.0.conv.weight": (80,), "model.22.proto.cv1.conv.weight": ()}),
)


# Where a file of another kind has a mark, what it is, and what to do.
OTHER_KINDS = (
    (0, b"\x1f\x8b", "a gzip file", "unpack it with gunzip"),
    (257, b"ustar", "a tar archive", "unpack it and use the file of weights in it"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes it", "use the weights for PyTorch"),
    (0, b"{", "a text in JSON", "name the file of weights itself"),
    (0, b"\x08", "what looks like an ONNX graph", "use the weights that it was made from"),
)

NAMES = frozenset(name for names, _ in LAYOUTS for name in names)


def looks_like(state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """The variants whose official layout a state dict seems to have; empty when unknown."""
    for names, keys in LAYOUTS:
        if all(key in state and tuple(state[key].shape[: len(shape)]) == shape for key, shape in keys.items()):
            return names
    return ()


def read_checkpoint(path: Path, fits: Callable[[State], bool] | None = None, key: str = "") -> dict[str, torch.Tensor]:
    """The state dict of a file, as `read_weights` finds it."""
    return read_weights(path, fits, key).state


def read_weights(path: Path, fits: Callable[[State], bool] | None = None, key: str = "") -> Weights:
    """A checkpoint file -> its state dict, without the wrappers and prefixes of training frameworks.

    The bytes decide about the format, not the suffix: what torch.save writes, or safetensors.

    fits: whether a state dict has the names that are wanted; by default those of any known layout.
    key: where in the file the weights to take are, such as `ema` or `state_dict.model`; empty for what fits best.

    Raises InputError when the file cannot be read as weights, or `key` leads to none. Code in a pickle is never run.
    """
    weights = choose(read_content(path), path, fits or (lambda state: bool(looks_like(state))), key)
    if any(value.is_meta for value in weights.state.values()):
        found, remedy = "tensors without values, of the device `meta`", "save the model from a CPU or GPU"
        raise InputError(path, expected="weights", found=found, remedy=remedy)
    return weights


def read_content(path: Path) -> Any:
    """What a checkpoint file holds, numbers, texts, arrays and tensors in mappings and lists. Raises InputError."""
    check_bytes(path)
    try:
        if is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # about odd pickles; what is wrong with one is said below
            with path.open("rb") as file:  # of a path torch would read the suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the readers stumble over
        raise _refusal(path, error) from error


def choose(content: Any, where: str | Path, fits: Callable[[State], bool], key: str = "") -> Weights:
    """The weights among all that a file holds; see read_weights.

    Without any that fit, it is what the file most likely is about, whose names the caller will refuse in detail.
    """
    found = find(content, fits)
    if key:
        found = [weights for weights in found if weights.where == key]
        if not found:
            there = ", ".join([w.where or "the file itself" for w in find(content, fits)][:3])
            raise InputError(
                where, "weights_key", expected="where weights that fit are", found=key,
                remedy=f"found: {there}" if there else "none are in the file",
            )  # fmt: skip
    if found:
        return replace(found[0], others=tuple(weights.where for weights in found[1:]))
    guessed = best_guess(content)
    if guessed is None:
        raise InputError(where, expected="a state dict of tensors", found=_describe(content), remedy=GET_IT_AGAIN)
    return guessed


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, by its first bytes; the suffix decides where they say nothing."""
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith((b"PK", pickle.PROTO)):
        return False
    length = int.from_bytes(head[:8], "little")
    return path.suffix == ".safetensors" or (head[8:] == b"{" and 2 <= length < path.stat().st_size)


def _latin1(text: str, *encoding: str) -> bytes:
    """What numpy's pickles call to write bytes as text."""
    return text.encode("latin1")


def _harmless() -> list[Any]:
    """What training scripts save beside weights and can do no harm: numbers and arrays of numpy, argparse's options."""
    multiarray = importlib.import_module("numpy._core.multiarray")
    names = [name for name in ("scalar", "_reconstruct") if hasattr(multiarray, name)]
    return [
        *(getattr(multiarray, name) for name in names),
        *((getattr(multiarray, name), f"numpy.core.multiarray.{name}") for name in names),
        *(getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")),
        np.dtype,
        np.ndarray,
        (_latin1, "_codecs.encode"),
        argparse.Namespace,
    ]


def _describe(state: Any) -> str:
    """In a few words what a file holds instead of a state dict."""
    while isinstance(state, Mapping):
        inner = next((state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)), None)
        if inner is None:
            break
        state = inner
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
        head = file.read(512)
    if not head:
        raise refuse("an empty file")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise refuse("a web page", "open its address in a browser: it may ask to log in or to confirm")
    if head.startswith(b"version https://git-lfs"):
        raise refuse("a Git LFS pointer", "fetch the file itself with `git lfs pull`")
    for start, mark, found, remedy in OTHER_KINDS:
        if head[start:].startswith(mark) and not is_safetensors(path):
            raise refuse(found, remedy)
    if head.startswith(b"PK"):
        try:
            if not zipfile.is_zipfile(path):
                raise refuse(f"a file that ends after {path.stat().st_size} bytes, before it is complete")
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if damaged := _damaged_records(archive):
                    raise refuse(f"other bytes than were written in {', '.join(damaged[:3])}")
        except InputError:
            raise
        except Exception as error:  # its table of contents is damaged, in one of many ways
            raise _refusal(path, error) from None
        if any("/code/" in name for name in names):
            raise refuse("a TorchScript program", "use the file of weights that it was made from")
        if not any(name.endswith("data.pkl") for name in names):
            weights = [name for name in names if name.endswith((".pt", ".pth", ".safetensors"))]
            raise refuse(
                f"a zip archive of {', '.join(names[:3]) or 'nothing'}",
                f"unpack it and use {weights[0]}" if weights else GET_IT_AGAIN,
            )


def _damaged_records(archive: zipfile.ZipFile) -> list[str]:
    """The records whose bytes are not those of their checksums, which torch does not look at, or that pass for folders.

    Of such a folder torch gives whatever is in memory, and says nothing. Where no checksum is right, torch was told to
    write none.
    """
    folders = [record.filename for record in archive.infolist() if record.external_attr & 0x10 and record.file_size]
    damaged = []
    for record in archive.infolist():
        try:
            with archive.open(record) as file:
                while file.read(1 << 20):
                    pass
        except zipfile.BadZipFile:
            damaged.append(record.filename)
    return folders or (damaged if len(damaged) < len(archive.infolist()) else [])


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
