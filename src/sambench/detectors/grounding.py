"""Grounding DINO and MM-Grounding DINO: the names of a dataset's categories are the text that is looked for.

The text is `[CLS] person . bicycle . ... [SEP]`. From phrase to class there is no comparison of strings: each class
knows the positions of its own tokens, and its score for a query is the mean of the sigmoids of the query's logits at
these positions. Both official evaluations do the same: PostProcessCocoGrounding in demo/test_ap_on_coco.py of
IDEA-Research/GroundingDINO, convert_grounding_to_cls_scores in mmdet/models/dense_heads/atss_vlfusion_head.py of
MMDetection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sambench.detectors.base import Detections
from sambench.detectors.detr import LOCAL, HubDetector, ProcessedImage
from sambench.errors import InputError
from sambench.variants.base import Runtime


@dataclass(frozen=True)
class Text:
    """Some of the classes as one input of the text encoder.

    tokens: (1, L) int64. classes: (C,) their positions in the list of names. spans: (L, C) float32; column c is 1 / n
    at the n tokens of class c and 0 elsewhere.
    """

    tokens: torch.Tensor
    classes: np.ndarray
    spans: torch.Tensor


def phrase(name: str) -> str:
    """What is said for a category: `bow_(weapon)` -> `bow`, as in GLIP for LVIS (od_to_grounding.py).

    Full stops and question marks would end a phrase, so they become spaces. Two categories may get the same phrase, and
    then the same scores.
    """
    plain = re.sub(r"\(.*?\)", " ", name.lower().replace("_", " "))
    return " ".join(re.sub(r"[.?]", " ", plain).split()) or name.lower()


def make_texts(names: Sequence[str], tokenizer: Any, limit: int) -> list[Text]:
    """The phrases of all names, in as few texts as fit into `limit` tokens each, in their order.

    A phrase is tokenized alone. That gives the same tokens as in the text, since the tokenizer splits at spaces and
    full stops first, and says which are whose.
    """
    (stop,) = tokenizer.convert_tokens_to_ids(["."])
    pieces = [tokenizer(phrase(name), add_special_tokens=False)["input_ids"] for name in names]
    texts: list[Text] = []
    start = 0
    while start < len(pieces):
        tokens, spans = [tokenizer.cls_token_id], []
        for piece in pieces[start:]:
            if len(tokens) + len(piece) + 2 > limit:  # the full stop and [SEP]
                break
            spans.append(range(len(tokens), len(tokens) + len(piece)))
            tokens += [*piece, stop]
        if not spans:
            expected, found = f"at most {limit - 3} tokens", f"{len(pieces[start])} of `{names[start]}`"
            raise InputError("categories", "name", expected=expected, found=found, remedy="shorten it")
        tokens.append(tokenizer.sep_token_id)
        weights = torch.zeros(len(tokens), len(spans))
        for column, span in enumerate(spans):
            weights[list(span), column] = 1 / len(span)
        texts.append(Text(torch.tensor([tokens]), np.arange(start, start + len(spans)), weights))
        start += len(spans)
    return texts


class GroundingDetector(HubDetector):
    """A detector of anything that is named. With several texts the network sees each image once per text."""

    auto = "AutoModelForZeroShotObjectDetection"
    families = frozenset({"grounding-dino", "mm-grounding-dino"})

    def load_further(self, folder: Path) -> None:
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)

    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        texts = make_texts(wanted, self.tokenizer, self.module.config.max_text_len)
        self.texts = [Text(text.tokens.to(self.device), text.classes, text.spans.to(self.device)) for text in texts]
        return wanted

    @torch.inference_mode()
    def detect(self, prepared: Sequence[ProcessedImage]) -> list[Detections]:
        pixels = self.pixels(prepared)
        parts = [self._detect(text, pixels, prepared) for text in self.texts]
        return [self._merge(answers) for answers in zip(*parts, strict=True)]

    def _detect(self, text: Text, pixels: torch.Tensor, prepared: Sequence[ProcessedImage]) -> list[Detections]:
        """The best boxes for one text in each image; classes are positions in the list of all names."""
        tokens = text.tokens.expand(len(prepared), -1)
        output = self.module(
            pixel_values=pixels,
            input_ids=tokens,
            token_type_ids=torch.zeros_like(tokens),
            attention_mask=torch.ones_like(tokens),
        )
        # The logits are filled up to the longest text with -inf.
        scores = output.logits[..., : tokens.shape[1]].sigmoid() @ text.spans
        found = []
        for image_scores, boxes, image in zip(scores, output.pred_boxes, prepared, strict=True):
            best = self.best(image_scores, boxes, image.original_size)
            found.append(Detections(best.boxes, best.scores, text.classes[best.classes]))
        return found

    def _merge(self, answers: Sequence[Detections]) -> Detections:
        """The best of what the texts gave for one image."""
        boxes, scores, classes = (
            np.concatenate([getattr(answer, name) for answer in answers]) for name in ("boxes", "scores", "classes")
        )
        order = np.argsort(-scores, kind="stable")[: self.limit]
        return Detections(boxes[order], scores[order], classes[order])


def build_grounding(runtime: Runtime, limit: int = 300) -> GroundingDetector:
    """A detector of named things; the best `limit` pairs of query and class of an image, as in the evaluations."""
    return GroundingDetector(runtime, limit)
