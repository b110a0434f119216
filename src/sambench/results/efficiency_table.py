"""From the counts of single variants to the tables `efficiency` and `efficiency_parts`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sambench.results.schemas import EFFICIENCY, EFFICIENCY_PARTS
from sambench.results.tables import typed
from sambench.status import OK

EER_COLUMNS = ("params_m", "flops_g", "macs_g")
DECIMALS = {"params_m": 3, "params_official_m": 3, "flops_g": 2, "macs_g": 2, "products_g": 2}
PARTS_DECIMALS = {"params_m": 3, "flops_g": 3, "macs_g": 3, "products_g": 3}
EXPLAINED = 1.0  # per cent: a larger difference between the two counters is explained


def efficiency(
    costs: Iterable[pd.DataFrame], reference: pd.DataFrame | None, cards: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """One line a variant, with the columns of schemas.EFFICIENCY.

    costs, reference: columns of schemas.COST. cards: `input_size` and `params_m` of each variant.

    EER, the efficiency error rate of the survey (arXiv 2410.04960), is the mean over parameters, FLOPs and MACs of the
    ratio to the reference, SAM-H, in per cent: 100 is as costly as SAM-H.
    """
    against = None if reference is None else _line(reference)
    lines = []
    for cost in costs:
        line = _line(cost)
        card = cards.get(line["variant"], {})
        official = card.get("params_m")
        line |= {"input_size": card.get("input_size"), "params_official_m": official or line.get("params_m")}
        if line["status"] == OK and against is not None and against["status"] == OK:
            line["eer"] = 100 * sum(line[name] / against[name] for name in EER_COLUMNS) / len(EER_COLUMNS)
        lines.append(line)
    return typed(lines, EFFICIENCY)


def _line(cost: pd.DataFrame) -> dict[str, Any]:
    first = cost.iloc[0]
    line: dict[str, Any] = {"variant": first["variant"], "status": first["status"]}
    if pd.notna(first["checkpoint_bytes"]):
        line["checkpoint_mb"] = first["checkpoint_bytes"] / 1e6
    if first["status"] != OK:
        return line
    flops, macs, products = (int(cost[name].sum()) for name in ("flops", "macs", "products"))
    line |= {"params_m": cost["parameters"].sum() / 1e6, "flops_g": flops / 1e9, "macs_g": macs / 1e9}
    line |= {"products_g": products / 1e9, "difference": 100 * (products - flops) / flops}
    if abs(line["difference"]) > EXPLAINED:
        line["explanation"] = explain(cost)
    return line


def explain(cost: pd.DataFrame) -> str:
    """What the two counters of a variant differ by, in GFLOPs: nothing is left over."""
    unseen: Counter[str] = Counter()
    for text in cost["unseen"]:
        unseen.update(json.loads(text))
    # products - flops = unseen - elementwise, see Operations.unseen
    elementwise = sum(unseen.values()) - int(cost["products"].sum() - cost["flops"].sum())
    products = ", ".join(f"{name} {flops / 1e9:.2f}" for name, flops in unseen.most_common())
    return f"calflops does not see {products or 'nothing'}; torch no activations, norms, biases {elementwise / 1e9:.2f}"


def by_part(costs: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One line a variant and part, with the columns of schemas.EFFICIENCY_PARTS; none for a variant without a count."""
    units = {"parameters": ("params_m", 1e6), "flops": ("flops_g", 1e9), "macs": ("macs_g", 1e9)}
    units["products"] = ("products_g", 1e9)
    lines = [
        {"variant": row["variant"], "part": row["part"]} | {to: row[name] / unit for name, (to, unit) in units.items()}
        for cost in costs
        for row in cost[cost["status"] == OK].to_dict("records")
    ]
    return typed(lines, EFFICIENCY_PARTS)
