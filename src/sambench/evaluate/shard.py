"""One shard of promptable segmentation in blocks: images that are planned, decoded and finished together.

Blocks follow from the tables alone, so that a job that was killed finds the same ones again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from sambench.evaluate.detections import box_prompts
from sambench.evaluate.segany import ImageTask, image_blocks, plan


@dataclass(frozen=True)
class Block:
    """Rows of some images: the images, their instances, the prompts from ground truth with their places in the table,
    and boxes of detectors as prompts (see `box_prompts`); None without detectors."""

    images: pd.DataFrame
    instances: pd.DataFrame
    prompts: pd.DataFrame
    detected: pd.DataFrame | None

    @cached_property
    def tasks(self) -> list[ImageTask]:
        """What is decoded: the prompts from ground truth come first."""
        planned = self.prompts
        if self.detected is not None:
            planned = pd.concat([planned.assign(detected=False), self.detected])
        return plan(self.images, self.instances, planned.reset_index(drop=True))


class Shard:
    """The blocks of a shard.

    images, instances, prompts: rows of the shard, columns as in records.py. boxes: of each detector. most: rows of a
    block. with_truth: whether boxes are told the instances that they are on.
    """

    def __init__(
        self,
        images: pd.DataFrame,
        instances: pd.DataFrame,
        prompts: pd.DataFrame,
        boxes: Mapping[str, pd.DataFrame],
        most: int,
        *,
        with_truth: bool = False,
    ) -> None:
        self.images = image_blocks(images, [prompts, *boxes.values()], most)
        self._instances, self._prompts = _ByImage(instances), _ByImage(prompts)
        self._boxes = {name: _ByImage(table) for name, table in boxes.items()}
        self._with_truth = with_truth
        self._ahead: dict[int, Block] = {}

    def __len__(self) -> int:
        return len(self.images)

    def block(self, number: int) -> Block:
        """One block. It is kept until a later one is taken."""
        if number not in self._ahead:
            images = self.images[number]
            instances, detected = self._instances.of(images), None
            if self._boxes:
                boxes = {name: table.of(images) for name, table in self._boxes.items()}
                detected = box_prompts(boxes, instances if self._with_truth else None)
            self._ahead[number] = Block(images, instances, self._prompts.of(images), detected)
        return self._ahead[number]

    def take(self, number: int) -> Block:
        """The next block; those before it are not needed any more."""
        self._ahead = {at: block for at, block in self._ahead.items() if at >= number}
        return self.block(number)

    def tasks(self, first: int) -> Iterator[ImageTask]:
        """All images with prompts from a block on; they are planned when they are asked for."""
        for number in range(first, len(self)):
            yield from self.block(number).tasks

    def prompt_rows(self) -> np.ndarray:
        """(N,) places in the table of prompts, in the order of the blocks."""
        return np.concatenate([self._prompts.of(images).index.to_numpy() for images in self.images])

    def prompted(self, first: int = 0, last: int | None = None) -> int:
        """How many images of some blocks have prompts."""
        tables = [self._prompts, *self._boxes.values()]
        return sum(
            any(image in table.rows for table in tables)
            for images in self.images[first:last]
            for image in images["image_id"]
        )


class _ByImage:
    """Rows of a table by image, looked up without a scan."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table, self.rows = table, table.groupby("image_id").indices

    def of(self, images: pd.DataFrame) -> pd.DataFrame:
        """Those of some images, in the order of the table, with their index."""
        found = [self.rows[image] for image in images["image_id"] if image in self.rows]
        return self.table.iloc[np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *found]))]
