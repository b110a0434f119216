"""What figures of mean IoU share: the rows of both tables, and the prompts that stand for all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from sambench.results.layout import CEILING
from sambench.results.tables.summary import HEADLINES

TABLES = ("accuracy_boxes", "accuracy_points")


def accuracy_rows(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of boxes and points without the ceiling, which is 100 % by definition."""
    rows = pd.concat([tables[name] for name in TABLES if name in tables], ignore_index=True)
    return rows[rows["variant"] != CEILING]


def headlines(prompts: Iterable[str]) -> list[str]:
    """The prompt sets that stand for boxes and for points in the summary; without either, the first one of all."""
    present = list(dict.fromkeys(prompts))
    chosen = [next((name for name in names if name in present), "") for names in HEADLINES.values()]
    return [name for name in chosen if name] or present[:1]
