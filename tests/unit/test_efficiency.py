"""Parameters and operations: hand-computed on small networks, equal to what is known of the official ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sambench.config import CONFIG_FOLDER, read_registries
from sambench.errors import InputError
from sambench.measure.efficiency import IMAGE_SIZE, MASK_DECODER, PARTS, UPSAMPLING, Cost, count, operations
from sambench.measure.onnx_operations import onnx_cost
from sambench.parquet import read_parquet
from sambench.records import EFFICIENCY
from sambench.results.presentation import presentable, write_table
from sambench.results.tables import efficiency as efficiency_table
from sambench.results.tables import efficiency_parts
from sambench.results.tables.efficiency import efficiency
from sambench.results.tables.efficiency_parts import by_part
from sambench.status import NO_NETWORK, NO_WEIGHTS, OK
from sambench.variants.cards import Card, read_cards

CARDS = read_cards(read_registries(("variants",))["variants"])
# Counted with calflops 0.3.2 on segment-anything itself: parameters in millions, GFLOPs, GMACs.
SAM = {
    "sam_vit_b": (93.735472, 746.397, 370.471),
    "sam_vit_l": (312.342832, 2637.09, 1312.87),
    "sam_vit_h": (641.090608, 5485.70, 2734.07),
}


def total(cost: Cost, name: str) -> float:
    return sum(getattr(part, name) for part in cost.operations.values()) / 1e9


class Products(nn.Module):
    """Every way to multiply that the variants use, on (1, 4, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.prompt = nn.Linear(6, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = F.relu(self.conv(x)).flatten(2).transpose(1, 2)  # (1, 64, 6)
        tokens = self.prompt(tokens)
        tokens = (tokens @ tokens.transpose(1, 2)) @ tokens
        tokens = torch.einsum("bnc,bmc->bnm", tokens, tokens)[..., :6].contiguous()
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_each_kind_of_product_is_counted_by_hand(device: str) -> None:
    network = Products().to(device).eval()
    pixels = torch.zeros(1, 4, 8, 8, device=device)
    outside, inside = operations(network, lambda: network(pixels), network.prompt)
    conv, linear = 64 * 6 * 4 * 9, 64 * 6 * 6
    at, einsum, attention = 2 * 64 * 64 * 6, 64 * 64 * 6, 2 * 64 * 64 * 6
    assert (inside.flops, inside.macs, inside.products) == (2 * linear, linear, 2 * linear)
    assert outside.macs == conv
    # Bias and ReLU; einsum has no MACs, and calflops reads its FLOPs from a text with four digits.
    assert outside.flops == pytest.approx(2 * conv + 64 * 6 + 64 * 6 + 2 * einsum, abs=3)
    assert outside.products == 2 * (conv + at + einsum + attention)
    assert outside.unseen == {"@": 2 * at, "scaled_dot_product_attention": 2 * attention}
    assert inside.unseen == {}


def test_counting_leaves_torch_as_it_was() -> None:
    before = F.linear, F.conv2d, F.interpolate, torch.matmul, torch.Tensor.add, torch.einsum
    network = nn.Linear(2, 2).to("meta")

    def fail() -> None:
        network(torch.zeros(1, 2, device="meta"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        operations(network, fail, None)
    assert before == (F.linear, F.conv2d, F.interpolate, torch.matmul, torch.Tensor.add, torch.einsum)
    assert not network._forward_hooks and not network._forward_pre_hooks
    assert operations(network, lambda: network(torch.zeros(3, 2, device="meta")), None)[0].macs == 12


@pytest.mark.parametrize("name", SAM)
def test_sam_has_the_counts_of_calflops_on_the_official_code(name: str) -> None:
    params, gflops, gmacs = SAM[name]
    cost = count(CARDS[name])
    assert cost.on_meta
    assert sum(cost.parameters.values()) == round(params * 1e6)
    assert total(cost, "flops") == pytest.approx(gflops, rel=2e-6)
    assert total(cost, "macs") == pytest.approx(gmacs, rel=2e-6)
    # 256 -> 1024 -> 534 x 800: what calflops says of a resizing, and none of the arithmetic of its meta kernel.
    assert cost.operations[UPSAMPLING].flops == 1024 * 1024 + 534 * 800
    assert cost.operations[MASK_DECODER].macs == 1_766_163_456


def test_products_of_sam_are_what_other_papers_print() -> None:
    # EfficientViT-SAM's Table 1 says 2973 GMACs of SAM-H, without the relative positions (einsum); TinySAM's 2976.
    cost = count(CARDS["sam_vit_h"])
    einsum = cost.operations[PARTS[0]].functions["einsum"] / 1e9
    assert (cost.operations[PARTS[0]].products / 1e9 - einsum) / 2 == pytest.approx(2973, abs=0.5)
    # The card's counts stand in for building SAM-H as the EER's reference.
    known = CARDS["sam_vit_h"].counts
    assert known is not None and known["image_size"] == list(IMAGE_SIZE)
    assert known["parameters"] == sum(cost.parameters.values())
    for kind in ("flops", "macs", "products"):
        assert known[kind] == sum(getattr(part, kind) for part in cost.operations.values())


def check(card: Card) -> None:
    """Counted parameters are those of the card less what it says is left out; every product is accounted for."""
    cost = count(card)
    counted, official = sum(cost.parameters.values()), 1e6 * (card.params_m or 0)
    left = re.search(r"leaves ([\d.]+) M", card.notes)
    if left:  # without what only video needs
        assert counted / 1e6 == pytest.approx(float(left[1]), abs=6e-4)
    elif card.family == "EfficientSAM":  # without the position of the class token
        assert official - counted == pytest.approx({"efficientsam_ti": 192, "efficientsam_s": 384}[card.name], abs=1)
    else:
        assert counted == pytest.approx(official, abs=500)  # some cards have three decimals
    for part in cost.operations.values():
        assert all(flops > 0 for flops in part.unseen.values())
        assert part.unseen.get("@", 0) <= part.functions.get("matmul", 0)
        assert part.flops >= 2 * part.macs


@pytest.mark.parametrize("name", ["mobilesam", "sam2.1_hiera_tiny", "efficientsam_ti"])
def test_parameters_equal_the_card(name: str) -> None:
    check(CARDS[name])


@pytest.mark.slow
def test_parameters_of_all_variants_equal_their_cards() -> None:
    for card in CARDS.values():
        if card.checkpoints and not card.module:
            check(card)


def test_the_configuration_of_efficiency_names_every_variant() -> None:
    import yaml

    study = yaml.safe_load((CONFIG_FOLDER / "efficiency.yaml").read_text())["study"]
    assert set(study["variants"]) == set(read_registries(("variants",))["variants"])


def test_onnx_products_by_hand(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    weights = {"a": (8, 3, 3, 3), "b": (8, 4, 2, 2), "c": (5, 4 * 16)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("ConvTranspose", ["y", "b"], ["z"], strides=[2, 2]),
            helper.make_node("Flatten", ["z"], ["f"]),
            helper.make_node("Gemm", ["f", "c"], ["g"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", tensor, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("g", tensor, [1, 5])],
        [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph), str(path))
    parameters, flops = onnx_cost(path)
    assert parameters == 8 * 27 + 8 * 16 + 5 * 64
    assert flops == {"Conv": 2 * 4 * 8 * 27, "ConvTranspose": 2 * 8 * 4 * 16, "Gemm": 2 * 5 * 64, "MatMul": 0}
    (tmp_path / "page.onnx").write_text("<html>")
    with pytest.raises(InputError, match=r"page\.onnx: expected an ONNX graph"):
        onnx_cost(tmp_path / "page.onnx")


def costs(variant: str, flops: int, macs: int, products: int, unseen: dict[str, int], parameters: int) -> pd.DataFrame:
    row = {"variant": variant, "part": PARTS[0], "parameters": parameters, "flops": flops, "macs": macs}
    row |= {"products": products, "unseen": json.dumps(unseen), "checkpoint_bytes": 4_000_000, "status": OK}
    return pd.DataFrame([row], columns=EFFICIENCY.names)


def test_the_table_has_ratios_explanations_and_dashes(tmp_path: Path) -> None:
    reference = costs("big", 200_000_000_000, 100_000_000_000, 200_000_000_000, {}, 100_000_000)
    small = costs("small", 21_000_000_000, 10_000_000_000, 30_000_000_000, {"@": 10_000_000_000}, 20_000_000)
    nothing = pd.DataFrame([{"variant": "box_fill", "status": NO_NETWORK}], columns=EFFICIENCY.names)
    absent = pd.DataFrame([{"variant": "graph", "status": NO_WEIGHTS}], columns=EFFICIENCY.names)
    facts = {"small": {"input_size": 512, "params_m": 20.5}}
    table = efficiency([small, reference, nothing, absent], reference, facts).set_index("variant")
    assert table.loc["small", "eer"] == pytest.approx(100 * (0.2 + 0.105 + 0.1) / 3)
    assert table.loc["big", "eer"] == pytest.approx(100)
    assert table.loc["small", ["params_m", "params_official_m", "input_size"]].tolist() == [20.0, 20.5, 512]
    assert table.loc["small", "difference"] == pytest.approx(100 * 9 / 21)
    expected = "calflops does not see @ 10.00; torch no activations, norms, biases 1.00"
    assert table.loc["small", "explanation"] == expected
    assert pd.isna(table.loc["big", "explanation"])
    shown = presentable(table.reset_index(), efficiency_table.TABLE.decimals).set_index("variant")
    assert shown.loc["small", ["params_m", "flops_g", "eer", "input_size"]].tolist() == ["20.000", "21.00", "13.5", 512]
    assert shown.loc["box_fill", ["params_m", "eer", "input_size", "status"]].tolist() == ["–", "–", "–", NO_NETWORK]

    parts = by_part([small, reference, nothing])
    assert parts["variant"].tolist() == ["small", "big"]
    for table_of, frame in ((efficiency_table.TABLE, table.reset_index()), (efficiency_parts.TABLE, parts)):
        write_table(tmp_path, table_of, frame, {})
        assert len(read_parquet(tmp_path / f"{table_of.name}.parquet", table_of.schema)) == len(frame)
