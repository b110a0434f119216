"""Detectors of transformers, with small random networks in folders like those of the Hub.

The oracle for fixed classes is transformers' own post-processing; for Grounding DINO it is the official evaluation's
map from characters to tokens, which knows nothing of how the text was put together here.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from sambench.config import read_registries
from sambench.detectors import detr
from sambench.detectors.base import Detections
from sambench.detectors.detr import HubDetector, build_detr
from sambench.detectors.grounding import build_grounding, make_texts, phrase
from sambench.errors import InputError
from sambench.variants.base import Runtime

CARDS = read_registries(["detectors"])["detectors"].values()

CPU = Runtime(device="cpu")
NAMES = ["person", "N/A", "sofa", "dog", "cup"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
IMAGE = np.random.default_rng(0).integers(0, 255, (45, 80, 3), dtype=np.uint8)
STAGES = {"out_features": ["stage2", "stage3", "stage4"]}
SMALL = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "num_queries": 20}
SMALL |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 32}
HYBRID = {"encoder_hidden_dim": 32, "decoder_in_channels": [32, 32, 32], "num_denoising": 0}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}


def rt_detr(kind: Any) -> Any:
    backbone = hf.RTDetrResNetConfig(**RESNET, **STAGES)
    return kind(backbone_config=backbone, encoder_in_channels=[16, 24, 32], **SMALL, **HYBRID, **LABELS)


def d_fine() -> Any:
    channels = {"stage_in_channels": [8, 16, 24, 32], "stage_mid_channels": [8, 8, 8, 8]}
    layers = {"stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [1, 1, 1, 1], "stem_channels": [3, 8, 8]}
    sizes = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "embedding_size": 8}
    backbone = hf.HGNetV2Config(stage_out_channels=[16, 24, 32, 40], **channels, **layers, **sizes, **STAGES)
    return hf.DFineConfig(backbone_config=backbone, encoder_in_channels=[24, 32, 40], **SMALL, **HYBRID, **LABELS)


def deformable() -> Any:
    backbone = hf.ResNetConfig(**RESNET, **STAGES)
    own = {"use_timm_backbone": False, "backbone": None, "encoder_layers": 1}
    return hf.DeformableDetrConfig(backbone_config=backbone, **own, **SMALL, **LABELS)


def rf_detr() -> Any:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64}
    backbone = hf.RfDetrDinov2Config(patch_size=8, num_windows=1, out_features=["stage1", "stage2"], **small)
    heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2}
    own = {name: SMALL[name] for name in ("d_model", "decoder_layers", "decoder_ffn_dim", "num_queries")}
    return hf.RfDetrConfig(backbone_config=backbone, **own, **heads, **LABELS)


SQUARE = {"size": {"height": 96, "width": 96}}
FAMILIES: dict[str, tuple[Callable[[], Any], Any]] = {
    "rt_detr": (lambda: rt_detr(hf.RTDetrConfig), hf.RTDetrImageProcessor(**SQUARE)),
    "rt_detr_v2": (lambda: rt_detr(hf.RTDetrV2Config), hf.RTDetrImageProcessor(**SQUARE)),
    "d_fine": (d_fine, hf.RTDetrImageProcessor(**SQUARE)),
    "deformable_detr": (
        deformable,
        hf.DeformableDetrImageProcessor(size={"shortest_edge": 90, "longest_edge": 140}),
    ),
    "rf_detr": (rf_detr, hf.RfDetrImageProcessor(**SQUARE)),
}


def save(folder: Path, auto: Any, config: Any, processor: Any) -> Path:
    """A folder as a repository of the Hub has it, with random weights."""
    torch.manual_seed(0)
    bars = hf.utils.logging
    bars.disable_progress_bar()
    model = auto.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Random heads start at one constant; scores and boxes have to differ to be worth a comparison.
            if "class_embed" in name or "bbox_embed" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    bars.enable_progress_bar()
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    return {
        name: save(root / name, hf.AutoModelForObjectDetection, config(), processor)
        for name, (config, processor) in FAMILIES.items()
    }


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a model folder is read without a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def load(detector: HubDetector, folder: Path) -> Any:
    detector.name = folder.name
    detector.load_files(sorted(folder.iterdir()))
    return detector


@pytest.mark.parametrize("name", FAMILIES)
def test_boxes_scores_and_classes_are_those_of_transformers(folders: dict[str, Path], name: str) -> None:
    detector = load(build_detr(CPU, limit=20), folders[name])
    assert list(detector.choose_classes(["anything"])) == NAMES
    prepared = detector.prepare(IMAGE)
    tall = detector.prepare(IMAGE.transpose(1, 0, 2))
    with torch.inference_mode():
        output = detector.module(pixel_values=prepared.pixels)
    (expected,) = detector.processor.post_process_object_detection(output, threshold=0, target_sizes=[IMAGE.shape[:2]])
    batch = [prepared, tall] if detector.shape(tall) == detector.shape(prepared) else [prepared, prepared]
    for found in (detector.detect([prepared])[0], detector.detect(batch)[0]):
        assert len(found.scores) == 20
        assert np.abs(found.scores - expected["scores"].numpy()[:20]).max() < 1e-6
        assert np.allclose(found.boxes, expected["boxes"].numpy()[:20], rtol=1e-4, atol=1e-3)
        assert found.classes.tolist() == expected["labels"].tolist()[:20]
    detector.limit = 100
    (every,) = detector.detect([prepared])
    assert np.bincount(every.classes).tolist() == [20] * 5, "20 queries of 5 classes"
    assert np.ptp(every.scores) > 1e-2 and np.ptp(found.boxes[:, 0]) > 1, "the comparison says something"


def test_boxes_follow_the_image_they_are_of(folders: dict[str, Path]) -> None:
    """Fractions of one image become pixels of that image: width with x, height with y."""
    detector = build_detr(CPU, limit=1)
    scores, boxes = torch.tensor([[0.1, 0.7]]), torch.tensor([[0.5, 0.25, 0.2, 0.1]])
    (box,) = detector.best(scores, boxes, (100, 400)).boxes.tolist()
    assert box == pytest.approx([160, 20, 240, 30])


def test_a_backbone_that_has_only_a_name_needs_no_network(tmp_path: Path) -> None:
    """As in the config.json of Deformable DETR on the Hub."""
    small = {**SMALL, "encoder_layers": 1}
    named = {"use_timm_backbone": True, "use_pretrained_backbone": True, "backbone": "resnet18"}
    config = hf.DeformableDetrConfig(**named, **small, **LABELS)
    processor = hf.DeformableDetrImageProcessor(**SQUARE)
    detector = load(build_detr(CPU), save(tmp_path / "named", hf.AutoModelForObjectDetection, config, processor))
    assert len(detector.detect([detector.prepare(IMAGE)])[0].scores) == 100  # 20 queries of 5 classes


def test_a_network_without_files_starts_at_random_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cards name a kind of transformers, in that one's own size."""
    monkeypatch.setitem(detr.SIDES, "d_fine", 128)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    found = []
    for _ in range(2):
        detector = build_detr(Runtime(device="cpu", threads=1), model_type="d_fine")
        detector.start_random()
        assert detector.choose_classes([])[:2] == ["person", "bicycle"]
        (boxes,) = detector.detect([detector.prepare(image)])
        found.append(boxes)
    assert len(found[0].scores) == 300 and np.isfinite(found[0].boxes).all()
    assert np.array_equal(found[0].boxes, found[1].boxes) and np.array_equal(found[0].scores, found[1].scores)
    assert {card["arguments"]["model_type"] for card in CARDS if "model_type" in card.get("arguments", {})} == {
        "d_fine", "rf_detr", "deimv2",
    } < detr.SIGMOID_FAMILIES  # fmt: skip
    with pytest.raises(InputError, match="a network that can be built without files"):
        build_detr(Runtime(device="cpu")).start_random()


def broken(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "broken"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>"), "a model of transformers"),
        (lambda f: (f / "model.safetensors").unlink(), "a model of transformers"),
        (lambda f: (f / "config.json").write_text("{"), "a model of transformers"),
        (lambda f: (f / "config.json").write_text('{"model_type": "detr"}'), "model_type: expected .*, found detr"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "a model of transformers"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    folder = broken(folders["rt_detr"], tmp_path)
    paths = sorted(folder.iterdir())
    change(folder)
    detector = build_detr(CPU)
    with pytest.raises(InputError, match=message) as refusal:
        detector.load_files(paths)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


def test_weights_of_another_network_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = broken(folders["rt_detr"], tmp_path)
    shutil.copy(folders["deformable_detr"] / "model.safetensors", folder)
    with pytest.raises(
        InputError, match=r"model\.safetensors: expected the weights of rt_detr, found \d+ missing or of another"
    ):
        load(build_detr(CPU), folder)


def test_code_in_a_folder_is_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = broken(folders["rt_detr"], tmp_path)
    (folder / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}')
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError):
        load(build_detr(CPU), folder)
    assert not (tmp_path / "ran").exists()


# Grounding DINO

WORDS = ["person", "dog", "hot", "sofa", "##s", "traffic", "light", "cup", "bow", "tv", "weapon", "ribbon"]
CATEGORIES = ["Person", "hot dog", "sofas", "traffic_light", "cup", "bow_(weapon)", "tv", "bow_(ribbon)", "dog"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """BERT's special tokens where the networks expect them, and a few words."""
    vocabulary = [f"[unused{i}]" for i in range(1030)] + WORDS
    for i, word in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}.items():
        vocabulary[i] = word
    return hf.BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})


@pytest.fixture(scope="module", params=["GroundingDinoConfig", "MMGroundingDinoConfig"])
def grounding(request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    swin = {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    bert = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(hf, request.param)(
        backbone_config=hf.SwinConfig(**swin, **STAGES),
        text_config=hf.BertConfig(vocab_size=1030 + len(WORDS), **bert),
        max_text_len=32,
        encoder_layers=1,
        **SMALL,
    )
    processor = hf.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 120})
    folder = tmp_path_factory.mktemp("grounding") / request.param
    save(folder, hf.AutoModelForZeroShotObjectDetection, config, processor)
    tokenizer.save_pretrained(folder)
    return load(build_grounding(CPU, limit=60), folder)


def test_phrases() -> None:
    assert [phrase(name) for name in CATEGORIES[:6]] == ["person", "hot dog", "sofas", "traffic light", "cup", "bow"]
    assert phrase("St. Bernard dog?") == "st bernard dog"
    assert phrase("(thing)") == "(thing)", "nothing is left to say otherwise"


def test_the_text_has_the_tokens_of_the_whole_sentence(tokenizer: Any) -> None:
    (text,) = make_texts(CATEGORIES, tokenizer, 256)
    sentence = " . ".join(phrase(name) for name in CATEGORIES) + " ."
    assert text.tokens.tolist() == [tokenizer(sentence)["input_ids"]]
    assert text.spans.sum(dim=0).tolist() == pytest.approx([1] * len(CATEGORIES))


@pytest.mark.parametrize("limit", [7, 12, 32])
def test_texts_keep_to_the_limit_and_lose_no_class(tokenizer: Any, limit: int) -> None:
    names = CATEGORIES * 4
    texts = make_texts(names, tokenizer, limit)
    assert np.concatenate([text.classes for text in texts]).tolist() == list(range(len(names)))
    assert max(text.tokens.shape[1] for text in texts) <= limit
    for text in texts:
        for column, index in enumerate(text.classes):
            own = text.tokens[0, text.spans[:, column] > 0].tolist()
            assert tokenizer.decode(own) == phrase(names[index])


def test_a_name_longer_than_a_text_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="at most 3 tokens, found 4 of `hot hot hot hot`"):
        make_texts(["dog", "hot hot hot hot"], tokenizer, 6)


def official(detector: Any, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """(Q, C) scores and (Q, 4) xyxy pixels by the official map: from the characters of a phrase to tokens, mean."""
    encoded, spans, sentence = None, [], ""
    for name in CATEGORIES:
        spans.append((len(sentence), len(sentence) + len(phrase(name))))
        sentence += phrase(name) + " . "
    encoded = tokenizer(sentence)
    weights = np.zeros((len(CATEGORIES), 32))
    for row, (start, end) in zip(weights, spans, strict=True):
        row[encoded.char_to_token(start) : encoded.char_to_token(end - 1) + 1] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    pixels = detector.prepare(IMAGE).pixels
    text = {key: torch.tensor([value]) for key, value in encoded.items()}
    with torch.inference_mode():
        output = detector.module(pixel_values=pixels, **text)
    x, y, w, h = output.pred_boxes[0].double().numpy().T * np.array([[80], [45], [80], [45]])
    return output.logits.sigmoid()[0].double().numpy() @ weights.T, np.stack(
        [x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1
    )


def test_scores_are_those_of_the_official_evaluation(grounding: Any, tokenizer: Any) -> None:
    assert list(grounding.choose_classes(CATEGORIES)) == CATEGORIES
    found: Detections = grounding.detect([grounding.prepare(IMAGE)] * 2)[1]
    scores, corners = official(grounding, tokenizer)
    order = np.argsort(-scores.ravel(), kind="stable")[:60]
    assert np.abs(found.scores - scores.ravel()[order]).max() < 1e-5
    # Each box has the score that the official map gives to its class, in whatever order equal scores come.
    for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True):
        near = np.abs(corners - box).max(axis=1) < 1e-3
        assert np.abs(scores[near, label] - score).min() < 1e-5
    assert len(set(found.classes.tolist())) > 3


def test_several_texts_give_every_class_its_place(grounding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounding.module.config, "max_text_len", 12)
    grounding.choose_classes(CATEGORIES)
    assert len(grounding.texts) > 1
    (merged,) = grounding.detect([grounding.prepare(IMAGE)])
    assert (np.diff(merged.scores) <= 0).all() and len(merged.scores) == 60
    parts = []
    for text in grounding.texts:
        grounding.choose_classes([CATEGORIES[i] for i in text.classes])
        (part,) = grounding.detect([grounding.prepare(IMAGE)])
        parts += [(score, text.classes[label]) for score, label in zip(part.scores, part.classes, strict=True)]
    best = sorted(parts, reverse=True)[:60]
    assert [score for score, _ in best] == pytest.approx(merged.scores.tolist(), abs=1e-6)
    assert sorted(label for _, label in best) == sorted(merged.classes.tolist())
