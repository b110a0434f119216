"""Published figures beside measured ones: the table `reproduction`, with each difference above one per cent explained.

config/published.csv says for each figure which column of which of our tables it belongs to, under our names of
variants, data sets and prompts. What explains a count is looked for, not written down: papers count multiplications
or multiply-accumulates, with or without the products of the attention, of the whole path or of the image encoder, and
a figure that one of our own counts meets is explained by that count. What is left are the notes of the file.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.config import CONFIG_FOLDER
from sambench.errors import InputError
from sambench.protocols import protocol_of
from sambench.results.table import Table, all_tables, find_table, read_tables, table_files, typed
from sambench.status import OK

if TYPE_CHECKING:
    from sambench.study import Study

COLUMNS = (
    "table", "variant", "dataset", "setting", "metric", "published", "runtime", "kind", "hardware", "note", "source",
)  # fmt: skip
ALIKE = 1.0  # per cent: a larger difference is explained
NEAR = 10.0  # per cent: another count that is so near is named

# Why a published figure differs, by the word in the column `note`.
NOTES = {
    "": "",
    "head": "the published count has the classifier head of TinyViT (0.32 M), which the image path never uses",
    "video": "the published count is of the whole model; the memory that only video needs is not in ours",
    "input_size": "the published count is of a square input; here the image keeps its shape and is padded to 32",
    "point": "the published time is of one point, not of one box",
    "rate": "published as images per second",
    "mask_points": "published with the points at the centres of the masks, not with boxes",
    "token": "published as the most confident mask; its figures fit the single-mask token (docs/published.md)",
    "five_clicks": "published with five clicks at most per instance, and masks as polygons",
    "four_tokens": "published with the best of all four tokens, the single-mask token included",
}
# A published figure beside ours, in the unit of our column `metric` of `table`. difference in
# per cent of the published value; explanation where it is above one; hardware that the published figure was taken on.
# protocol: of an accuracy, by its source, as the configuration names it; like_with_like: it is repeated in full.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("table", "variant", "dataset", "setting", "metric")],
        *[pa.field(n, pa.float64()) for n in ("measured", "published", "difference")],
        pa.field("protocol", pa.string()),
        pa.field("like_with_like", pa.bool_()),
        *[pa.field(n, pa.string()) for n in ("explanation", "runtime", "device", "hardware", "source")],
    ]
)


def measured_tables(study: Study) -> list[str]:
    """The tables of a study that published figures may be about: all that are not made of other tables."""
    return [name for name, table in all_tables().items() if not table.derived and table.selected(study)]


def sources(study: Study) -> list[str]:
    return [published_file(), *table_files(study, measured_tables(study)).values()]


def settings(study: Study) -> dict[str, Any]:
    return {"tables": table_files(study, measured_tables(study)), "protocols": study.plain.get("protocols", {})}


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    published = read_published(Path(published_file()))
    return reproduction(published, read_tables(settings["tables"]), settings["protocols"])


def published_file() -> str:
    """The file of published figures; relative where the checkout is the working directory."""
    file = CONFIG_FOLDER / "published.csv"
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def read_published(path: Path) -> list[dict[str, str]]:
    """The published figures, each a mapping of COLUMNS.

    Raises InputError for another header, an unknown table or note, or a figure that is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(path, "header", expected=",".join(COLUMNS), found=",".join(reader.fieldnames or ()))
        lines = list(reader)
    tables = [name for name, table in all_tables().items() if not table.derived]
    for number, line in enumerate(lines, start=2):
        for field, known in (("table", tables), ("note", NOTES), ("kind", ("", "cpu", "gpu"))):
            if line[field] not in known:
                raise InputError(f"{path}:{number}", field, expected=" or ".join(known), found=line[field])
        try:
            float(line["published"])
        except ValueError:
            raise InputError(f"{path}:{number}", "published", expected="a number", found=line["published"]) from None
    return lines


def reproduction(
    published: list[dict[str, str]],
    tables: Mapping[str, pd.DataFrame],
    protocols: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> pd.DataFrame:
    """One line per published figure that something was measured for, with the columns of SCHEMA.

    tables: by name, those that the study has; `efficiency_parts` too. protocols: the section of the configuration.
    Times are compared with times of the same kind of processor, CPU or GPU, and both are named.
    """
    lines: list[dict[str, Any]] = []
    for figure in published:
        if figure["table"] not in tables:
            continue
        for found in _matches(figure, tables[figure["table"]]).to_dict("records"):
            measured, value = float(found[figure["metric"]]), float(figure["published"])
            line: dict[str, Any] = {name: figure[name] for name in ("table", "variant", "setting", "metric", "source")}
            line |= {"hardware": figure["hardware"], "dataset": found.get("dataset", figure["dataset"])}
            line |= {"runtime": found.get("runtime", ""), "device": found.get("device", "")}
            line |= {"measured": measured, "published": value, "difference": 100 * (measured - value) / value}
            differs = ""
            if find_table(figure["table"]).published.of_data:
                name = protocol_of(figure["source"], protocols)
                differs = protocols[name].get("differs", "") if name else ""
                line |= {"protocol": name, "like_with_like": bool(name) and not differs and not figure["note"]}
            if abs(line["difference"]) > ALIKE:
                busy = "our machine was busy with other work" if found.get("busy") is True else ""
                line["explanation"] = "; ".join(filter(None, [_explain(figure, measured, tables, differs), busy]))
            else:
                line["explanation"] = ""
            lines.append(line)
    return typed(lines, SCHEMA)


def _matches(figure: Mapping[str, str], table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table that a figure can be compared with."""
    compared = find_table(figure["table"]).published
    table = compared.rows(table)
    wanted = dict(zip(compared.setting, figure["setting"].split("/"), strict=False))
    wanted["variant"] = figure["variant"]
    if compared.of_data:
        wanted["dataset"] = figure["dataset"]
    if "runtime" in table:
        wanted["runtime"] = figure["runtime"]
    for name, value in wanted.items():
        table = table[table[name].astype(str) == value]
    if figure["kind"]:
        table = table[table["device"].map(is_gpu).astype(bool) == (figure["kind"] == "gpu")]
    return table[table[figure["metric"]].notna()]


def is_gpu(device: str) -> bool:
    """Whether the name of a device is that of a GPU, as torch names it, and not of a processor."""
    return any(word in device for word in ("NVIDIA", "Tesla", "GeForce", "Radeon", "Instinct"))


def _explain(figure: Mapping[str, str], measured: float, tables: Mapping[str, pd.DataFrame], differs: str) -> str:
    if abs(measured - float(figure["published"])) <= rounding(figure["published"]):
        return "rounding of the published figure"
    reasons = [NOTES[figure["note"]] or differs]
    if figure["table"] == "efficiency" and not figure["note"]:
        reasons.append(_convention(figure, tables))
    if figure["hardware"]:
        reasons.append("other hardware")
    return "; ".join(reason for reason in reasons if reason) or "the source does not say enough to tell why"


def rounding(figure: str) -> float:
    """Half a unit of the last digit that is printed: 0.05 for 9.6; trailing zeros of an integer count as printed."""
    exponent = Decimal(figure).as_tuple().exponent
    return 0.5 * 10.0 ** int(exponent)


def _convention(figure: Mapping[str, str], tables: Mapping[str, pd.DataFrame]) -> str:
    """Which of our counts the figure is, or is nearest to."""
    counts = conventions(figure["variant"], figure["metric"], tables)
    if not counts:
        return ""
    value = float(figure["published"])
    name = min(counts, key=lambda key: abs(counts[key] - value))
    count, off = counts[name], 100 * (counts[name] - value) / value
    if abs(count - value) <= max(ALIKE / 100 * value, rounding(figure["published"])):
        return f"it is the count of {name}: {count:.4g}"
    return f"nearest is the count of {name}: {count:.4g}, {off:+.1f} %" if abs(off) <= NEAR else ""


def conventions(variant: str, metric: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Our counts of a variant under the other conventions that papers use, in the unit of `metric`."""

    def of(table: str, part: str = "") -> Mapping[str, Any]:
        rows = tables.get(table, pd.DataFrame(columns=["variant", "part"]))
        rows = rows[rows["variant"] == variant]
        rows = rows[rows["part"] == part] if part else rows[rows["status"] == OK]
        return rows.iloc[0].to_dict() if len(rows) else {}

    whole, encoder = of("efficiency"), of("efficiency_parts", "image encoder")
    counts: dict[str, Any]
    if metric == "params_m":
        counts = {"the official model": whole.get("params_official_m"), "the image encoder": encoder.get("params_m")}
    else:
        counts = {}
        for counted, place in ((whole, "the whole path"), (encoder, "the image encoder")):
            if counted:
                counts |= {
                    f"multiply-accumulates of {place} without attention": counted["macs_g"],
                    f"multiply-accumulates of {place} with attention": counted["products_g"] / 2,
                    f"FLOPs of {place} without attention": counted["flops_g"],
                    f"FLOPs of {place} with attention": counted["products_g"],
                }
    return {name: float(count) for name, count in counts.items() if count is not None and count == count}


TABLE = Table(
    name="reproduction",
    order=110,
    title="Published figures",
    explanation="Figures of papers and repositories beside what was measured here, with the difference in per cent "
    "and the reason of one above 1 %. protocol: how the figure was made, where that is known; like_with_like: whether "
    "this study repeats it in full.",
    schema=SCHEMA,
    key=("table", "variant", "dataset", "setting", "metric"),
    selected=lambda study: True,
    sources=sources,
    settings=settings,
    build=build,
    units={"difference": "%"},
    decimals={"measured": 2, "published": 2},
    derived=True,
)
