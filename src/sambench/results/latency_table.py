"""From the times of single images to the table `segany_time`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sambench.results.schemas import SEGANY_TIME
from sambench.results.statistics import clustered_bootstrap
from sambench.results.tables import status_of, typed
from sambench.status import OK

STEP = 10  # boxes between two points of the cumulative time


def lines(facts: Mapping[str, Any], times: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """The lines of one variant and runtime: at the first box and at every tenth, with columns of schemas.SEGANY_TIME.

    times: columns of schemas.LATENCY. facts: dataset, variant, runtime and what is known of the run, columns of the
    same name. cumulative_ms is the mean over images of encoding and the boxes so far, with the 95 % interval of a
    bootstrap over images; segany_ms the mean of one image and one box; all other times are medians. Preparation on the
    CPU (reading left out, resizing included) is apart: it can overlap with the device's work.
    """
    fixed = {**facts, "status": status_of(times["status"])}
    fixed |= {name: times[name].max() for name in ("peak_memory_mib", "requested_mib")}
    good = times[times["status"] == OK]
    if good.empty:
        return typed([fixed | {"n": 0}], SEGANY_TIME)
    decode, upsample = (np.stack(good[name].to_numpy()) for name in ("decode_ms", "upsample_ms"))
    cumulative = good["encode_ms"].to_numpy()[:, None] + np.cumsum(decode + upsample, axis=1)
    fixed |= {
        "n": len(good),
        "segany_ms": cumulative[:, 0].mean(),
        "prepare_ms": good["prepare_ms"].median(),
        "encode_ms": good["encode_ms"].median(),
        "decode_ms": np.median(decode),
        "upsample_ms": np.median(upsample),
    }
    count = decode.shape[1]
    rows = []
    for boxes in sorted({1, *range(STEP, count + 1, STEP), count}):
        times_so_far = cumulative[:, boxes - 1]
        low, high = clustered_bootstrap(times_so_far, good["image_id"].to_numpy(), resamples=resamples, seed=seed)
        p50, p90 = np.quantile(times_so_far, [0.5, 0.9])
        rows.append(
            fixed
            | {"boxes": boxes, "cumulative_ms": times_so_far.mean(), "cumulative_low": low, "cumulative_high": high}
            | {"p50": p50, "p90": p90}
        )
    return typed(rows, SEGANY_TIME)
