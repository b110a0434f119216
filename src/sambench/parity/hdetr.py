"""H-Deformable-DETR against its official code, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sambench.detectors.detr import best_pairs
from sambench.detectors.hdetr import HybridDetector, HybridNetwork, build_hybrid
from sambench.parity.detections import HEADS, MAPS, PREPROCESS, UNMATCHED, list_rows, score_row, sorted_labels_row
from sambench.parity.fixtures import Report, Row, block_row, fixture_image, probe_rows, read_fixture, same, weights
from sambench.variants.base import Runtime


def check(path: Path) -> Report:
    """A fixture whose `model` is `hdetr/...`; sizes, queries and limit are those of its `official`."""
    fixture = read_fixture(path)
    results = fixture["results"]
    image, rows = fixture_image(fixture)
    state = weights(fixture)
    rows += probe_rows(fixture, state)
    detector = build(fixture)
    detector.load_official(state, str(path))
    del state
    parameters = sum(parameter.numel() for parameter in detector.module.parameters())
    rows.append(same("weights", "parameters", parameters, fixture["params_total"]))

    prepared = detector.prepare(image)
    rows.append(block_row("preprocess", "pixels", results["preprocess"], prepared.pixels, PREPROCESS))
    seen, output = observe(detector.module, prepared.pixels)
    rows += [
        block_row("backbone", name, results["backbone"][name], value, MAPS)
        for name, value in zip(("stride8", "stride16", "stride32"), seen["maps"], strict=True)
    ]
    for name in ("src_flatten", "level_pos", "encoder_layer0", "memory"):
        rows.append(block_row("encoder", name, results[name], seen[name], MAPS))
    logits = output.enc_outputs_class
    rows.append(block_row("proposals", "class 0", results["enc_logits0"], logits[..., 0], MAPS))
    rows.append(block_row("proposals", "logits", results["enc_logits"], logits, MAPS))
    boxes = output.enc_outputs_coord_logits.sigmoid()
    rows.append(block_row("proposals", "boxes", results["enc_boxes"], boxes, MAPS))

    chosen = torch.tensor(results["selection"]["index"])
    ours = logits[0, :, 0].topk(detector.module.queries).indices
    swapped = len(set(chosen.tolist()) - set(ours.tolist())) / len(chosen)
    rows.append(Row("proposals", "share of other tokens selected", swapped, UNMATCHED))
    if not torch.equal(chosen, ours):
        # Query i takes the i-th content: two tokens in another order exchange two queries and move all a little.
        seen, output = observe(detector.module, prepared.pixels, chosen)
    rows.append(block_row("decoder", "pos_trans", results["pos_trans"], seen["pos_trans"], MAPS))
    for name, found in (
        ("decoder_hidden", output.intermediate_hidden_states),
        ("decoder_reference", output.intermediate_reference_points),
    ):
        for layer, block in enumerate(results[name]):
            rows.append(block_row("decoder", f"{name} {layer}", block, found[:, layer], MAPS))
    rows.append(block_row("heads", "logits", results["pred_logits"], output.logits, HEADS))
    rows.append(block_row("heads", "boxes", results["pred_boxes"], output.pred_boxes, HEADS))
    return Report(path, tuple(rows + detection_rows(results["detections"], output, image.shape[:2])))


def build(fixture: Mapping[str, Any]) -> HybridDetector:
    """The detector that the field `official` describes, with random weights."""
    official = fixture["official"]
    given, resize = official["args"], official["resize"]
    detector = build_hybrid(
        Runtime(device="cpu"),
        backbone=given["backbone"].removeprefix("swin_"),
        queries=given["num_queries_one2one"],
        one_to_many=given["num_queries_one2many"],
        short=resize["short"],
        longest=resize["longest"],
        limit=given["topk"],
    )
    detector.name = fixture["model"]
    return detector


@torch.inference_mode()
def observe(
    network: HybridNetwork, pixels: torch.Tensor, chosen: torch.Tensor | None = None
) -> tuple[dict[str, Any], Any]:
    """What passes between the parts of the network, and its output.

    chosen: the tokens (Q,) that the decoder is to get, in that order, whatever the logits say.
    """
    seen: dict[str, Any] = {}
    model = network.detr.model

    def backbone(module: Any, given: Any, output: Any) -> None:
        seen["maps"] = output.feature_maps

    def encoder(module: Any, given: Any, named: Any) -> None:
        seen["src_flatten"], seen["level_pos"] = named["inputs_embeds"], named["spatial_position_embeddings"]

    def first_layer(module: Any, given: Any, output: Any) -> None:
        seen["encoder_layer0"] = output[0] if isinstance(output, tuple) else output

    def decoder(module: Any, given: Any, named: Any) -> None:
        seen["memory"] = named["encoder_hidden_states"]

    def positions(module: Any, given: Any, output: Any) -> None:
        seen["pos_trans"] = output

    def order(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor | None:
        if chosen is None:
            return None
        forced = output.clone()
        forced[0, chosen, 0] = output.max() + torch.arange(len(chosen), 0, -1, dtype=output.dtype)
        return forced

    hooks = [
        model.backbone.model.register_forward_hook(backbone),
        model.encoder.register_forward_pre_hook(encoder, with_kwargs=True),
        model.encoder.layers[0].register_forward_hook(first_layer),
        model.decoder.register_forward_pre_hook(decoder, with_kwargs=True),
        model.pos_trans_norm.register_forward_hook(positions),
        model.decoder.class_embed[-1].register_forward_hook(order),
    ]
    try:
        return seen, network(pixels)
    finally:
        for hook in hooks:
            hook.remove()


def detection_rows(lists: Mapping[str, Any], output: Any, size: tuple[int, int]) -> list[Row]:
    """The best pairs of query and class, as many as each list has."""
    rows = []
    for name, record in lists.items():
        found = best_pairs(output.logits[0].sigmoid(), output.pred_boxes[0], size, record["n"])
        rows.append(same("detections", f"{name} count", len(found.scores), record["n"]))
        rows.append(sorted_labels_row("detections", f"{name} labels", found.classes.tolist(), record["labels"]))
        if "scores_block" in record:
            scores = torch.from_numpy(found.scores)
            rows.append(score_row("detections", f"{name} scores", record["scores_block"], scores))
        if "boxes_xyxy" in record:
            count = len(record["boxes_xyxy"])
            expected = {
                "boxes": record["boxes_xyxy"],
                "scores": record["scores"][:count],
                "classes": record["labels"][:count],
            }
            rows += list_rows("detections", name, expected, found.boxes, found.scores, found.classes)
    return rows
