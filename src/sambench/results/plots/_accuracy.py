"""What figures of mean IoU share: the rows of both tables."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from sambench.results.layout import CEILING

TABLES = ("accuracy_boxes", "accuracy_points")


def accuracy_rows(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of boxes and points without the ceiling, which is 100 % by definition."""
    rows = pd.concat([tables[name] for name in TABLES if name in tables], ignore_index=True)
    return rows[rows["variant"] != CEILING]
