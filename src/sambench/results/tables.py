"""From per-instance results to the tables `points` and `boxes`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from sambench.errors import InputError
from sambench.files import write_text
from sambench.jobs import Job
from sambench.results.schemas import ACCURACY, write_parquet
from sambench.results.statistics import clustered_bootstrap
from sambench.status import OK, summary

SMALL, LARGE = 32.0**2, 96.0**2  # COCO's bounds of `area` in pixels
IOU_COLUMN = {"argmax": "iou", "single": "iou_single", "oracle": "iou_oracle"}


def check_complete(results: pd.DataFrame, prompts: pd.DataFrame, where: str) -> None:
    """Every planned prompt exactly once.

    Raises InputError that counts what is missing, doubled or not planned.
    """
    keys = ["annotation_id", "prompt"]
    counts = results.groupby(keys).size()
    planned = pd.MultiIndex.from_frame(prompts[keys])
    missing, unplanned = planned.difference(counts.index), counts.index.difference(planned)
    doubled = int((counts > 1).sum())
    if len(missing) or len(unplanned) or doubled:
        raise InputError(
            where,
            expected=f"each of {len(planned)} planned prompts once",
            found=f"{len(missing)} missing, {doubled} more than once, {len(unplanned)} not planned",
            remedy="delete the shards of this job and run again",
        )


def accuracy(job: Job, results: pd.DataFrame, selections: Sequence[str], *, resamples: int, seed: int) -> pd.DataFrame:
    """The mean IoU of every prompt type and selection rule of one job, in per cent.

    results: columns of schemas.SEGANY. Sizes follow the annotation's area with half-open bounds, [0, 32²), [32², 96²)
    and [96², ∞); the code of EfficientViT-SAM counts an instance that lies on a bound twice. Rows whose status is
    not `ok` are left out of the means, and the status of the line says how many they are.
    """
    lines = []
    for prompt, rows in results.groupby("prompt", sort=False):
        scored = rows[rows["status"] == OK]
        for selection in selections:
            line = {
                "dataset": job.dataset,
                "variant": job.variant,
                "runtime": job.runtime,
                "prompt": prompt,
                "selection": selection,
                "instances": len(scored),
                "crowd": int(scored["iscrowd"].sum()),
                "images": scored["image_id"].nunique(),
                "status": status_of(rows["status"]),
            }
            lines.append(line | _means(scored, IOU_COLUMN[selection], resamples, seed))
    return pd.DataFrame(lines, columns=ACCURACY.names)


def _means(scored: pd.DataFrame, column: str, resamples: int, seed: int) -> dict[str, float]:
    if scored.empty:
        return {}
    iou, area = 100 * scored[column], scored["area"]
    low, high = clustered_bootstrap(iou.to_numpy(), scored["image_id"].to_numpy(), resamples=resamples, seed=seed)
    return {
        "miou": iou.mean(),
        "miou_low": low,
        "miou_high": high,
        "miou_small": iou[area < SMALL].mean(),
        "miou_medium": iou[(area >= SMALL) & (area < LARGE)].mean(),
        "miou_large": iou[area >= LARGE].mean(),
    }


def status_of(statuses: pd.Series) -> str:
    """The status of a line that is made of many rows."""
    return summary(statuses.value_counts().to_dict())


def split_by_prompt(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of box prompts go into the table `boxes`, all others into `points`."""
    is_box = table["prompt"].str.endswith("box")
    return {"boxes": table[is_box].reset_index(drop=True), "points": table[~is_box].reset_index(drop=True)}


def write_table(
    folder: Path,
    name: str,
    table: pd.DataFrame,
    schema: pa.Schema,
    provenance: Mapping[str, str],
    decimals: Mapping[str, int] | None = None,
) -> None:
    """Write a table as Parquet (the truth), CSV, Markdown and LaTeX; `decimals` are those of `presentable`."""
    write_parquet(folder / f"{name}.parquet", table, schema, provenance)
    write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    shown = presentable(table, decimals)
    write_text(folder / f"{name}.md", shown.to_markdown(index=False, disable_numparse=True) + "\n")
    write_text(folder / f"{name}.tex", shown.to_latex(index=False, escape=True))


def presentable(table: pd.DataFrame, decimals: Mapping[str, int] | None = None) -> pd.DataFrame:
    """A table for people: one decimal or as many as `decimals` says of a column, interval in one column, a dash and the
    status where there is no number, digests cut short, and no columns of AP that are empty throughout."""
    shown = table.copy()
    if "ap" in table and table["ap"].notna().any():  # AP by frequency is LVIS's, and a size may not occur
        shown = shown.drop(columns=[name for name in table if name.startswith("ap_") and table[name].isna().all()])
    for name in (name for name in shown if name.endswith("_sha256")):
        shown[name] = shown[name].str[:12]
    floats = [name for name in shown.columns if pd.api.types.is_float_dtype(table[name])]
    for name in floats:
        digits = (decimals or {}).get(name, 1)
        shown[name] = [f"{value:.{digits}f}" if pd.notna(value) else "–" for value in table[name]]
    shown = shown.astype(object).where(shown.notna(), "–")
    if {"miou_low", "miou_high"} <= set(shown.columns):
        pairs = zip(shown["miou_low"], shown["miou_high"], strict=True)
        interval = ["–" if "–" in pair else f"{pair[0]} to {pair[1]}" for pair in pairs]
        shown.insert(shown.columns.get_loc("miou") + 1, "95 % interval", interval)
        shown = shown.drop(columns=["miou_low", "miou_high"])
        missing = table["miou"].isna()
        shown.loc[missing, "miou"] = table.loc[missing, "status"]
    return shown


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """The headline of an accuracy table: one line a variant, one column a prompt set, by `argmax`.

    table: the columns of schemas.ACCURACY, whose mIoU it shows, or of schemas.INSTANCE_SEGMENTATION, whose AP it
    shows; a status where there is no number.
    """
    column, value = ("prompt", "miou") if "miou" in table else ("detector", "ap")
    lines = table[table["selection"] == "argmax"].copy()
    lines["cell"] = [
        f"{number:.1f}" if pd.notna(number) else status
        for number, status in zip(lines[value], lines["status"], strict=True)
    ]
    keys = ["dataset", "variant", "runtime"]
    wide = lines.pivot(index=keys, columns=column, values="cell")
    ordered = wide.reindex(
        index=pd.MultiIndex.from_frame(lines[keys].drop_duplicates()), columns=lines[column].unique()
    )
    return ordered.rename_axis(columns=None).reset_index()


def overview_page(tables: Mapping[str, pd.DataFrame]) -> str:
    """The overviews of several accuracy tables as Markdown, under headings; empty tables are left out."""
    parts = ["mIoU, %, of the mask with the highest predicted IoU (argmax)"]
    for name, table in tables.items():
        if not table.empty:
            parts += [f"**{name}**", overview(table).to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def concat(tables: Iterable[pd.DataFrame], schema: pa.Schema) -> pd.DataFrame:
    """Stack tables that may be empty, keeping the columns of the schema."""
    filled = [table for table in tables if not table.empty]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=schema.names)


PANDAS_TYPES = {pa.int32(): "Int32", pa.int64(): "Int64", pa.float64(): "float64", pa.bool_(): "boolean"}


def typed(lines: Iterable[Mapping[str, object]], schema: pa.Schema) -> pd.DataFrame:
    """Lines as a table with the types of the schema: a number that is missing makes no other one a float."""
    types = {field.name: PANDAS_TYPES.get(field.type, "object") for field in schema}
    return pd.DataFrame(list(lines), columns=schema.names).astype(types)
