"""The registry of detectors: cards that say what each is, where its boxes come from, and how to build one."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sambench.errors import InputError
from sambench.files import is_file
from sambench.status import NO_BOXES, NO_WEIGHTS, NOT_AVAILABLE, OK
from sambench.variants.cards import Card
from sambench.variants.registry import load

if TYPE_CHECKING:
    from sambench.detectors.base import BoxDetector
    from sambench.variants.base import Runtime

HUB = "https://huggingface.co/{}/resolve/main/{}"
MODEL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
# What decides about boxes; the rest of a card is prose.
FIELDS = (
    *("builder", "arguments", "checkpoints", "module", "extra"),
    *("published", "score_threshold", "top_k", "licence_weights"),
)


@dataclass(frozen=True)
class Detector(Card):
    """One detector, as config/detectors.yaml describes it; docs/detectors.md explains the fields.

    builder: `module:function` that takes (runtime, **arguments) and returns a BoxDetector with random weights; empty
        for a detector of which there are only published boxes.
    hub, files: a repository of the Hugging Face Hub and what is needed of it, instead of `checkpoints`; the files
        lie in a folder of the detector's name.
    published: dataset -> a file of results in the COCO format, relative to the working directory. It comes before
        running the network.
    score_threshold, top_k: instead of those of the config's `detection`.
    """

    hub: str = ""
    files: Sequence[str] = MODEL_FILES
    published: Mapping[str, str] = field(default_factory=dict)
    score_threshold: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.hub and not self.checkpoints:
            files = [{"file": f"{self.name}/{file}", "url": HUB.format(self.hub, file)} for file in self.files]
            object.__setattr__(self, "checkpoints", files)

    def result_file(self, dataset: str) -> Path | None:
        """The published boxes for a dataset; None when it is the network that has to find them."""
        return Path(self.published[dataset]) if dataset in self.published else None

    def runs(self, dataset: str) -> bool:
        """Whether a network has to find the boxes."""
        return bool(self.builder) and self.result_file(dataset) is None

    def modules(self, dataset: str) -> list[str]:
        """The module with the builder, where it is used."""
        return [self.builder.partition(":")[0]] if self.runs(dataset) else []

    def sources(self, dataset: str, folders: Iterable[Path]) -> list[str]:
        """What the boxes come from, as far as it is here: the published file, else the checkpoint files."""
        file = self.result_file(dataset)
        if file is not None:
            return [str(file)] if is_file(file) else []
        return [str(path) for path in self.weights(folders) or []]

    def shard_files(self, results: str, dataset: str, shards: int) -> list[str]:
        """The parts of the box file of a dataset; a published file is read as a whole."""
        count = shards if self.runs(dataset) else 1
        return [f"{results}/boxes/{dataset}/{self.name}/{shard}-of-{count}.parquet" for shard in range(count)]

    def state(self, dataset: str, folders: Iterable[Path]) -> str:
        """`ok`, or why there are no boxes for a dataset here."""
        file = self.result_file(dataset)
        if file is not None:
            return OK if is_file(file) else NO_BOXES
        return self.availability(folders)

    def remedy(self, dataset: str, folders: Iterable[Path]) -> str:
        """One line on what is missing and how to get it; empty when the boxes can be made or read."""
        state = self.state(dataset, folders)
        if state == NO_BOXES:
            return (
                f"put the published boxes at {self.published[dataset]} (`sambench download boxes` has the public ones)"
            )
        if state == NOT_AVAILABLE and not self.reason:
            return f"name a file of results in the COCO format under detectors.{self.name}.published.{dataset}"
        return self.explain(folders)

    def deciding(self) -> dict[str, Any]:
        """The part of the card that decides about the boxes."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) not in (None, "", (), {})}


@dataclass(frozen=True)
class Overview:
    """One line of a list of detectors.

    licence: of the code and of the weights. params_m: millions, None where not counted. status: `ok` or what is
    missing here; reason: how to get it, empty for `ok`.
    """

    name: str
    family: str
    licence: str
    params_m: float | None
    status: str
    reason: str


def overview(cards: Mapping[str, Detector], folders: Iterable[Path]) -> list[Overview]:
    """Every detector with what is missing here, in the order of the cards.

    Of a detector that is only known by published boxes the first missing file is named; one that runs is judged by its
    code and weights, whatever boxes are published too.
    """
    folders = list(folders)
    lines = []
    for card in cards.values():
        status, reason = card.availability(folders), card.explain(folders)
        if not card.builder and card.published:
            states = {dataset: card.state(dataset, folders) for dataset in card.published}
            missing = next((dataset for dataset, state in states.items() if state != OK), None)
            status = OK if missing is None else states[missing]
            reason = "" if missing is None else card.remedy(missing, folders)
        licence = " / ".join(filter(None, (card.licence_code, card.licence_weights)))
        lines.append(Overview(card.name, card.family, licence, card.params_m, status, reason))
    return lines


def read_detectors(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Detector]:
    """The cards of the config's registry `detectors`."""
    return {name: Detector(name=name, **entry) for name, entry in entries.items()}


def build(card: Detector, runtime: Runtime, folders: Iterable[Path], *, random_weights: bool = False) -> BoxDetector:
    """Build a detector ready to run, with the weights of its files.

    random_weights: random ones instead, for cost and for the graph; such boxes must be marked and never scored.

    Raises InputError when there is no network, a package or file is missing, or a network without files is not known;
    BadWeights for files that are not its own.
    """
    folders = list(folders)
    state = card.availability(folders)
    if state != OK and not (state == NO_WEIGHTS and random_weights):
        remedy = card.explain(folders) or "name a file of results under `published`"
        raise InputError(card.name, expected="a detector that can run", found=state, remedy=remedy)
    module, _, function = card.builder.partition(":")
    detector: BoxDetector = getattr(importlib.import_module(module), function)(runtime, **card.arguments)
    detector.name = card.name
    if random_weights:
        detector.start_random()
    else:
        load(detector, card.weights(folders) or [])
    return detector
