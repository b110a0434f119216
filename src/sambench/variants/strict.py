"""Loading a state dict that must fit to the last key, and telling what a file is that does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from sambench.errors import BadWeights
from sambench.variants.loading import GET_IT_AGAIN, NAMES, looks_like

KEYS_SHOWN = 3  # of each kind of problem
LONGEST = 500  # characters of a message
Rename = Callable[[Mapping[str, Any]], dict[str, Any]]

DECODERS = (
    "mask_decoder.",
    "prompt_encoder.",
    "sam_mask_decoder.",
    "sam_prompt_encoder.",
    "MaskDecoder.",
    "PromtEncoder.",
)
LOW_RANK = re.compile(r"lora|linear_[ab]_[qkv]|(^|\.)w_[ab]s?(\.|_|$)", re.IGNORECASE)
ADAPTERS = re.compile(r"adapter|prompt_generator", re.IGNORECASE)
POSITIONS = "image_encoder.pos_embed"
# SAM 3 by its authors and in transformers: the detector of concepts, the head for points and boxes, this head's neck.
CONCEPTS = re.compile(r"(detector\.)?backbone\.vision_backbone\.|detector_model\.")
CLICKS = re.compile(r"(tracker|tracker_model|inst_interactive_predictor)\.")
CLICK_NECK = re.compile(r"(detector\.)?backbone\.vision_backbone\.(sam2|interactive)_convs\.|tracker_neck\.")
NO_CLICKS = "a detector of concepts alone: the file holds no head for points and boxes (no key begins with tracker)"
VIT_WIDTHS = {768: "sam_vit_b", 1024: "sam_vit_l", 1280: "sam_vit_h"}


def load_strictly(
    module: nn.Module,
    rename: Rename,
    official: Mapping[str, Any],
    source: str,
    name: str,
    *,
    layout: str = "",
    assign: bool = False,
) -> None:
    """Load a state dict that must fit to the last key.

    rename: official names -> those of `module`, less what is not needed. official: as it was in the file `source`.
    name: of the card that the file is for. layout: of the variant whose layout it must have, where that is another.
    assign: take the tensors themselves instead of copying them, for a module without storage (on the device `meta`).

    The layout is told by the official names before any is dropped, so that a variant whose needed part is the same
    is not taken for this one. Raises BadWeights naming the variant that the file seems to belong to, or what else it
    seems to be, and a few of the keys that are missing, unexpected or of another shape or kind; or a tensor with a
    value that is not finite.
    """
    try:
        ours = rename(official)
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError):  # a tensor of another shape than expected
        ours = {}
    expected, layouts, wanted = module.state_dict(), looks_like(official), layout or name
    other = bool(layouts) and wanted not in layouts
    mistaken = other and wanted in NAMES
    problems = {
        "missing": sorted(expected.keys() - ours.keys()),
        "unexpected": sorted(ours.keys() - expected.keys()),
        "of another shape": sorted(k for k in expected.keys() & ours.keys() if expected[k].shape != ours[k].shape),
        "of another kind": sorted(k for k in expected.keys() & ours.keys() if _kind(expected[k]) != _kind(ours[k])),
    }
    if mistaken or any(problems.values()):
        guess = f"what looks like {' or '.join(layouts)}" if other else guess_kind(official)
        told = OfficialNames(official, rename)
        # The file of another variant differs nearly everywhere: its name says more than a thousand keys.
        for shown in range(0 if other else KEYS_SHOWN, -1, -1):
            listed = [_listed(title, keys, told, shown) for title, keys in problems.items() if keys]
            found = f"{guess} ({', '.join(listed)})" if guess and listed else guess or "; ".join(listed)
            remedy = "check that the file belongs to this variant"
            if guess == NO_CLICKS:
                remedy = "only a file that was saved with SAM 3's tracker answers clicks; nothing is left random here"
            error = BadWeights(source, "state_dict", expected=f"the keys of {name}", found=found, remedy=remedy)
            if len(str(error)) <= LONGEST:
                break
        raise error
    refuse_useless(ours, source, OfficialNames(official, rename))
    module.load_state_dict(ours, strict=True, assign=assign)


def refuse_useless(state: Mapping[str, torch.Tensor], source: str, told: Callable[[str], str | None] = str) -> None:
    """Raise BadWeights when a weight is infinite or no number, or all are zero."""
    numbers = [value for value in state.values() if value.is_floating_point() and not value.is_meta]
    if numbers and not any(bool(value.any()) for value in numbers):
        raise BadWeights(source, "state_dict", expected="weights", found="nothing but zeros", remedy=GET_IT_AGAIN)
    wrong = [key for key, value in state.items() if not _finite(value)]
    if wrong:
        found = _listed("tensors with values that are not finite", wrong, told, KEYS_SHOWN)
        raise BadWeights(
            source, "state_dict", expected="finite weights", found=found, remedy="take an earlier checkpoint"
        )


def guess_kind(state: Mapping[str, torch.Tensor]) -> str:
    """What a state dict seems to be that fits no variant, in a few words; empty when nothing comes to mind."""
    keys = list(state)
    if any(map(CONCEPTS.match, keys)):
        if not any(map(CLICKS.match, keys)):
            return NO_CLICKS
        if not any(map(CLICK_NECK.match, keys)):
            return "a head for points and boxes without the neck that it reads"
    low_rank = [key for key in keys if LOW_RANK.search(key)]
    if low_rank and len(low_rank) > len(keys) / 2:
        return f"LoRA weights alone ({len(low_rank)} of {len(keys)} keys): merge them into their model first"
    if low_rank:
        return f"a model with LoRA layers that are not merged ({len(low_rank)} of {len(keys)} keys)"
    adapters = [key for key in keys if ADAPTERS.search(key)]
    if adapters:
        return f"a model with adapters ({len(adapters)} of {len(keys)} keys), whose code is not here"
    if any(key.endswith(("_packed_params", ".zero_point", ".qweight", ".absmax")) for key in keys):
        return "quantized weights"
    if keys and all(key.startswith(DECODERS) for key in keys):
        return "a decoder alone: the file lacks the image encoder"
    if keys and all(key.startswith(("image_encoder.", "vision_encoder.")) for key in keys):
        return "an image encoder alone: the file lacks the decoder"
    shape = tuple(getattr(state.get(POSITIONS), "shape", ()))
    if len(shape) == 4 and shape[3] in VIT_WIDTHS and shape[1:3] != (64, 64):
        return f"{VIT_WIDTHS[shape[3]]} for images of {16 * shape[1]} pixels instead of 1024"
    tokens = tuple(getattr(state.get("mask_decoder.mask_tokens.weight"), "shape", ()))
    if tokens and tokens[0] != 4:
        return f"a decoder with {tokens[0]} mask tokens instead of 4"
    return ""


class OfficialNames:
    """The name in the file of a key of ours; None when there is none to tell."""

    def __init__(self, official: Mapping[str, Any], rename: Rename) -> None:
        self.official, self.rename = official, rename
        self.names: dict[str, str] | None = None
        self.patterns: dict[str, tuple[str, str]] = {}

    def __call__(self, key: str) -> str | None:
        if self.rename is dict:
            return key
        if self.names is None:
            self.names = dict(self._pairs())
            self.patterns = {re.sub(r"\d+", "#", ours): (ours, theirs) for ours, theirs in self.names.items()}
        if key in self.names:
            return self.names[key]
        # A key that the file lacks: like one that differs from it in its numbers alone, where names keep them.
        ours, theirs = self.patterns.get(re.sub(r"\d+", "#", key), ("", ""))
        numbers = re.findall(r"\d+", key)
        if not ours or re.findall(r"\d+", ours) != re.findall(r"\d+", theirs):
            return None
        rest = iter(numbers)
        return re.sub(r"\d+", lambda _: next(rest), theirs)

    def _pairs(self) -> Iterable[tuple[str, str]]:
        for theirs, value in self.official.items():
            try:
                renamed = self.rename({theirs: value})
            except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
                continue
            if len(renamed) == 1:
                yield next(iter(renamed)), theirs


def _listed(title: str, keys: list[str], told: Callable[[str], str | None], shown: int) -> str:
    """`12 missing: a, b, c, ...`, with names as they are in files."""
    names = [
        name if len(name) <= 70 else f"{name[:40]}...{name[-25:]}" for name in filter(None, map(told, keys[:shown]))
    ]
    rest = ", ..." if len(keys) > len(names) else ""
    return f"{len(keys)} {title}: {', '.join(names)}{rest}" if names else f"{len(keys)} {title}"


def _kind(value: torch.Tensor) -> str:
    """Real weights may be stored in any precision; integers and complex numbers in their place are something else."""
    return "complex" if value.is_complex() else "real" if value.is_floating_point() else "whole"


def _finite(value: torch.Tensor) -> bool:
    if value.is_meta or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value if value.element_size() > 1 else value.float()).all())
