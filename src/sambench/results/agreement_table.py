"""From the masks of a runtime, box by box, to the table `agreement`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sambench.results.schemas import AGREEMENT
from sambench.results.statistics import clustered_bootstrap
from sambench.results.tables import status_of, typed
from sambench.status import OK

DECIMALS = {"miou": 2, "lowest": 2}


def line(facts: Mapping[str, Any], rows: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """The line of one variant and runtime, with the columns of schemas.AGREEMENT.

    rows: columns of schemas.AGREEMENT_RUN. facts: columns of the same name. The interval is a bootstrap over images.
    """
    fixed = {name: value for name, value in facts.items() if name in AGREEMENT.names}
    good = rows[rows["status"] == OK]
    fixed |= {"prompts": len(good), "images": good["image_id"].nunique(), "status": status_of(rows["status"])}
    if good.empty:
        return typed([fixed], AGREEMENT)
    iou = 100 * good["iou"]
    low, high = clustered_bootstrap(iou.to_numpy(), good["image_id"].to_numpy(), resamples=resamples, seed=seed)
    fixed |= {"miou": iou.mean(), "miou_low": low, "miou_high": high, "lowest": iou.min()}
    fixed |= {"same_token": 100 * good["same_token"].astype(float).mean(), "area": 100 * good["area"].mean()}
    return typed([fixed], AGREEMENT)
