"""From average precision by job to the tables `instances` and `detectors`."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from sambench.jobs import Job
from sambench.results.schemas import INSTANCE_SEGMENTATION


def instances_table(jobs: Iterable[tuple[Job, pd.DataFrame]], detectors: pd.DataFrame) -> pd.DataFrame:
    """AP of masks, beside the AP of the boxes that they were prompted with.

    jobs: with the columns of schemas.MASK_PRECISION. detectors: the columns of schemas.DETECTORS.
    Lines of one detector stand together, so that its variants can be compared.
    """
    box_ap = detectors.set_index(["dataset", "detector"])["ap"].rename("box_ap")
    parts = [part.assign(variant=job.variant, runtime=job.runtime) for job, part in jobs]
    table = pd.concat(parts, ignore_index=True).join(box_ap, on=["dataset", "detector"])
    order = {key: at for at, key in enumerate(box_ap.index)}
    place = [order[key] for key in zip(table["dataset"], table["detector"], strict=True)]
    table = table.iloc[pd.Series(place).argsort(kind="stable")]
    return table[INSTANCE_SEGMENTATION.names].reset_index(drop=True)
