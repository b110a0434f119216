"""Checkpoints as people have them: wrapped, fine-tuned, from transformers, of another variant, not finite."""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sambench import digests
from sambench.errors import BadWeights, InputError
from sambench.status import BAD_WEIGHTS, NO_DEVICE, NO_WEIGHTS, OK, UNSUPPORTED_RUNTIME
from sambench.variants import cards
from sambench.variants.base import Prompts, Runtime
from sambench.variants.cards import Card, shipped_cards
from sambench.variants.hub_layouts import to_official
from sambench.variants.loading import looks_like, read_checkpoint
from sambench.variants.neural import NeuralVariant
from sambench.variants.registry import attempt, build
from sambench.variants.sam import build_mobile_sam, build_sam
from sambench.variants.sam2 import HIERA_RENAMES, build_sam2, sam2_renamer

CPU = Runtime(device="cpu")
STATE = {
    "image_encoder.proj.weight": torch.arange(6.0).reshape(2, 3),
    "image_encoder.proj.bias": torch.tensor([0.5, -1.0]),
    "mask_decoder.token.weight": torch.ones(1, 2),
}


class Small(NeuralVariant):
    """The least variant with two parts."""

    name = "small"

    def __init__(self, runtime: Runtime = CPU) -> None:
        module, encoder, decoder = nn.Module(), nn.Module(), nn.Module()
        encoder.proj = nn.Linear(3, 2)
        decoder.token = nn.Embedding(1, 2)
        module.image_encoder, module.mask_decoder = encoder, decoder
        super().__init__(module, runtime)

    def decode(self, features: object, prompts: object) -> None:  # type: ignore[override]
        raise NotImplementedError


def build_small(runtime: Runtime) -> Small:
    return Small(runtime)


def load(path: Path, content: object, **settings: Any) -> Small:
    torch.save(content, path)
    variant = Small()
    for name, value in settings.items():
        setattr(variant, name, value)
    variant.load_files([path])
    return variant


def same(variant: NeuralVariant, state: Mapping[str, torch.Tensor] = STATE) -> bool:
    return all(torch.equal(value, state[key]) for key, value in variant.module.state_dict().items())


def prefixed(prefix: str, state: Mapping[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def parts_prefixed(infix: str) -> dict[str, torch.Tensor]:
    """As when the encoder alone was compiled or put into DDP."""
    return {key.replace("image_encoder.", f"image_encoder.{infix}"): value for key, value in STATE.items()}


RAW = {key: value + 1 for key, value in STATE.items()}
WRAPPED: dict[str, object] = {
    "net": {"net": STATE},
    "weights": {"weights": STATE, "epoch": 3},
    "sam": {"sam": STATE},
    "any name": {"my_network": STATE, "best_iou": 0.7},
    "lightning": {"state_dict": prefixed("model."), "global_step": 5, "optimizer_states": [{"state": {}}]},
    "lightning with a loss": {"state_dict": {**prefixed("model."), "loss.weight": torch.ones(3)}},
    "net.": prefixed("net."),
    "sam.": prefixed("sam."),
    "sam_model.": prefixed("sam_model."),
    "compiled in DDP": prefixed("_orig_mod.module."),
    "DDP compiled": {"model": prefixed("module._orig_mod.")},
    "deep": {"checkpoint": {"model": {"state_dict": prefixed("module.model.sam.")}}},
    "encoder compiled": parts_prefixed("_orig_mod."),
    "encoder in DDP": {"model": parts_prefixed("module.")},
    "empty ema": {"ema": {}, "model": STATE},
    "ema of another thing": {"ema": {"decay": 0.99}, "model": STATE},
    "numpy scalar": {"model": STATE, "best": np.float64(0.5), "epoch": np.int64(3)},
    "numpy scalar beside": {**STATE, "best": np.float32(0.5)},
    "arguments": {"model": STATE, "args": argparse.Namespace(lr=1e-4)},
    "optimizer": {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "model": STATE},
    "a list": [STATE, {"epoch": 3}],
    "a pair": {"checkpoint": (STATE, 0.7)},
    "arrays": {key: value.numpy() for key, value in STATE.items()},
}


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_are_found(tmp_path: Path, content: object) -> None:
    assert same(load(tmp_path / "weights.pth", content))


def test_which_weights_are_taken_is_said_and_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"model": RAW, "ema": {"module": STATE}}
    variant = load(tmp_path / "weights.pt", content)
    assert same(variant)
    assert variant.weights_taken == ("ema.module",)
    assert "takes `ema.module` (averaged), not `model`; `weights_key`" in capsys.readouterr().err
    chosen = load(tmp_path / "weights.pt", content, weights_keys=["model"])
    assert same(chosen, RAW)
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"weights_key: .* found teacher; found: ema\.module, model"):
        load(tmp_path / "weights.pt", content, weights_keys=["teacher"])
    beside = load(tmp_path / "weights.pt", {"state_dict": {**prefixed("model.", RAW), **prefixed("ema_model.")}})
    assert same(beside)
    assert beside.weights_taken == ("state_dict.ema_model",)


def test_the_card_names_the_weights(tmp_path: Path) -> None:
    torch.save({"model": RAW, "ema": STATE}, tmp_path / "small.pt")
    builder = f"{__name__}:build_small"
    card = Card("small", "x", builder, checkpoints=[{"file": "small.pt", "weights_key": "model"}])
    model = build(card, CPU, [tmp_path])
    assert isinstance(model, Small)
    assert same(model, RAW)


def test_the_bytes_decide_about_the_format(tmp_path: Path) -> None:
    from safetensors.torch import save

    (tmp_path / "weights.pt").write_bytes(save(STATE))
    assert read_checkpoint(tmp_path / "weights.pt").keys() == STATE.keys()
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    (tmp_path / "weights.safetensors").write_bytes(buffer.getvalue())
    assert read_checkpoint(tmp_path / "weights.safetensors").keys() == STATE.keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    wrong = {key: tensor.clone() for key, tensor in STATE.items()}
    wrong["image_encoder.proj.weight"][0, 0] = value
    with pytest.raises(BadWeights, match=r"1 tensors with values that are not finite: image_encoder\.proj\.weight"):
        load(tmp_path / "weights.pth", wrong)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="3 of another kind"):
        load(tmp_path / "weights.pth", {key: value.to(torch.int8) for key, value in STATE.items()})
    assert load(tmp_path / "weights.pth", {key: value.half() for key, value in STATE.items()})


# Layouts


def official(shared: Path, name: str) -> dict[str, torch.Tensor]:
    rows = json.loads((shared / "parity" / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for key, shape, kind, *_ in rows}


def on_meta(builder: Callable[..., NeuralVariant], name: str, *arguments: str) -> NeuralVariant:
    with torch.device("meta"):
        variant = builder(CPU, *arguments)
    variant.name = name
    return variant


def test_sam2_and_21_are_told_by_what_an_image_never_needs(shared: Path) -> None:
    newer = official(shared, "sam2.1_hiera_tiny")
    older = {k: v for k, v in newer.items() if not k.startswith(("no_obj_embed_spatial", "obj_ptr_tpos_proj"))}
    images = {k: v for k, v in newer.items() if k.startswith(("image_encoder.", "sam_", "no_mem_embed"))}
    v20, v21 = (on_meta(build_sam2, f"{version}_hiera_tiny", "tiny") for version in ("sam2", "sam2.1"))
    for variant, right, wrong, other in ((v20, older, newer, v21), (v21, newer, older, v20)):
        variant.load_official(right, "right.pt")
        with pytest.raises(BadWeights, match=f"found what looks like {other.name};"):
            variant.load_official(wrong, "wrong.pt")
        variant.load_official(images, "images.pt")
    # A card of the user's own claims no version.
    mine = on_meta(build_sam2, "mine", "tiny")
    mine.load_official(newer, "mine.pt")
    mine.load_official(older, "mine.pt")


def test_a_refusal_is_short_and_names_what_is_in_the_file(shared: Path) -> None:
    state = official(shared, "mobile_sam")
    layers = [key for key in state if ".layers.2." in key]
    for key in layers[:40]:
        del state[key]
    for key in layers[40:80]:
        state[key] = torch.empty(7, 7, device="meta")
    state |= {f"image_encoder.layers.9.an_unknown_and_rather_long_name.{i}.weight": torch.empty(1) for i in range(50)}
    with pytest.raises(BadWeights) as caught:
        on_meta(build_mobile_sam, "mobilesam").load_official(state, "/some/folder/weights.pt")
    message = str(caught.value)
    assert len(message) <= 500
    assert "\n" not in message
    assert "missing" in message
    assert "50 unexpected" in message
    assert "40 of another shape" in message
    assert message.count("an_unknown") <= 3
    assert "backbone" not in message
    assert "stages" not in message


def test_a_file_for_a_card_of_the_users_own_is_told_by_what_the_card_is_like(shared: Path) -> None:
    """SAM 2.1 is no SAM 2, and an encoder alone is no file of another variant, whatever the card is called."""
    state = official(shared, "sam_vit_b")
    mine = on_meta(build_sam, "mine", "vit_b")
    mine.layout = "sam_vit_b"
    encoder = {key: value for key, value in state.items() if key.startswith("image_encoder.")}
    with pytest.raises(BadWeights, match="found an image encoder alone"):
        mine.load_official(encoder, "mine.pth")
    with pytest.raises(BadWeights, match=r"found 1 unexpected: head\.weight; check"):
        mine.load_official({**state, "head.weight": torch.empty(1)}, "mine.pth")
    newer = on_meta(build_sam2, "mine", "tiny")
    newer.layout = "sam2_hiera_tiny"
    with pytest.raises(BadWeights, match=r"expected the keys of mine, found what looks like sam2\.1_hiera_tiny"):
        newer.load_official(official(shared, "sam2.1_hiera_tiny"), "mine.pt")


def changed(shared: Path, name: str) -> dict[str, torch.Tensor]:
    """A variation of SAM-B's layout."""
    state = official(shared, "sam_vit_b")
    if name == "decoder":
        return {key: value for key, value in state.items() if not key.startswith("image_encoder.")}
    if name == "encoder":
        return {key: value for key, value in state.items() if key.startswith("image_encoder.")}
    if name == "lora":
        return {f"image_encoder.blocks.{i}.attn.qkv.linear_a_q.weight": torch.empty(4, 768) for i in range(12)}
    if name == "lora inside":
        return {**state, "image_encoder.blocks.0.attn.qkv.lora_A.weight": torch.empty(4, 768)}
    if name == "adapters":
        return {**state, "image_encoder.blocks.0.Adapter.spatial.0.weight": torch.empty(4, 4)}
    if name == "size":
        return {**state, "image_encoder.pos_embed": torch.empty(1, 16, 16, 768, device="meta")}
    return {**state, "mask_decoder.mask_tokens.weight": torch.empty(10, 256, device="meta")}


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("decoder", "a decoder alone"),
        ("encoder", "an image encoder alone"),
        ("lora", r"LoRA weights alone \(12 of 12 keys\)"),
        ("lora inside", r"LoRA layers that are not merged \(1 of 315 keys\)"),
        ("adapters", r"a model with adapters \(1 of 315 keys\)"),
        ("size", "sam_vit_b for images of 256 pixels"),
        ("tokens", "10 mask tokens instead of 4"),
    ],
)
def test_what_a_changed_file_seems_to_be(shared: Path, name: str, guess: str) -> None:
    with pytest.raises(BadWeights, match=guess) as caught:
        on_meta(build_sam, "sam_vit_b", "vit_b").load_official(changed(shared, name), "mine.pth")
    assert len(str(caught.value)) <= 500


# Transformers


def test_sam_of_transformers_has_the_official_names(shared: Path) -> None:
    from transformers import SamConfig, SamModel

    with torch.device("meta"):
        state = SamModel(SamConfig()).state_dict()
    renamed = to_official(state)
    assert renamed is not None
    expected = official(shared, "sam_vit_b")
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in expected.items()}


def test_sam2_of_transformers_becomes_the_official_file_and_comes_back(shared: Path) -> None:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    with torch.device("meta"):
        state = Sam2VideoModel(Sam2VideoConfig()).state_dict()
    renamed = to_official(state)
    assert renamed is not None
    assert looks_like(renamed) == ("sam2.1_hiera_tiny",)
    kept = {
        k: v for k, v in official(shared, "sam2.1_hiera_tiny").items() if k.startswith(("image_enc", "sam_", "no_"))
    }
    assert {k: v.shape for k, v in renamed.items() if k in kept} == {k: v.shape for k, v in kept.items()}
    # The variant's own names are transformers': each tensor ends where it began.
    for key, value in sam2_renamer(HIERA_RENAMES)(renamed).items():
        if key != "prompt_encoder.point_embed.weight":
            assert value is state[key] or key.endswith("positional_embedding"), key


def test_sam_of_transformers_computes_the_same() -> None:
    """The rules against the code of both sides: encoder, prompt encoder and decoder with small random weights."""
    from segment_anything.modeling import ImageEncoderViT
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

    from sambench.variants.sam import SamNetwork, sam_mask_decoder, sam_prompt_encoder

    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, window_size=3, mlp_dim=48,
        global_attn_indexes=[1], num_pos_feats=128, output_channels=256,
    )  # fmt: skip
    prompts = SamPromptEncoderConfig(image_size=64)
    theirs = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=SamMaskDecoderConfig())
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = to_official(theirs.state_dict())
    encoder = ImageEncoderViT(
        img_size=64, embed_dim=32, depth=2, num_heads=2, mlp_ratio=1.5, window_size=3, global_attn_indexes=(1,),
        use_rel_pos=True, norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
    )  # fmt: skip
    ours = SamNetwork(encoder, sam_prompt_encoder(), sam_mask_decoder()).eval()
    assert state is not None
    ours.load_state_dict(state)
    ours.prompt_encoder.image_embedding_size, ours.prompt_encoder.input_image_size = (4, 4), (64, 64)
    pixels, boxes = torch.randn(1, 3, 64, 64), torch.tensor([[3.0, 4.0, 40.0, 50.0]])
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels, input_boxes=boxes[None], multimask_output=True)
        sparse, dense = ours.prompt_encoder(None, boxes, None)
        logits, scores = ours.mask_decoder.predict_masks(
            ours.image_encoder(pixels), ours.prompt_encoder.get_dense_pe(), sparse, dense
        )
    torch.testing.assert_close(logits[:, 1:], expected.pred_masks[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scores[:, 1:], expected.iou_scores[0], rtol=1e-3, atol=1e-4)


# Statuses


def card_of(name: str, path: Path, **entry: Any) -> Card:
    return Card(name, "x", f"{__name__}:build_small", checkpoints=[{"file": path.name, **entry}])


@pytest.mark.parametrize(
    "content",
    [
        *(b"<html>", b"", b"PK\x03\x04cut", b"\x80\x02garbage", b'{"a": 1}', b"\x1f\x8b\x08 packed", b"\x08\x07 graph"),
        *({"model": [1, 2]}, {"a": {}}, [1, 2], {key: 0 * value for key, value in STATE.items()}),
        {key: value.to("meta") for key, value in STATE.items()},
    ],
)
def test_a_bad_file_is_a_status_with_its_reason(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pt"
    card = card_of("small", path)
    assert attempt(card, CPU, [tmp_path])[1] == NO_WEIGHTS
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    variant, status, reason = attempt(card, CPU, [tmp_path])
    assert variant is None
    assert status == BAD_WEIGHTS
    assert str(path) in reason
    assert "\n" not in reason
    torch.save(STATE, path)
    variant, status, reason = attempt(card, CPU, [tmp_path])
    assert isinstance(variant, Small)
    assert (status, reason) == (OK, "")


def test_whatever_a_loader_stumbles_over_is_bad_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)

    def fail(error: BaseException) -> Callable[..., None]:
        def load_files(self: Small, paths: object) -> None:
            raise error

        return load_files

    monkeypatch.setattr(Small, "load_files", fail(KeyError("model")))
    assert attempt(card_of("small", path), CPU, [tmp_path])[1:] == (
        BAD_WEIGHTS,
        f"{path}: expected the weights of small, found KeyError: 'model'",
    )
    # Too little memory says nothing about the file.
    monkeypatch.setattr(Small, "load_files", fail(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    with pytest.raises(MemoryError):
        attempt(card_of("small", path), CPU, [tmp_path])


def test_a_device_that_is_not_here_is_a_status_before_anything_is_built(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    card = Card("none", "x", "no.such.module:build", checkpoints=[{"file": path.name}])
    devices = ["cuda:99", "mps", "nothing"] if torch.cuda.is_available() else ["cuda", "cuda:0", "mps", "nothing"]
    for device in devices:
        runtime = Runtime(device=device)
        assert card.availability([tmp_path], runtime) == NO_DEVICE, device
        variant, status, reason = attempt(card, runtime, [tmp_path])
        assert (variant, status) == (None, NO_DEVICE)
        assert "choose a runtime with device auto or cpu" in reason
        with pytest.raises(InputError, match="no device"):
            build(card, runtime, [tmp_path], random_weights=True)
    for device in ("auto", "cpu", "meta"):
        assert card.availability([tmp_path], Runtime(device=device)) == NO_WEIGHTS


def test_a_runtime_that_the_variant_refuses_is_a_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sambench.variants.int8 import Int8SamVariant

    monkeypatch.setattr(Small, "to_runtime", Int8SamVariant.to_runtime)
    monkeypatch.setattr(Small, "device", torch.device("cuda"), raising=False)
    monkeypatch.setattr(Runtime, "torch_device", lambda self: torch.device("cuda"))
    torch.save(STATE, tmp_path / "weights.pt")
    _, status, reason = attempt(card_of("small", tmp_path / "weights.pt"), CPU, [tmp_path])
    assert status == UNSUPPORTED_RUNTIME
    assert "expected cpu, found cuda" in reason


# Digests


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_digest_tells_whose_file_it_is(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    torch.save(RAW, tmp_path / "b.pt")
    known = [
        card_of("a", tmp_path / "a.pt", sha256=digests.digest(tmp_path / "a.pt")),
        card_of("b", tmp_path / "b.pt", git_blob=digests.digest(tmp_path / "b.pt", "git_blob")),
        card_of("c", tmp_path / "c.pt"),
        card_of("d", tmp_path / "d.pt"),
    ]
    a, b, c, _ = known
    assert [card.origin([tmp_path], known) for card in known] == ["official file", "official file", "", ""]
    torch.save({"model": STATE}, tmp_path / "c.pt")
    assert c.origin([tmp_path], known) == "no digest known"
    shutil.copy(tmp_path / "c.pt", tmp_path / "d.pt")
    assert c.origin([tmp_path], known) == "known as d"
    shutil.copy(tmp_path / "b.pt", tmp_path / "a.pt")
    assert a.origin([tmp_path], known) == "known as b"
    shutil.copy(tmp_path / "b.pt", tmp_path / "c.pt")
    assert c.origin([tmp_path], known) == "known as b"
    torch.save({"net": RAW}, tmp_path / "b.pt")
    assert b.origin([tmp_path], known) == "another file"
    monkeypatch.setattr(cards, "shipped_cards", lambda: tuple(known))
    torch.save(RAW, tmp_path / "a.pt")  # not bit for bit what b.pt was, or it is: only the digest decides
    shutil.copy(tmp_path / "a.pt", tmp_path / "e.pt")
    mine = card_of("mine", tmp_path / "e.pt", sha256=digests.digest(tmp_path / "e.pt"))
    assert attempt(mine, CPU, [tmp_path])[1] == OK


def test_a_file_of_another_variant_is_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    known = (card_of("a", tmp_path / "a.pt", sha256=digests.digest(tmp_path / "a.pt")),)
    monkeypatch.setattr(cards, "shipped_cards", lambda: known)
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    _, status, reason = attempt(card_of("b", tmp_path / "b.pt"), CPU, [tmp_path])
    assert status == BAD_WEIGHTS
    assert "expected the file of b, found that of a, byte by byte" in reason


def test_an_archive_has_another_digest_than_what_is_in_it(tmp_path: Path, cache: Path) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    card = card_of("a", tmp_path / "a.pt", url="https://example.org/a.pt.zip", sha256="0" * 64, bytes=3)
    assert card.origin([tmp_path], []) == "no digest known"


def test_shipped_cards_share_no_digest_under_two_names() -> None:
    owners: dict[str, str] = {}
    for card in shipped_cards():
        for entry in card.checkpoints:
            if entry.get("sha256"):
                assert owners.setdefault(entry["sha256"], entry["file"]) == entry["file"]
    assert len(owners) > 5


def test_a_large_file_is_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = tmp_path / "large.pt", []
    path.write_bytes(bytes(digests.WORTH_KEEPING))
    compute = digests._compute
    monkeypatch.setattr(digests, "_compute", lambda *given: reads.append(given) or compute(*given))
    first = digests.digest(path)
    assert digests.digest(path) == first
    assert len(reads) == 1
    stat = path.stat()
    path.write_bytes(b"\1" * digests.WORTH_KEEPING)
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time, as a careless copy has them
    assert digests.digest(path) != first
    assert len(reads) == 2
    (entry, _) = (cache / "digests").iterdir()
    entry.write_text("broken")
    assert len(digests.digest(path)) == 64


# Prompts


def prompt(points: int = 0, background: int = 0, box: bool = False, padding: int = 0) -> Prompts:
    labels = [1] * points + [0] * background + [-1] * padding
    return Prompts(
        boxes=np.array([[0, 0, 9, 9]], np.float32) if box else None,
        points=np.ones((1, len(labels), 2), np.float32) if labels else None,
        labels=np.array([labels]) if labels else None,
    )


def test_prompts_that_efficient_sam_would_drop_are_not_supported() -> None:
    from sambench.variants.efficient_sam import EfficientSamVariant

    variant = EfficientSamVariant(nn.Identity(), CPU)
    for given, clicks, supported in (
        (prompt(points=6), 0, True),
        (prompt(points=7), 0, False),
        (prompt(points=6, padding=3), 0, True),
        (prompt(points=4, box=True), 0, True),
        (prompt(points=5, box=True), 0, False),
        (prompt(box=True), 0, True),
        (prompt(points=1, background=1), 0, False),
        (prompt(points=1), 1, True),
        (prompt(points=1), 2, False),  # the second click may lie outside of the object
    ):
        assert variant.supports(given, clicks) is supported, (given, clicks)
    anything = Small()
    assert anything.supports(prompt(points=20, background=20, box=True), 9)
    anything.prompt_kinds = frozenset({"box"})
    assert not anything.supports(prompt(points=1))
