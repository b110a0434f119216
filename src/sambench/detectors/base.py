"""The contract of detectors: images in, boxes with scores and classes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sambench.errors import InputError


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    boxes: (K, 4) float64 x0, y0, x1, y1 in pixels of the original image; they may stick out of it.
    scores: (K,) float64. classes: (K,) int64, positions in the list of names that `choose_classes` gave.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class BoxDetector(ABC):
    """Finds objects in images. A builder `build_x(runtime, **arguments)` returns one with random weights.

    It computes in float32 whatever the runtime: boxes are inputs of the study, not what it compares.
    """

    name: str = ""

    @abstractmethod
    def load_files(self, paths: Sequence[Path]) -> None:
        """Load the checkpoint files of the card, in its order, and move to the device.

        Raises InputError for a file that does not belong to the detector.
        """

    def start_random(self) -> None:
        """Take the network as it was built, with random weights, and move it to the device.

        It shows that the whole graph runs, how long it takes and how much memory; its boxes mean nothing. Raises
        InputError for a detector whose network is only known from its files.
        """
        remedy = "download its files"
        raise InputError(self.name, expected="a network that can be built without files", found="none", remedy=remedy)

    @abstractmethod
    def choose_classes(self, wanted: Sequence[str]) -> Sequence[str]:
        """The names of the classes that `detect` tells apart; called once, before it.

        wanted: the names that the dataset's categories have. A detector of any named thing takes these, another one
        has names of its own.
        """

    @abstractmethod
    def prepare(self, image: np.ndarray) -> Any:
        """(H, W, 3) uint8 RGB -> what `detect` takes. Runs ahead, in a worker thread, on the CPU."""

    @abstractmethod
    def shape(self, prepared: Any) -> Hashable:
        """What images of a batch must share, so that none is padded and no box depends on its neighbours."""

    @abstractmethod
    def detect(self, prepared: Sequence[Any]) -> list[Detections]:
        """The objects of a batch of prepared images of one shape, in their order."""
