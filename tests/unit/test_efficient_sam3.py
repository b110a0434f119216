"""EfficientSAM3: which files it takes, and what it says of the others. tests/parity compares its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sambench.errors import BadWeights
from sambench.variants.base import Runtime
from sambench.variants.efficient_sam3 import build_efficient_sam3
from sambench.variants.loading import looks_like
from sambench.variants.sam2 import Sam3Variant

CPU = Runtime(device="cpu", threads=1)
FIXTURES = Path(__file__).resolve().parents[1] / "parity"
# The start of a key of each part that no point or box needs, from the official model.
UNUSED = [
    "detector.backbone.vision_backbone.convs.0.conv_1x1.weight",
    "detector.backbone.language_backbone.projector.weight",
    "detector.transformer.decoder.norm.weight",
    "detector.geometry_encoder.norm.weight",
    "detector.segmentation_head.mask_predictor.mask_embed.layers.0.weight",
    "detector.dot_prod_scoring.prompt_proj.weight",
]
State = dict[str, torch.Tensor]


def official(name: str = "efficientsam3_ev_m") -> State:
    """The names and shapes of a file, without values."""
    rows = json.loads((FIXTURES / f"{name}.json").read_text())["state_dict"]
    state = {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, shape, dtype, *_ in rows}
    return state | {key: torch.empty(1, device="meta") for key in UNUSED}


@pytest.fixture(scope="module")
def variant() -> Sam3Variant:
    with torch.device("meta"):
        built = build_efficient_sam3(CPU, "efficientvit")
    built.name = "efficientsam3_ev_m"
    return built


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("detector.", "detector."),
        ("detector.", ""),
        ("trunk.model.", "trunk.model.student_trunk."),
        ("tracker.", "inst_interactive_predictor.model."),
    ],
)
def test_the_names_of_the_official_loader_are_taken(variant: Sam3Variant, old: str, new: str) -> None:
    """Each way in which `_load_checkpoint` finds a part."""
    variant.load_official({key.replace(old, new, 1): value for key, value in official().items()}, "file.pt")


@pytest.mark.parametrize("name", ["efficientsam3_ev_m", "efficientsam3_rv_m", "efficientsam3_tv_m"])
def test_the_file_of_another_size_is_recognized(variant: Sam3Variant, name: str) -> None:
    state = official(name)
    for start in (state, {key.removeprefix("detector."): value for key, value in state.items()}):
        assert looks_like(start) == (name,)
    if name != variant.name:
        with pytest.raises(BadWeights, match=f"found what looks like {name}"):
            variant.load_official(state, "file.pt")


def test_a_file_without_the_head_for_clicks_is_told_as_such(variant: Sam3Variant) -> None:
    alone = {key: value for key, value in official().items() if not key.startswith("tracker.")}
    with pytest.raises(BadWeights, match="holds no head for points and boxes") as caught:
        variant.load_official(alone, "efficientsam3_efficientvit.pt")
    assert len(str(caught.value)) <= 500
    # Without the neck's second copy, nothing is said of a head that is missing.
    blind = {key: value for key, value in official().items() if "sam2_convs" not in key}
    with pytest.raises(BadWeights, match="without the neck that it reads"):
        variant.load_official(blind, "efficientsam3_efficientvit.pt")


def test_nothing_else_is_passed_over(variant: Sam3Variant) -> None:
    state = official()
    state["tracker.sam_mask_decoder.another.weight"] = torch.empty(1, device="meta")
    with pytest.raises(BadWeights, match="1 unexpected"):
        variant.load_official(state, "file.pt")
    lost = {key: value for key, value in official().items() if not key.endswith("model.head.3.bias")}
    with pytest.raises(BadWeights, match=r"1 missing: detector\.backbone\.vision_backbone\.trunk.*head\.3\.bias"):
        variant.load_official(lost, "file.pt")
