"""SAM 2 and its relatives, SlimSAM, SAM-HQ, EfficientSAM and EfficientTAM: rules by hand, layouts, counts.

That they compute what the official code computes is the business of tests/parity.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sambench.errors import BadWeights
from sambench.parity.models import load_cards
from sambench.variants.base import Features, MaskCandidates, Prompts, Runtime
from sambench.variants.efficient_sam import PointEncoder, build_efficient_sam, six_points
from sambench.variants.encoders.plain_vit import grid_positions
from sambench.variants.hq_sam import HqSamVariant
from sambench.variants.sam import SamVariant
from sambench.variants.sam2 import (
    EDGE_TAM_RENAMES,
    HIERA_RENAMES,
    VIDEO_KEYS,
    Sam2Network,
    Sam2Variant,
    build_sam3_tracker,
    build_sam31,
    sam2_renamer,
    stable_single,
)
from sambench.variants.stretch import StretchVariant

CPU = Runtime(device="cpu", threads=1)
VIDEO_PARTS = {
    "maskmem_tpos_enc",
    "mask_downsample",
    "memory_attention",
    "memory_encoder",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "obj_ptr_proj",
}
# Parameters of an official file that no image needs, because they serve video.
VIDEO = {"sam2.1": 7_521_777, "sam2": 7_505_265, "edgetam": 4_775_153, "efficienttam": 7_505_265}


class Nothing(StretchVariant):
    """Stretches images and prompts, and has no network."""

    def __init__(self, pixel_size: int, *, antialias: bool = True) -> None:
        super().__init__(nn.Identity(), CPU, pixel_size=pixel_size)
        self.antialias = antialias
        self.mean, self.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def decode(self, features: Features, prompts: Prompts) -> MaskCandidates:
        raise NotImplementedError


def official_keys(shared: Path, name: str) -> dict[str, torch.Tensor]:
    """The layout of a fixture's state dict, on the meta device."""
    rows = json.loads((shared / "parity" / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape, *_ in rows}


def test_stretch_with_and_without_filter() -> None:
    row = np.array([0, 0, 255, 255], dtype=np.uint8)
    image = np.broadcast_to(row[None, :, None], (4, 4, 3))
    # Plain bilinear at half size reads two pixels a side; the filter reads three, weighted 3, 3, 1.
    plain = Nothing(2, antialias=False).prepare(image).pixels
    filtered = Nothing(2).prepare(image).pixels
    assert plain.shape == (1, 3, 2, 2)
    torch.testing.assert_close(plain[0, 0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(filtered[0, 0], torch.tensor([[1 / 7, 6 / 7], [1 / 7, 6 / 7]]))


def test_boxes_become_the_first_two_points() -> None:
    features = Features({}, original_size=(50, 200))
    prompts = Prompts(
        boxes=np.array([[20, 10, 100, 40]], dtype=np.float32),
        points=np.array([[[50, 25]]], dtype=np.float32),
        labels=np.array([[0]]),
    )
    points, labels = Nothing(1000).labelled_points(features, prompts)
    assert points.tolist() == [[[100, 200], [500, 800], [250, 500]]]
    assert labels.tolist() == [[2, 3, 0]]
    _, labels = Nothing(1000).labelled_points(features, Prompts(boxes=prompts.boxes))
    assert labels.tolist() == [[2, 3]]


def test_single_mask_of_sam2_falls_back_when_unstable() -> None:
    logits = torch.full((3, 4, 10, 10), -1.0)
    scores = torch.tensor([[0.9, 0.1, 0.3, 0.2]]).repeat(3, 1)
    logits[0, 0].view(-1)[:50] = 1.0
    logits[0, 0].view(-1)[50] = 0.01  # 50 sure pixels of 51: 0.980 is stable
    logits[1, 0].view(-1)[:48] = 1.0
    logits[1, 0].view(-1)[48] = -0.04  # 48 of 49: 0.9796 is not
    # An empty mask counts as stable.
    assert stable_single(logits, scores).tolist() == [0, 2, 0]


def small_sam2() -> tuple[Sam2Variant, dict[str, torch.Tensor]]:
    """SAM 2's decoder for 64 pixels with random weights, and random feature maps for it."""
    torch.manual_seed(0)
    variant = Sam2Variant(Sam2Network(nn.Identity(), pixel_size=64), CPU, pixel_size=64)
    maps = {
        "image_embed": torch.randn(1, 256, 4, 4),
        "high_res_feats0": torch.randn(1, 32, 16, 16),
        "high_res_feats1": torch.randn(1, 64, 8, 8),
    }
    return variant, maps


def test_sam2_without_its_choice_returns_all_tokens() -> None:
    variant, maps = small_sam2()
    features = Features(maps, original_size=(20, 30))
    boxes = np.array([[2, 2, 9, 9], [1, 4, 20, 18]], dtype=np.float32)
    found = variant.decode(features, Prompts(boxes=boxes))
    assert found.logits.shape == (2, 4, 16, 16)
    assert found.upsampling.masks(found.logits[:, 0]).shape == (2, 20, 30)
    one = variant.decode(features, Prompts(boxes=boxes[1:]))
    torch.testing.assert_close(one.logits[0], found.logits[1], rtol=0, atol=1e-5)
    decoder = variant.module.mask_decoder
    sparse, dense = variant.module.prompt_encoder(
        torch.tensor(boxes.reshape(1, 2, 2, 2)) * torch.tensor([64 / 30, 64 / 20]),
        torch.tensor([[[2, 3]] * 2]),
        None,
        None,
    )
    multi = decoder(
        maps["image_embed"],
        variant.module.image_positions(),
        sparse,
        dense,
        multimask_output=True,
        high_resolution_features=[maps["high_res_feats0"], maps["high_res_feats1"]],
    )
    torch.testing.assert_close(found.logits[:, 1:], multi[0][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.scores[:, 1:], multi[1][0], rtol=0, atol=1e-6)


def test_a_mask_prompt_of_sam2_belongs_to_its_own_prompt() -> None:
    variant, maps = small_sam2()
    features = Features(maps, original_size=(64, 64))
    points = np.array([[[20, 30]], [[5, 60]], [[33, 3]]], dtype=np.float32)
    prompts = Prompts(points=points, labels=np.ones((3, 1), np.int64), masks=5 * torch.randn(3, 16, 16))
    found = variant.decode(features, prompts)
    for i in range(3):
        point, label = torch.tensor(points[None, i : i + 1]), torch.ones(1, 1, 1, dtype=torch.int64)
        sparse, dense = variant.module.prompt_encoder(point, label, None, prompts.masks[i, None, None])
        multi, scores, *_ = variant.module.mask_decoder(
            maps["image_embed"],
            variant.module.image_positions(),
            sparse,
            dense,
            multimask_output=True,
            high_resolution_features=[maps["high_res_feats0"], maps["high_res_feats1"]],
        )
        torch.testing.assert_close(found.logits[i, 1:], multi[0, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.scores[i, 1:], scores[0, 0], rtol=0, atol=1e-6)
    without = variant.decode(features, replace(prompts, masks=None))
    assert float((without.logits - found.logits).abs().max()) > 1e-3


def test_hq_candidates_are_sums() -> None:
    torch.manual_seed(0)
    variant = HqSamVariant(nn.Identity(), 8, CPU, dict)
    decoder = variant.module.mask_decoder
    embedding, early = torch.randn(1, 256, 64, 64), torch.randn(1, 64, 64, 8)
    maps = {"features": embedding, "hq_features": decoder.hq_features(embedding, early)}
    features = Features(maps, original_size=(64, 64), input_size=(1024, 1024))
    prompts = Prompts(points=np.array([[[20, 30]]], dtype=np.float32), labels=np.array([[1]]))
    sums = variant.decode(features, prompts)
    variant.hq_only = True
    alone = variant.decode(features, prompts)
    assert torch.equal(alone.logits[:, 0], alone.logits[:, 3])
    assert torch.equal(alone.scores, sums.scores)
    variant.hq_only = False
    for parameter in decoder.hf_mlp.layers[-1].parameters():
        parameter.zero_()  # no high-quality mask: what is left is SAM's
    plain = variant.decode(features, prompts)
    assert float(alone.logits.abs().max()) > 0
    torch.testing.assert_close(sums.logits, plain.logits + alone.logits)
    assert sums.single.tolist() == [0]
    assert sums.multimask == (1, 2, 3)


def test_efficient_sam_takes_six_points() -> None:
    points = torch.arange(16, dtype=torch.float32).view(1, 8, 2)
    labels = torch.tensor([[2, 3, 1, 1, 0, 1, 1, 1]])
    cut, cut_labels = six_points(points, labels)
    assert torch.equal(cut, points[:, :6])
    assert cut_labels.tolist() == [[2, 3, 1, 1, 0, 1]]
    padded, padded_labels = six_points(torch.tensor([[[5.0, -3.0], [7.0, 8.0]]]), torch.tensor([[1, -1]]))
    assert padded[0].tolist() == [[5, -1]] + [[-1, -1]] * 5
    assert padded_labels.tolist() == [[1, -1, -1, -1, -1, -1]]


def test_efficient_sam_has_no_embedding_for_points_outside() -> None:
    encoder = PointEncoder()
    points = torch.tensor([[[100.0, 200.0]]])
    embedded = {label: encoder(points, torch.tensor([[label]])) for label in (-1, 0, 1, 2, 3)}
    position = encoder.pe_layer.forward_with_coords(points + 0.5, (1024, 1024))
    assert torch.equal(embedded[0], position)
    for label, table in (
        (-1, encoder.invalid_points),
        (1, encoder.point_embeddings),
        (2, encoder.bbox_top_left_embeddings),
        (3, encoder.bbox_bottom_right_embeddings),
    ):
        torch.testing.assert_close(embedded[label] - position, table.weight[None])


def test_efficient_sam_keeps_pixels_on_the_threshold() -> None:
    with torch.device("meta"):
        variant = build_efficient_sam(CPU, "ti")
    assert variant.antialias is False
    variant.module = build_decoder_only(variant)
    features = Features({"image_embedding": torch.randn(1, 256, 64, 64)}, original_size=(40, 60))
    found = variant.decode(features, Prompts(boxes=np.array([[2, 2, 30, 30]], dtype=np.float32)))
    assert found.upsampling.mode == "bicubic"
    assert bool(found.upsampling.masks(torch.zeros(1, 4, 4)).all())


def build_decoder_only(variant: StretchVariant) -> nn.Module:
    """The module of an EfficientSAM with its encoder left on the meta device and the rest at random."""
    variant.module.prompt_encoder = PointEncoder()
    variant.module.mask_decoder.to_empty(device="cpu")
    for parameter in variant.module.mask_decoder.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1)
    return variant.module.requires_grad_(False)


def test_positions_lose_the_row_of_the_class_token() -> None:
    rows = torch.arange(197.0).view(1, 197, 1)
    grid = grid_positions({"p": rows, "q": rows}, "p")
    assert grid["p"].shape == (1, 14, 14, 1)
    assert grid["p"][0, 0, 0, 0] == 1
    assert grid["p"][0, 1, 0, 0] == 15
    assert grid["q"] is rows


@pytest.mark.parametrize(
    ("name", "renames", "more"),
    [
        ("sam2.1_hiera_tiny", HIERA_RENAMES, {"no_obj_embed_spatial", "obj_ptr_tpos_proj"}),
        ("edgetam", EDGE_TAM_RENAMES, {"spatial_perceiver"}),
        ("efficienttam_ti", [], set()),
    ],
)
def test_only_video_is_dropped(shared: Path, name: str, renames: list[tuple[str, str]], more: set[str]) -> None:
    state = official_keys(shared, name)
    dropped = {key: value for key, value in state.items() if not sam2_renamer([])({key: value})}
    assert {key.partition(".")[0] for key in dropped} == VIDEO_PARTS | more
    buffers = sum(value.numel() for key, value in dropped.items() if "running" in key or "num_batches" in key)
    family = name.split("_")[0]
    assert sum(value.numel() for value in dropped.values()) - buffers == VIDEO[family]
    # Four embeddings of point labels become one table; nothing else is lost or merged.
    assert len(sam2_renamer(renames)(state)) == len(state) - len(dropped) - 3


def test_sam2_of_2024_lacks_two_parts_of_the_video(shared: Path) -> None:
    state = official_keys(shared, "sam2.1_hiera_tiny")
    older = {k: v for k, v in state.items() if not k.startswith(("no_obj_embed_spatial", "obj_ptr_tpos_proj"))}
    assert len(older) < len(state)
    assert sam2_renamer(HIERA_RENAMES)(older).keys() == sam2_renamer(HIERA_RENAMES)(state).keys()
    assert len(VIDEO_KEYS) == len(VIDEO_PARTS) + 3


CARDS = {
    name: card
    for name, card in load_cards().items()
    if card.builder.rpartition(".")[2].partition(":")[0]
    in {"sam2", "slim_sam", "hq_sam", "efficient_sam", "efficient_sam3", "efficient_tam"}
}


@pytest.mark.parametrize("name", CARDS)
def test_counts_of_the_cards(name: str) -> None:
    card = CARDS[name]
    module, _, function = card.builder.partition(":")
    with torch.device("meta"):
        variant = getattr(importlib.import_module(module), function)(CPU, **card.arguments)
    count = sum(parameter.numel() for parameter in variant.module.parameters())
    left_out = VIDEO.get(name.split("_")[0], 0)
    if name.startswith(("efficientsam_", "efficienttam_")):
        left_out += variant.module.get_parameter(
            "image_encoder.pos_embed" if name.startswith("efficientsam_") else "vision_encoder.pos_embed"
        ).shape[-1]
    if name == "sam3":
        left_out = 256 * 1024 + 256 + 9 * 256 * 256 + 256  # two convolutions, the fourth level of the neck
    assert card.params_m == pytest.approx((count + left_out) / 1e6, abs=6e-4)
    assert card.input_size == variant.pixel_size


def test_positional_encodings_survive_bfloat16_unrounded() -> None:
    torch.manual_seed(0)
    variant = SamVariant(nn.Identity(), Runtime(device="cpu", dtype="bfloat16", threads=1))
    before = {key: value.clone() for key, value in variant.module.prompt_encoder.state_dict().items()}
    variant.to_runtime()
    for key, value in variant.module.prompt_encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert next(variant.module.mask_decoder.parameters()).dtype == torch.bfloat16


def test_sam31_takes_the_layout_of_the_official_code_and_refuses_a_head_for_clicks_that_is_not_there() -> None:
    """Shapes by the official modules: sam3/model/vitdet.py, necks.py, sam/prompt_encoder.py and mask_decoder.py."""

    def linear(key: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}

    def pair(key: str, *shape: int, bias: int | None = None) -> dict[str, tuple[int, ...]]:
        return {f"{key}.weight": shape, f"{key}.bias": (shape[0] if bias is None else bias,)}

    vision, head = "detector.backbone.vision_backbone.", "tracker.model.interactive_sam_"
    shapes: dict[str, tuple[int, ...]] = {
        f"{vision}trunk.pos_embed": (1, 577, 1024),
        f"{vision}trunk.patch_embed.proj.weight": (1024, 3, 14, 14),
        **pair(f"{vision}trunk.ln_pre", 1024),
        "detector.transformer.anything": (3,),
        f"{vision}convs.0.conv_1x1.weight": (256, 256, 1, 1),
        "tracker.model.sam_mask_decoder.iou_token.weight": (16, 256),
        "tracker.model.interactive_obj_ptr_proj.layers.0.weight": (256, 256),
        "tracker.model.interactivity_no_mem_embed": (1, 1, 256),
    }
    for i in range(32):
        block = f"{vision}trunk.blocks.{i}."
        shapes |= pair(f"{block}norm1", 1024) | pair(f"{block}norm2", 1024) | {f"{block}attn.freqs_cis": (576, 32)}
        shapes |= linear(f"{block}attn.qkv", 3072, 1024) | linear(f"{block}attn.proj", 1024, 1024)
        shapes |= linear(f"{block}mlp.fc1", 4736, 1024) | linear(f"{block}mlp.fc2", 1024, 4736)
    neck = f"{vision}interactive_convs."
    shapes |= pair(f"{neck}0.dconv_2x2_0", 1024, 512, 2, 2, bias=512)
    shapes |= pair(f"{neck}0.dconv_2x2_1", 512, 256, 2, 2, bias=256)
    shapes |= pair(f"{neck}1.dconv_2x2", 1024, 512, 2, 2, bias=512)
    for i, width in enumerate((256, 512, 1024, 1024)):
        shapes |= pair(f"{neck}{i}.conv_1x1", 256, width, 1, 1) | pair(f"{neck}{i}.conv_3x3", 256, 256, 3, 3)
    prompt = f"{head}prompt_encoder."
    shapes |= {f"{prompt}pe_layer.positional_encoding_gaussian_matrix": (2, 128)}
    names = [*(f"point_embeddings.{i}" for i in range(4)), "not_a_point_embed", "no_mask_embed"]
    shapes |= {f"{prompt}{name}.weight": (1, 256) for name in names}
    for i, shape in ((0, (4, 1, 2, 2)), (1, (4,)), (3, (16, 4, 2, 2)), (4, (16,)), (6, (256, 16, 1, 1))):
        shapes |= pair(f"{prompt}mask_downscaling.{i}", *shape)
    mask = f"{head}mask_decoder."
    attentions = {"self_attn": 256, "cross_attn_token_to_image": 128, "cross_attn_image_to_token": 128}
    places = {f"layers.{i}.{name}": width for i in (0, 1) for name, width in attentions.items()}
    for place, width in (places | {"final_attn_token_to_image": 128}).items():
        for name in "qkv":
            shapes |= linear(f"{mask}transformer.{place}.{name}_proj", width, 256)
        shapes |= linear(f"{mask}transformer.{place}.out_proj", 256, width)
    for i in (0, 1):
        for norm in (1, 2, 3, 4):
            shapes |= pair(f"{mask}transformer.layers.{i}.norm{norm}", 256)
        shapes |= linear(f"{mask}transformer.layers.{i}.mlp.lin1", 2048, 256)
        shapes |= linear(f"{mask}transformer.layers.{i}.mlp.lin2", 256, 2048)
    shapes |= pair(f"{mask}transformer.norm_final_attn", 256)
    shapes |= {f"{mask}{name}.weight": (n, 256) for name, n in (("iou_token", 1), ("mask_tokens", 4))}
    shapes |= {f"{mask}obj_score_token.weight": (1, 256)}
    shapes |= pair(f"{mask}output_upscaling.0", 256, 64, 2, 2, bias=64) | pair(f"{mask}output_upscaling.1", 64)
    shapes |= pair(f"{mask}output_upscaling.3", 64, 32, 2, 2, bias=32)
    shapes |= pair(f"{mask}conv_s0", 32, 256, 1, 1) | pair(f"{mask}conv_s1", 64, 256, 1, 1)
    heads = {f"output_hypernetworks_mlps.{i}": 32 for i in range(4)}
    for name, outputs in (heads | {"iou_prediction_head": 4, "pred_obj_score_head": 1}).items():
        for layer, size in enumerate((256, 256, outputs)):
            shapes |= linear(f"{mask}{name}.layers.{layer}", size, 256)
    published = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    with torch.device("meta"):
        variant = build_sam31(CPU)
    variant.name = "sam3.1"
    variant.load_official(published, "sam3.1_multiplex.pt")
    ours = {key: value.shape for key, value in variant.rename(published).items()}
    assert ours == {key: value.shape for key, value in variant.module.state_dict().items()}
    # The names of SAM 3, by which a load that is not strict would find nothing.
    other = {key.replace("interactive_sam_", "sam_"): value for key, value in published.items()}
    with pytest.raises(BadWeights, match="missing"):
        variant.load_official(other, "sam3.pt")


def test_sam3_takes_the_layout_of_its_authors() -> None:
    from transformers import Sam3VideoConfig, Sam3VideoModel

    with torch.device("meta"):
        published = Sam3VideoModel(Sam3VideoConfig()).state_dict()
        variant = build_sam3_tracker(CPU)
    ours = {key: value.shape for key, value in variant.rename(published).items()}
    assert ours == {key: value.shape for key, value in variant.module.state_dict().items()}
