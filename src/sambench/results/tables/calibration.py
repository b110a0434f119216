"""The table `calibration`: what a variant's own prediction of its IoU is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sambench.jobs import Job
from sambench.results.parts import by_parts
from sambench.results.statistics import LEVEL, Resampling
from sambench.results.table import status_of
from sambench.status import OK

BINS = 10  # of equal width
GOOD = 0.75  # the IoU that a mask needs to be worth keeping
KEPT = (90, 75, 50, 25)  # per cent of the masks, those with the highest predicted IoU
NO_PREDICTION = "no predicted IoU"
ONE_KIND = f"all masks on one side of IoU {GOOD}"

# All in per cent, except rank_correlation and auc_75. bias: mean predicted IoU less the mean IoU.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt")],
        *[
            pa.field(n, pa.float64())
            for n in (
                *("ece", "ece_low", "ece_high", "bias", "rank_correlation", "auc_75", "miou"),
                *(f"miou_top_{share}" for share in KEPT),
            )
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)


def part(job: Job, prompt: str, rows: pd.DataFrame, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The line of one prompt set. settings: `statistics`."""
    return [place(job, prompt) | line(rows, **settings["statistics"])]


def place(job: Job, prompt: str) -> dict[str, str]:
    """What a line is about."""
    return {"dataset": job.dataset, "variant": job.variant, "runtime": job.runtime, "prompt": prompt}


def usable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with an IoU and a prediction of it."""
    kept = rows[(rows["status"] == OK) & rows["predicted_iou"].notna()]
    return kept.assign(predicted_iou=kept["predicted_iou"].astype(float))


def bins_of(predicted: np.ndarray) -> np.ndarray:
    """The bin of each prediction in [0, 1]: 0 to BINS - 1, half-open except for the last."""
    return np.minimum((predicted * BINS).astype(np.int64), BINS - 1)


def line(rows: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """The numbers of one variant and prompt set. rows: image_id, iou, predicted_iou, status.

    ece: expected calibration error (Guo et al., On Calibration of Modern Neural Networks, 2017): the mean over all
    masks of the distance between mean IoU and mean predicted IoU in the bin of a mask, with a bootstrap interval over
    images; for it and the bias predictions are cut to [0, 1], since networks may say 1.02. rank_correlation:
    Spearman's. auc_75: the chance that of two masks, one of IoU >= 0.75 and one below, the first has the higher
    prediction. miou_top_50: mIoU of the half with the highest predictions.
    """
    good = usable(rows)
    cells: dict[str, Any] = {
        "instances": len(good),
        "images": good["image_id"].nunique(),
        "status": status_of(rows["status"]),
    }
    if good.empty:
        return cells | ({"status": NO_PREDICTION} if cells["status"] == OK else {})
    iou, predicted = good["iou"].to_numpy(), good["predicted_iou"].to_numpy()
    images = good["image_id"].to_numpy()
    cut = predicted.clip(0, 1)
    gaps = np.where(bins_of(cut)[:, None] == np.arange(BINS), (iou - cut)[:, None], 0.0)
    found = Resampling(images, resamples=resamples, seed=seed).means(gaps, images)
    cells |= {"ece": 100 * np.abs(found.values).sum(), "bias": 100 * (cut - iou).mean(), "miou": 100 * iou.mean()}
    drawn = 100 * np.abs(found.replicates).sum(axis=1)
    cells["ece_low"], cells["ece_high"] = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    cells |= {"rank_correlation": rank_correlation(predicted, iou), "auc_75": auc(predicted, iou >= GOOD)}
    best_first = iou[np.argsort(-predicted, kind="stable")]
    cells |= {f"miou_top_{share}": 100 * best_first[: max(1, round(len(iou) * share / 100))].mean() for share in KEPT}
    if np.isnan(cells["auc_75"]) and cells["status"] == OK:
        cells["status"] = ONE_KIND
    return cells


def rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's: the correlation of ranks, ties sharing their mean rank; NaN where one does not vary."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (one, two)]
    if any(np.ptp(values) == 0 for values in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve, as Mann and Whitney's statistic; ties count half, NaN without both kinds."""
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return float("nan")
    ranks = pd.Series(scores).rank().to_numpy()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


TABLE = by_parts(
    name="calibration",
    order=35,
    title="What the predicted IoU is worth",
    explanation="Whether a variant knows how good its masks are, by argmax. ece: expected calibration error, per cent, "
    "over ten bins, the mean distance of predicted and true IoU; bias: how much too high the prediction is on average. "
    "rank_correlation: Spearman's. auc_75: the chance that a mask of IoU 0.75 or more has a higher prediction than one "
    "below. miou_top_50: mIoU of the half with the highest predictions, and so on.",
    schema=SCHEMA,
    key=("dataset", "variant", "runtime", "prompt"),
    selected=lambda study: any(study.prompt_types(group) for group in study["prompt_groups"]),
    part=part,
    by_prompt=True,
    units=dict.fromkeys(("ece", "ece_low", "ece_high", "bias", "miou", *(f"miou_top_{n}" for n in KEPT)), "%"),
    decimals={"rank_correlation": 3, "auc_75": 3},
    metrics="calibration/{column}/{prompt}",
)
