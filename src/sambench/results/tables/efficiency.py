"""The table `efficiency`: parameters, FLOPs, MACs and EER, from the counts of single variants."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench import records
from sambench.jobs import efficiency_file
from sambench.parquet import read_parquet
from sambench.results.declared import Column, Cost, InSummary, first_of
from sambench.results.table import Table, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

EER_COLUMNS = ("params_m", "flops_g", "macs_g")
EXPLAINED = 1.0  # per cent: a larger difference between the two counters is explained

# params_m, flops_g and macs_g of the image path, params_official_m of the whole official model;
# eer and difference (of products_g against flops_g) in per cent; checkpoint_mb in 10^6 bytes.
SCHEMA = pa.schema(
    [
        pa.field("variant", pa.string()),
        *[pa.field(n, pa.float64()) for n in ("params_m", "flops_g", "macs_g", "eer")],
        pa.field("input_size", pa.int32()),
        *[pa.field(n, pa.float64()) for n in ("params_official_m", "checkpoint_mb", "products_g", "difference")],
        *[pa.field(n, pa.string()) for n in ("explanation", "status")],
    ]
)


def selected(study: Study) -> bool:
    return "efficiency" in study["measures"]


def sources(study: Study) -> list[str]:
    counted = [name for name in (*study["variants"], reference_to_count(study)) if name]
    return [efficiency_file(study.results, name) for name in sorted({*counted})]


def settings(study: Study) -> dict[str, Any]:
    cards = {name: study.cards[name] for name in study["variants"]}
    return {
        "cards": {name: {"input_size": card.input_size, "params_m": card.params_m} for name, card in cards.items()},
        "reference": study.settings.efficiency.reference if has_networks(study) else "",
        "counts": known_counts(study),
    }


def has_networks(study: Study) -> bool:
    """Whether a variant of the study has anything to count."""
    return any(study.cards[name].checkpoints for name in study["variants"])


def known_counts(study: Study) -> dict[str, int]:
    """The counts of the EER's reference that its card holds for the study's image size; empty: it is to be counted."""
    wanted = study.settings.efficiency
    counts = dict(study.cards[wanted.reference].counts or {})
    return counts if tuple(counts.pop("image_size", ())) == wanted.image_size else {}


def reference_to_count(study: Study) -> str:
    """The EER's reference when a job has to count it, else nothing."""
    return study.settings.efficiency.reference if has_networks(study) and not known_counts(study) else ""


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    costs = [read_counts(results, name) for name in settings["cards"]]
    reference, counts = settings["reference"], settings["counts"]
    against = None
    if counts:
        against = pd.DataFrame(
            [{"variant": reference, **counts, "checkpoint_bytes": None, "unseen": "{}", "status": OK}]
        )
    elif reference:
        against = read_counts(results, reference)
    return efficiency(costs, against, settings["cards"])


def read_counts(results: Path, variant: str) -> pd.DataFrame:
    """The counts of a variant by part, columns of records.EFFICIENCY."""
    return read_parquet(Path(efficiency_file(results, variant)), records.EFFICIENCY).to_pandas()


def efficiency(
    costs: Iterable[pd.DataFrame], reference: pd.DataFrame | None, cards: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """One line per variant, with the columns of SCHEMA.

    costs, reference: columns of records.EFFICIENCY. cards: `input_size` and `params_m` of each variant.

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
    return typed(lines, SCHEMA)


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


def draw(*tables: Any) -> Any:
    from sambench.results.figures import cost_chart

    return cost_chart(*tables)


TABLE = Table(
    name="efficiency",
    order=60,
    title="Efficiency",
    explanation="Parameters (M), FLOPs and MACs (G) of one image with one box, counted, not timed; they need no "
    "weights. EER is the mean of the three relative to SAM-H, in per cent.",
    schema=SCHEMA,
    key=("variant",),
    selected=selected,
    sources=sources,
    settings=settings,
    build=build,
    units={"params_m": "M", "params_official_m": "M", "flops_g": "G", "macs_g": "G", "products_g": "G"}
    | {"eer": "%", "difference": "%", "checkpoint_mb": "MB"},
    decimals={"params_m": 3, "params_official_m": 3, "flops_g": 2, "macs_g": 2, "products_g": 2},
    metrics="{column}",
    summary=InSummary(
        word="cost",
        order=70,
        columns=(
            Column(name="params_m", order=120, unit="M", decimals=3, title="params, M"),
            *(Column(name=name, order=120, unit="G", decimals=2) for name in ("flops_g", "macs_g")),
        ),
        cells=first_of("cost", ("params_m", "flops_g", "macs_g", "checkpoint_mb")),
    ),
    costs=(
        Cost(column="flops_g", order=30, title="operations of one image and box, GFLOPs"),
        Cost(column="params_m", order=40, title="parameters, M"),
    ),
    drawn_from=("efficiency", "latency"),
    draw=draw,
)
