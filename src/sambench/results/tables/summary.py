"""The table `summary`: all that a study found of each variant, one row per data set, variant and runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from sambench.parquet import read_provenance
from sambench.results.table import Table, expanded, read_tables, reasons_in_words, table_files, typed
from sambench.results.tables import (
    accuracy_boxes,
    accuracy_points,
    average_precision,
    corruptions,
    efficiency,
    interactive,
    latency,
    segevery,
    throughput,
)
from sambench.status import OK
from sambench.variants.cards import Card
from sambench.variants.origin import OFFICIAL

if TYPE_CHECKING:
    from sambench.study import Study

# What it is made of: the words that `status` and `not_asked` use for each part, and where the part comes from.
PARTS: dict[str, Table] = {
    "box": accuracy_boxes.TABLE,
    "point": accuracy_points.TABLE,
    "AP": average_precision.TABLE,
    "everything": segevery.TABLE,
    "time": latency.TABLE,
    "throughput": throughput.TABLE,
    "cost": efficiency.TABLE,
    "clicks": interactive.TABLE,
    "spoilt images": corruptions.TABLE,
}
# The prompt set that stands for boxes and for points: the first of these that the study has, else its first one.
HEADLINES = {"box": ("box", "tight_box"), "point": ("mask_center", "click_1", "box_center", "random_1")}
KEY = ("dataset", "variant", "runtime")
RULE = "argmax"
RANDOM = "random weights"
NOT_ASKED = "not asked"  # of this row, though of others
BY_NAME = ("ap", "boundary_ap", "ar_1000", "everything_ms")  # numbers by detector or sampler

# mIoU, AP and AR in per cent, times in ms, memory in MiB, checkpoint_mb in 10^6 bytes. ap, boundary_ap:
# by detector; ar_1000 and everything_ms: by sampler. miou_3_clicks, noc_85: of clicks alone; corruption_drop: of all
# common corruptions. weights: what the checkpoint files are, see variants/origin.py.
SCHEMA = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in (*KEY, "family", "box_prompt")],
        *[pa.field(n, pa.float64()) for n in ("miou_box", "miou_box_low", "miou_box_high")],
        pa.field("point_prompt", pa.string()),
        *[pa.field(n, pa.float64()) for n in ("miou_point", "miou_point_low", "miou_point_high")],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        *[pa.field(n, pa.map_(pa.string(), pa.float64())) for n in BY_NAME],
        *[pa.field(n, pa.float64()) for n in ("miou_3_clicks", "noc_85", "corruption_drop")],
        pa.field("device", pa.string()),
        *[
            pa.field(n, pa.float64())
            for n in (
                *("encode_ms", "box_ms", "segany_ms", "throughput_img_s", "peak_memory_mib"),
                *("params_m", "flops_g", "macs_g", "checkpoint_mb"),
            )
        ],
        pa.field("busy", pa.bool_()),
        *[pa.field(n, pa.string()) for n in ("licence_code", "licence_weights", "weights", "weights_sha256")],
        *[pa.field(n, pa.string()) for n in ("status", "not_asked")],
    ]
)


def headlines(prompts: Iterable[str]) -> list[str]:
    """The prompt sets that stand for boxes and for points in the summary; without either, the first one of all."""
    present = list(dict.fromkeys(prompts))
    chosen = [next((name for name in names if name in present), "") for names in HEADLINES.values()]
    return [name for name in chosen if name] or present[:1]


def asked(study: Study) -> list[str]:
    """The parts that a study measures."""
    prompts = [name for group in study["prompt_groups"] for name in study.prompt_types(group)]
    boxes = [name for name in prompts if accuracy_boxes.accuracy.is_box(name)]
    wanted = {"box": bool(boxes), "point": len(prompts) > len(boxes)}
    return [part for part, table in PARTS.items() if wanted.get(part, True) and table.selected(study)]


def sources(study: Study) -> list[str]:
    return list(tables_needed(study).values())


def tables_needed(study: Study) -> dict[str, str]:
    return table_files(study, [PARTS[part].name for part in asked(study)])


def settings(study: Study) -> dict[str, Any]:
    return {
        "jobs": [list(job) for job in study.places()],
        "segany": [[job.variant, job.shard_files(study.results, study.shards(job.dataset))[0]] for job in study.jobs()],
        "tables": tables_needed(study),
        "cards": {name: card_entry(study.cards[name]) for name in study["variants"]},
        "folders": [str(folder) for folder in study.weights_folders],
    }


def card_entry(card: Card) -> dict[str, Any]:
    """What the summary says of a variant itself, and what its files are known by."""
    return {
        "family": card.family,
        "licence_code": card.licence_code,
        "licence_weights": card.licence_weights,
        "checkpoints": [dict(checkpoint) for checkpoint in card.checkpoints],
        "like": card.like,
    }


def build(results: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    folders = [Path(folder) for folder in settings["folders"]]
    digests = dict(weights_used(settings["segany"]))
    facts = {}
    for name, entry in settings["cards"].items():
        card = Card(name=name, **entry)
        size = card.checkpoint_bytes(folders)
        facts[name] = {
            "family": card.family,
            "licence_code": card.licence_code,
            "licence_weights": card.licence_weights,
            "weights": card.origin(folders),
            "weights_sha256": digests.get(name, ""),
            "checkpoint_mb": None if size is None else size / 1e6,
        }
    found = read_tables(settings["tables"])
    tables = {part: found[table.name] for part, table in PARTS.items() if table.name in found}
    return summary([tuple(job) for job in settings["jobs"]], tables, facts)


def weights_used(files: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """(variant, SHA-256 of its weights) as segany recorded them when it ran. files: (variant, file)."""
    for variant, file in files:
        digest = read_provenance(Path(file)).get("weights_sha256", "")
        if digest:
            yield variant, digest


def summary(
    jobs: Sequence[tuple[str, ...]], tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """One row per (dataset, variant, runtime), with the columns of SCHEMA.

    jobs: these coordinates, in order. tables: the rows of a part's table, by the part's name in PARTS; a part that is
    not there was not asked. facts: columns of SCHEMA that hold for a variant everywhere.

    `status` is `ok`, or the reasons why numbers are missing, each with the parts that it is about.
    """
    tables = {
        part: table[table["selection"] == RULE] if "selection" in table else table for part, table in tables.items()
    }
    prompts = {part: headline(part, tables[part]) for part in HEADLINES if part in tables}
    not_asked = ", ".join(part for part in PARTS if part not in tables)
    lines = []
    for job in jobs:
        line: dict[str, Any] = {name: [] for name in BY_NAME} | dict(zip(KEY, job, strict=True))
        line |= {**facts.get(job[1], {}), "not_asked": not_asked}
        found = {part: _of(table, line) for part, table in tables.items()}
        reasons: dict[str, list[str]] = {}
        for part, rows in found.items():
            cells, missing = _cells(part, rows, prompts.get(part, ""))
            line |= {
                name: value for name, value in cells.items() if pd.api.types.is_list_like(value) or pd.notna(value)
            }
            for what, reason in missing:
                reasons.setdefault(reason, []).append(what)
        line["status"] = reasons_in_words(reasons)
        lines.append(line)
    return typed(lines, SCHEMA)


def headline(part: str, table: pd.DataFrame) -> str:
    """The prompt set that stands for the boxes or the points of a study."""
    present = table["prompt"].drop_duplicates().tolist()
    return next((name for name in HEADLINES[part] if name in present), present[0] if present else "")


def _of(table: pd.DataFrame, line: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table that are about a row of the summary; a cost has neither data set nor runtime."""
    for name in KEY:
        if name in table:
            table = table[table[name] == line[name]]
    return table


def _cells(part: str, rows: pd.DataFrame, prompt: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The columns that a part fills in, and (what, reason) for numbers that are missing or made of fewer rows."""
    if part in HEADLINES:
        rows = rows[rows["prompt"] == prompt]
    if rows.empty:
        return {}, [(part, NOT_ASKED)]
    first = rows.iloc[0]
    if part in HEADLINES:
        renamed = {"": "miou", "_low": "miou_low", "_high": "miou_high"}
        cells = {f"{part}_prompt": prompt} | {f"miou_{part}{end}": first[name] for end, name in renamed.items()}
        if first["instances"]:
            cells |= {"instances": first["instances"], "images": first["images"]}
        return cells, _not_ok([part], rows)
    if part == "AP":
        cells = {name: _named(rows, "detector", name) for name in ("ap", "boundary_ap")}
        return cells, _not_ok([f"AP {name}" for name in rows["detector"]], rows)
    if part == "clicks":
        own = rows[rows["protocol"] == "clicks"]
        own = rows[rows["protocol"] == first["protocol"]] if own.empty else own
        third = own.loc[own["clicks"] == 3, "miou"]
        cells = {"noc_85": own["noc_85"].iloc[0], "miou_3_clicks": None if third.empty else third.iloc[0]}
        return cells, _not_ok([part], own.iloc[:1])
    if part == "spoilt images":
        every = rows[(rows["corruption"] == corruptions.ALL) & (rows["level"] == 0)]
        return ({"corruption_drop": every["drop"].iloc[0]} if len(every) else {}), _not_ok([part], rows.iloc[:1])
    if part == "everything":
        cells = {
            "ar_1000": _named(rows, "sampler", "ar_1000"),
            "everything_ms": _named(rows, "sampler", "ms_per_image"),
        }
        return cells | {"device": first["device"]}, _not_ok(rows["sampler"].tolist(), rows)
    if part == "time":
        cells = {name: first[name] for name in ("device", "encode_ms", "segany_ms", "peak_memory_mib", "busy")}
        missing = _not_ok([part], rows.iloc[:1])
        if pd.notna(first["segany_ms"]):
            cells["box_ms"] = first["decode_ms"] + first["upsample_ms"]
            missing += [(part, RANDOM)] if first["weights"] == "random" else []
        return cells, missing
    if part == "throughput":
        best = rows[rows["best"].fillna(False).astype(bool)]
        if best.empty:
            return {}, _not_ok([part], rows.iloc[:1])
        return {"throughput_img_s": best.iloc[0]["throughput_img_s"], "device": best.iloc[0]["device"]}, []
    cells = {name: first[name] for name in ("params_m", "flops_g", "macs_g", "checkpoint_mb")}
    return cells, _not_ok([part], rows)


def _named(rows: pd.DataFrame, name: str, value: str) -> list[tuple[str, float]]:
    pairs = zip(rows[name], rows[value], strict=True)
    return [(label, float(number)) for label, number in pairs if pd.notna(number)]


def _not_ok(what: Sequence[str], rows: pd.DataFrame) -> list[tuple[str, str]]:
    return [(name, reason) for name, reason in zip(what, rows["status"], strict=True) if reason != OK]


def page(rows: pd.DataFrame) -> str:
    """The summary for a terminal: as Markdown, best mIoU first, one table per data set, what is the same for all above
    it, and below it why numbers are missing."""
    parts = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        ranked = of_dataset.sort_values(["miou_box", "miou_point"], ascending=False, na_position="last", kind="stable")
        shown, notes = _narrow(ranked)
        caption = f"**{dataset}**: {'; '.join(notes)}"
        parts += [caption, shown.to_markdown(index=False, disable_numparse=True)]
        reasons = ranked.loc[ranked["status"] != OK].groupby("status", sort=False)
        parts += ["\n".join(f"- {', '.join(names)}: {reason}" for reason, names in _names(ranked, reasons))]
    return "\n\n".join(part for part in parts if part)


# Column of the page -> (column of the summary, decimals); columns that are empty throughout are left out.
NUMBERS = {
    "image, ms": ("encode_ms", 1),
    "box, ms": ("box_ms", 1),
    "images/s": ("throughput_img_s", 2),
    "MiB": ("peak_memory_mib", 0),
    "params, M": ("params_m", 1),
}


def _narrow(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The columns that fit a terminal, and what is to be known of them and of all rows.

    Of several detectors and samplers the first one is shown.
    """
    runtimes, devices = rows["runtime"].unique(), rows["device"].dropna().unique()
    notes = [*(runtimes if len(runtimes) == 1 else []), *(devices if len(devices) == 1 else [])]
    shown = pd.DataFrame({"variant": rows["variant"]})
    if len(runtimes) > 1:
        shown["runtime"] = rows["runtime"]
    for part in HEADLINES:
        names = rows[f"{part}_prompt"].dropna().unique()
        if len(names):
            notes.append(f"mIoU {part}, %: of {names[0]}, ± half its 95 % interval")
            half = (rows[f"miou_{part}_high"] - rows[f"miou_{part}_low"]) / 2
            shown[f"mIoU {part}"] = [
                "–" if pd.isna(mean) else f"{mean:.1f}" if pd.isna(width) else f"{mean:.1f} ± {width:.1f}"
                for mean, width in zip(rows[f"miou_{part}"], half, strict=True)
            ]
    wide = expanded(rows)
    columns = dict(NUMBERS)
    for title, start, words in (("AR", "ar_1000/", "AR@1000 of"), ("AP", "ap/", "AP with the boxes of")):
        found = [name for name in wide if name.startswith(start)]
        if found:
            columns = {title: (found[0], 1)} | columns
            notes.append(f"{words} {found[0].removeprefix(start)}")
    for title, (name, digits) in columns.items():
        if wide[name].notna().any():
            shown[title] = ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in wide[name]]
    licences = [
        " / ".join(dict.fromkeys(filter(None, pair))) for pair in _pairs(rows, "licence_code", "licence_weights")
    ]
    if any(licences):
        shown["licence"] = [licence or "–" for licence in licences]
    weights = rows["weights"].fillna("")
    if {*weights} - {"", OFFICIAL}:
        shown["weights"] = [word or "–" for word in weights]
    return shown, notes


def _pairs(rows: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].fillna("") for name in names), strict=True)


def _names(rows: pd.DataFrame, reasons: Any) -> Iterator[tuple[str, list[str]]]:
    """(reason, names of the rows that it is about)."""
    several = rows["runtime"].nunique() > 1
    for reason, lines in reasons:
        names = lines["variant"] + " @ " + lines["runtime"] if several else lines["variant"]
        yield reason, names.tolist()


TABLE = Table(
    name="summary",
    order=0,
    title="Summary",
    explanation="All that was found of each variant. box_prompt and point_prompt say which prompts the mean IoU is of; "
    "the mask is that with the highest predicted IoU. ap: average precision with the boxes of each detector; ar_1000: "
    "average recall of segment everything by sampler. miou_3_clicks and noc_85: mean IoU after three clicks, and "
    "clicks to an IoU of 85 %; corruption_drop: how much of the mIoU the common corruptions cost on average. encode_ms "
    "is the time of an image, box_ms of one box, segany_ms of both with their means. weights: whether the checkpoint "
    "is the official file, by its digest. status says which numbers are missing and why, not_asked what the study did "
    "not measure.",
    schema=SCHEMA,
    key=KEY,
    selected=lambda study: True,
    sources=sources,
    settings=settings,
    build=build,
    units={f"miou_{part}{end}": "%" for part in HEADLINES for end in ("", "_low", "_high")}
    | {"miou_3_clicks": "%", "noc_85": "clicks", "corruption_drop": "%"}
    | {
        "ap": "%",
        "boundary_ap": "%",
        "ar_1000": "%",
        "everything_ms": "ms",
        "encode_ms": "ms",
        "box_ms": "ms",
        "segany_ms": "ms",
    }
    | {"throughput_img_s": "images per second", "peak_memory_mib": "MiB", "params_m": "M", "flops_g": "G"}
    | {"macs_g": "G", "checkpoint_mb": "MB"},
    decimals={"noc_85": 2, "throughput_img_s": 3, "params_m": 3, "flops_g": 2, "macs_g": 2},
    page=page,
    derived=True,
)
