"""What the values of records can be: a table that breaks a rule was not made by its stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sambench import records, status

INFINITE = float("inf")
STATUSES = frozenset(value for name, value in vars(status).items() if name.isupper() and isinstance(value, str))
# field, expected, found
Finding = tuple[str, str, str]


@dataclass(frozen=True)
class Rules:
    """The rules of one schema; numbers are finite in any case, and a NaN is none.

    key: columns that name a row, each combination once. needed: columns without nulls. within: bounds of numbers, of
    lists for each of their entries. scored: columns with a value exactly where the status is `ok`. also_scored: those
    with a value nowhere else. words: whether the status is one of status.py in each row. more: what no bound expresses.
    """

    key: Sequence[str] = ()
    needed: Sequence[str] = ()
    within: dict[str, tuple[float, float]] = field(default_factory=dict)
    scored: Sequence[str] = ()
    also_scored: Sequence[str] = ()
    words: bool = True
    more: Callable[[pa.Table], Finding | None] | None = None


def impossible(table: pa.Table, schema: pa.Schema) -> Finding | None:
    """What is wrong with the values of a table: the field, what is expected there and what was found; None if nothing.

    Schemas of no stage, such as those of tables for people, have no rules.
    """
    rules = next((rules for known, rules in RULES if known == schema), None)
    if rules is None or not table.num_rows:
        return None
    for name in rules.needed:
        if table[name].null_count:
            return name, "a value in every row", f"{table[name].null_count} rows without"
    return (
        _numbers(table, rules)
        or _statuses(table, rules)
        or (repeated(table, rules.key) if rules.key else None)
        or (rules.more(table) if rules.more else None)
    )


def _numbers(table: pa.Table, rules: Rules) -> Finding | None:
    for column in table.schema:
        values, kind = table[column.name], column.type
        if pa.types.is_list(kind):
            values, kind = pc.list_flatten(values), kind.value_type
        low, high = rules.within.get(column.name, (-INFINITE, INFINITE))
        if not pa.types.is_floating(kind) and (low, high) == (-INFINITE, INFINITE):
            continue
        numbers = values.drop_null().to_numpy()
        good = (numbers >= low) & (numbers <= high)  # NaN compares false
        if pa.types.is_floating(kind):
            good &= np.isfinite(numbers)
        if not good.all():
            return column.name, _bounds(low, high), f"{numbers[~good][0]} in {np.count_nonzero(~good)} places"
    return None


def _bounds(low: float, high: float) -> str:
    if high == INFINITE:
        return "finite numbers" if low == -INFINITE else f"finite numbers of at least {low:g}"
    return f"numbers from {low:g} to {high:g}"


def _statuses(table: pa.Table, rules: Rules) -> Finding | None:
    if "status" not in table.schema.names:
        return None
    if table["status"].null_count:
        return "status", "a status in every row", f"{table['status'].null_count} rows without"
    if not rules.words:
        return None
    for word in pc.unique(table["status"]).to_pylist():
        if word not in STATUSES:
            return "status", "a word of docs/configuration.md", repr(word)[:60]
    ok = pc.equal(table["status"], status.OK).to_numpy()
    for name in (*rules.scored, *rules.also_scored):
        there = table[name].is_valid().to_numpy()
        if (wrong := there & ~ok).any():
            return name, "no value where the status is not ok", f"{np.count_nonzero(wrong)} of them"
        if name in rules.scored and (wrong := ok & ~there).any():
            return name, "a value where the status is ok", f"{np.count_nonzero(wrong)} rows without"
    return None


def key_of(schema: pa.Schema) -> Sequence[str]:
    """The columns that name a row of a schema; none where nothing does."""
    return next((rules.key for known, rules in RULES if known == schema), ())


def repeated(table: pa.Table, key: Sequence[str]) -> Finding | None:
    """What is wrong with a table of which each combination of `key` may be there once."""
    distinct = table.select(list(key)).group_by(list(key)).aggregate([]).num_rows
    if distinct != table.num_rows:
        return ", ".join(key), "each once", f"{table.num_rows - distinct} repetitions"
    return None


def _lengths(table: pa.Table, name: str) -> np.ndarray:
    """(N,) the lengths of lists, 0 for null."""
    return np.asarray(pc.fill_null(pc.list_value_length(table[name]), 0))


def _wrong_lengths(table: pa.Table, **lengths: int) -> Finding | None:
    for name, length in lengths.items():
        found = _lengths(table, name)
        wrong = (found != length) & table[name].is_valid().to_numpy()
        if wrong.any():
            return name, f"{length} numbers", f"{found[wrong][0]}"
    return None


def _prompts(table: pa.Table) -> Finding | None:
    if finding := _wrong_lengths(table, box=4):
        return finding
    points, labels = _lengths(table, "points"), _lengths(table, "labels")
    if (points != 2 * labels).any():
        return "labels", "one per point", "another number of them"
    if (~table["box"].is_valid().to_numpy() & (points == 0)).any():
        return "points", "points or a box in every row", "neither"
    corners = pc.list_flatten(table["box"]).to_numpy().reshape(-1, 4)
    if (corners[:, :2] > corners[:, 2:]).any():
        return "box", "x0, y0, x1, y1 with x0 <= x1 and y0 <= y1", "others"
    return None


def _oracle(table: pa.Table) -> Finding | None:
    """The best IoU of all tokens is at least that of any of them."""
    columns = {name: np.asarray(table[name].to_numpy(), float) for name in ("iou", "iou_single", "iou_oracle")}
    if ((columns["iou"] > columns["iou_oracle"]) | (columns["iou_single"] > columns["iou_oracle"])).any():
        return "iou_oracle", "at least the IoU of any token", "less"
    return None


def _matched(table: pa.Table) -> Finding | None:
    if finding := _wrong_lengths(table, matched_100=10, matched_1000=10):
        return finding
    for name in ("matched_100", "matched_1000"):
        there = table[name].is_valid()
        found = pc.list_flatten(table[name]).to_numpy().reshape(-1, 10)
        if (found > np.asarray(table["instances"].filter(there).fill_null(0))[:, None]).any():
            return name, "at most the instances of the image", "more"
    return None


NOT_NEGATIVE, SHARE, PER_CENT = (0.0, INFINITE), (0.0, 1.0), (0.0, 100.0)
_TIMES = {f"{name}_ms": NOT_NEGATIVE for name in ("detect", "encode", "decode", "postprocess", "total")}
_COUNTS = ("prompts", "candidates", "predicted_iou", "stability", "crop_edge", "nms", "masks", "instances")
_PRECISION = Rules(
    needed=("dataset", "detector", "images"),
    within=dict.fromkeys((*records.PRECISION_NAMES, "boundary_ap"), PER_CENT)
    | {"detections": NOT_NEGATIVE, "images": NOT_NEGATIVE},
    words=False,
)
RULES: list[tuple[pa.Schema, Rules]] = [
    (
        records.IMAGES,
        Rules(
            key=("image_id",),
            needed=("image_id", "path", "width", "height"),
            within={"width": (1, INFINITE), "height": (1, INFINITE)},
        ),
    ),
    (
        records.INSTANCES,
        Rules(
            key=("annotation_id",),
            needed=[name for name in records.INSTANCES.names if name != "frequency"],
            within=dict.fromkeys(("w", "h", "area"), NOT_NEGATIVE) | {"rle_size": (1, INFINITE)},
            more=lambda table: _wrong_lengths(table, rle_size=2),
        ),
    ),
    (
        records.PROMPTS,
        Rules(
            key=("annotation_id", "prompt"),
            needed=("annotation_id", "image_id", "prompt"),
            within={"labels": (-1, 1)},
            more=_prompts,
        ),
    ),
    (
        records.BOXES,
        Rules(needed=records.BOXES.names, within=dict.fromkeys("xywh", NOT_NEGATIVE)),
    ),
    (
        records.SEGANY,
        Rules(
            key=("annotation_id", "prompt"),
            needed=("annotation_id", "image_id", "category_id", "area", "iscrowd", "prompt"),
            within=dict.fromkeys(("iou", "iou_single", "iou_oracle", "boundary_iou"), SHARE) | {"area": NOT_NEGATIVE},
            scored=("iou", "selected_token"),
            also_scored=("iou_single", "iou_oracle", "boundary_iou", "predicted_iou"),
            more=_oracle,
        ),
    ),
    (
        records.MASKS,
        Rules(
            needed=("image_id", "category_id", "detector", "score", "selection"),
            within={"rle_size": (1, INFINITE)},
            scored=("rle_size", "rle_counts"),
            also_scored=("predicted_iou",),
            more=lambda table: _wrong_lengths(table, rle_size=2),
        ),
    ),
    (
        records.PICKS,
        Rules(
            key=("annotation_id", "prompt"),
            needed=("annotation_id", "image_id", "prompt", "reason", "rle_size", "rle_counts", "window", "picture"),
            within={"labels": (-1, 1), "rle_size": (1, INFINITE)},
            more=lambda table: _prompts(table) or _wrong_lengths(table, rle_size=2, window=4),
        ),
    ),
    (
        records.GALLERY,
        Rules(
            key=("annotation_id", "prompt"),
            needed=("annotation_id", "image_id", "prompt"),
            within={"iou": SHARE, "rle_size": (1, INFINITE)},
            scored=("iou", "rle_size", "rle_counts"),
            also_scored=("predicted_iou",),
            more=lambda table: _wrong_lengths(table, rle_size=2),
        ),
    ),
    (records.AVERAGE_PRECISION_BOXES, _PRECISION),
    (records.AVERAGE_PRECISION_MASKS, _PRECISION),
    (
        records.SEGEVERY,
        Rules(
            key=("image_id",),
            needed=("image_id",),
            within=_TIMES | dict.fromkeys((*_COUNTS, "matched_100", "matched_1000", "peak_memory_mib"), NOT_NEGATIVE),
            more=_matched,
        ),
    ),
    (
        records.SEGEVERY_MASKS,
        Rules(
            needed=("image_id", "x", "y", "w", "h", "area", "rle_size", "rle_counts"),
            within=dict.fromkeys(("w", "h", "area"), NOT_NEGATIVE) | {"rle_size": (1, INFINITE)},
            more=lambda table: _wrong_lengths(table, rle_size=2),
        ),
    ),
    (
        records.EFFICIENCY,
        Rules(
            needed=("variant",),
            within=dict.fromkeys(("parameters", "flops", "macs", "products", "checkpoint_bytes"), NOT_NEGATIVE),
        ),
    ),
    (
        records.LATENCY,
        Rules(
            within=dict.fromkeys(("pass", "prepare_ms", "encode_ms", "decode_ms", "upsample_ms"), NOT_NEGATIVE)
            | dict.fromkeys(("peak_memory_mib", "requested_mib"), NOT_NEGATIVE),
            scored=("encode_ms", "decode_ms"),
        ),
    ),
    (
        records.THROUGHPUT,
        Rules(
            within=dict.fromkeys(("encode_seconds", "wait_seconds", "peak_memory_mib", "boxes"), NOT_NEGATIVE)
            | {"batch": (1, INFINITE), "images": (1, INFINITE), "seconds": (1e-9, INFINITE)},
            scored=("images", "seconds"),
        ),
    ),
    (
        records.ENERGY,
        Rules(
            within=dict.fromkeys(("boxes", "joules", "idle_watts", "mhz", "mhz_low"), NOT_NEGATIVE)
            | {"batch": (1, INFINITE), "images": (1, INFINITE), "seconds": (1e-9, INFINITE)},
            scored=("joules", "idle_watts"),
        ),
    ),
    (records.AGREEMENT, Rules(within={"iou": SHARE, "area": SHARE}, scored=("iou",))),
    (
        records.INTERACTIVE,
        Rules(
            key=("annotation_id", "protocol"),
            within={"iou": SHARE, "seconds": NOT_NEGATIVE, "area": NOT_NEGATIVE, "first": (0, 1)},
            scored=("iou", "seconds"),
        ),
    ),
    (
        records.CORRUPTIONS,
        Rules(
            key=("annotation_id", "prompt", "corruption", "level"),
            within={"iou": SHARE, "area": NOT_NEGATIVE, "level": NOT_NEGATIVE},
            scored=("iou",),
        ),
    ),
]


def strange_boxes(boxes: pd.DataFrame, images: pd.DataFrame) -> Finding | None:
    """What is wrong with a detector's boxes (columns of records.BOXES) of these images (records.IMAGES)."""
    position = pd.Index(images["image_id"]).get_indexer(boxes["image_id"])
    if (position < 0).any():
        return "image_id", "images of the dataset", str(boxes["image_id"].iloc[int((position < 0).argmax())])
    for start, length, side in (("x", "w", "width"), ("y", "h", "height")):
        limit = images[side].to_numpy()[position]
        over = (boxes[start] + boxes[length]).to_numpy() > limit * (1 + 1e-9)
        if over.any():
            return length, "boxes inside their images", f"{np.count_nonzero(over)} that are not"
    return None


def strange_masks(
    masks: pd.DataFrame, boxes: Mapping[str, pd.DataFrame], images: pd.DataFrame, selections: Iterable[str]
) -> Finding | None:
    """What is wrong with the masks of one shard (columns of records.MASKS): each box must be there once per rule.

    boxes: by detector, those of the shard. images: those of the shard.
    """
    sizes = images.set_index("image_id")[["height", "width"]]
    expected = 0
    for detector, found in boxes.items():
        for rule in selections:
            rows = masks[(masks["detector"] == detector) & (masks["selection"] == rule)]
            expected += len(found)
            for name in ("image_id", "category_id", "score"):
                if not np.array_equal(rows[name].to_numpy(), found[name].to_numpy()):
                    return name, f"the {len(found)} boxes of {detector}, each once", f"{len(rows)} rows, not the same"
    if len(masks) != expected:
        return "detector", f"{expected} masks", str(len(masks))
    there = masks[masks["rle_size"].notna()]
    if len(there):
        found_sizes = np.stack(there["rle_size"].to_list())
        if not np.array_equal(found_sizes, sizes.loc[there["image_id"]].to_numpy()):
            return "rle_size", "the height and width of each image", "others"
    return None
