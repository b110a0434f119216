"""The masks of picked instances, kept as run-lengths beside their IoU."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sambench import masks
from sambench.evaluate.segany import Batch, ChosenIous, LoadedImage, enlarge, tokens_to_enlarge
from sambench.status import OK
from sambench.variants.base import MaskCandidates


class KeptMasks(ChosenIous):
    """The scores of prompts and the mask that `argmax` chooses, as compressed run-lengths."""

    def __init__(self, rows: int, status: str = "") -> None:
        super().__init__(rows, ("argmax",), status)
        self.counts = np.full(rows, None, dtype=object)

    def take(self, candidates: MaskCandidates, batch: Batch, loaded: LoadedImage) -> None:
        for prompt, _, found in enlarge(candidates, tokens_to_enlarge(candidates, ["argmax"]), loaded.task.size):
            for row, mask in zip(batch.rows[prompt], found.cpu().numpy(), strict=True):
                self.counts[row] = masks.encode_rle(mask)
        super().take(candidates, batch, loaded)


def table(picks: pd.DataFrame, kept: KeptMasks) -> pd.DataFrame:
    """The columns of records.GALLERY, in the order of the picks.

    Raises RuntimeError when a pick was never decoded: a bug.
    """
    undone = int((kept.status == "").sum())
    if undone:
        raise RuntimeError(f"{undone} of {len(picks)} picked prompts were not decoded")
    done = kept.status == OK
    rows = picks[["annotation_id", "image_id", "prompt"]].reset_index(drop=True)
    rows["iou"], rows["predicted_iou"] = kept.iou["argmax"], kept.predicted_iou
    rows["rle_size"] = [list(size) if ok else None for size, ok in zip(picks["rle_size"], done, strict=True)]
    rows["rle_counts"] = [counts if ok else None for counts, ok in zip(kept.counts, done, strict=True)]
    return rows.assign(status=kept.status)
