"""The columns of every Parquet file that sambench writes, and the one way to write and read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sambench.errors import InputError
from sambench.files import atomic

SCHEMA_VERSION = "1"
PREFIX = b"sambench."

_rle = [pa.field("rle_size", pa.list_(pa.int32())), pa.field("rle_counts", pa.binary())]

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("path", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
)
# x, y, w, h: the annotation box in pixels of the image, COCO's convention. rle_size: height, width. frequency: of the
# category in LVIS, r(are), c(ommon) or f(requent); null elsewhere.
INSTANCES = pa.schema(
    [
        pa.field("annotation_id", pa.int64()),
        pa.field("image_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        *[pa.field(name, pa.float64()) for name in ("x", "y", "w", "h", "area")],
        pa.field("iscrowd", pa.bool_()),
        *_rle,
        pa.field("frequency", pa.string()),
    ]
)
# points: x0, y0, x1, y1, ...; labels: one a point; box: x0, y0, x1, y1. Null where the prompt has none.
PROMPTS = pa.schema(
    [
        pa.field("annotation_id", pa.int64()),
        pa.field("image_id", pa.int64()),
        pa.field("prompt", pa.string()),
        pa.field("points", pa.list_(pa.float32())),
        pa.field("labels", pa.list_(pa.int8())),
        pa.field("box", pa.list_(pa.float32())),
    ]
)
# The boxes of a detector, best first in each image: category_id of the dataset; x, y, w, h in pixels, inside the image.
# Why there are none, such as `no weights`, is the `status` of the file's provenance.
BOXES = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        *[pa.field(name, pa.float64()) for name in ("x", "y", "w", "h", "score")],
    ]
)
# iou follows the argmax rule; a rule that was not asked for, or a row whose status is not ok, is null.
SEGANY = pa.schema(
    [
        pa.field("annotation_id", pa.int64()),
        pa.field("image_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        pa.field("area", pa.float64()),
        pa.field("iscrowd", pa.bool_()),
        pa.field("prompt", pa.string()),
        pa.field("iou", pa.float64()),
        pa.field("iou_single", pa.float64()),
        pa.field("iou_oracle", pa.float64()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("selected_token", pa.int8()),
        pa.field("status", pa.string()),
    ]
)
# The masks of detector boxes, one row a box and selection rule; category and score are the detector's. Without a mask
# where the status is not ok.
MASKS = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        pa.field("detector", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("selection", pa.string()),
        pa.field("predicted_iou", pa.float32()),
        *_rle,
        pa.field("status", pa.string()),
    ]
)
_AP = [
    *[pa.field(n, pa.float64()) for n in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")],
    *[pa.field(n, pa.float64()) for n in ("ap_rare", "ap_common", "ap_frequent")],
]
_AP_OF = [
    *[pa.field(n, pa.int64()) for n in ("detections", "images")],
    *[pa.field(n, pa.string()) for n in ("rules", "boxes_sha256", "status")],
]
# The table `detectors`: AP of their boxes in per cent, by the rules of COCO or LVIS (the latter with AP by frequency).
DETECTORS = pa.schema([*[pa.field(n, pa.string()) for n in ("dataset", "detector")], *_AP, *_AP_OF])
# The same of the masks that one variant gives for these boxes.
MASK_PRECISION = pa.schema(
    [*[pa.field(n, pa.string()) for n in ("dataset", "detector", "selection")], *_AP, *_AP_OF],
)
# The table `instances`: these of all variants; box_ap: AP of the boxes themselves.
INSTANCE_SEGMENTATION = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "detector", "variant", "runtime", "selection")],
        *_AP,
        pa.field("box_ap", pa.float64()),
        *_AP_OF,
    ]
)
# The tables `points` and `boxes`: means in per cent over `instances` instances of `images` images.
ACCURACY = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "prompt", "selection")],
        *[
            pa.field(n, pa.float64())
            for n in ("miou", "miou_low", "miou_high", "miou_small", "miou_medium", "miou_large")
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "crowd", "images")],
        pa.field("status", pa.string()),
    ]
)

# Segment everything, one row an image, in a file of quality or of time: what the other one measures is null.
# predicted_iou to masks: masks left after each filter. matched_k: instances that the best k masks find, one number an
# IoU threshold 0.5, 0.55, ... 0.95.
SEGEVERY = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        *[
            pa.field(n, pa.int32())
            for n in ("prompts", "candidates", "predicted_iou", "stability", "crop_edge", "nms", "masks", "instances")
        ],
        *[pa.field(n, pa.list_(pa.int32())) for n in ("matched_100", "matched_1000")],
        *[pa.field(f"{n}_ms", pa.float64()) for n in ("detect", "encode", "decode", "postprocess", "total")],
        pa.field("peak_memory_mib", pa.float64()),
        pa.field("status", pa.string()),
    ]
)
# score: what masks are ranked by. x, y, w, h: the box around the mask in pixels, COCO's convention.
EVERYTHING_MASKS = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("score", pa.float64()),
        *[pa.field(n, pa.float32()) for n in ("predicted_iou", "stability")],
        *[pa.field(n, pa.int32()) for n in ("x", "y", "w", "h")],
        pa.field("area", pa.int64()),
        *_rle,
    ]
)
# The table `segevery`: times in ms an image (means, and median and p90 of the whole), counts an image, AR in per cent.
EVERYTHING = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "sampler")],
        *[
            pa.field(n, pa.float64())
            for n in (
                *("ms_per_image", "median_ms", "p90_ms", "detect_ms", "encode_ms", "decode_ms", "postprocess_ms"),
                *("peak_memory_mib", "prompts_per_image", "masks_per_image", "ar_100", "ar_1000"),
            )
        ],
        *[pa.field(n, pa.int64()) for n in ("instances", "images")],
        pa.field("status", pa.string()),
    ]
)

# What one variant costs, one row a part; where nothing could be counted a single row without a part says why.
# flops, macs: by calflops. products: FLOPs of products and convolutions by torch. unseen: JSON, those of them that
# calflops does not see, by function.
COST = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("variant", "part")],
        *[pa.field(n, pa.int64()) for n in ("parameters", "flops", "macs", "products", "checkpoint_bytes")],
        *[pa.field(n, pa.string()) for n in ("unseen", "status")],
    ]
)
# The table `efficiency`: params_m, flops_g and macs_g of the image path, params_official_m of the whole official model;
# eer and difference (of products_g against flops_g) in per cent; checkpoint_mb in 10^6 bytes.
EFFICIENCY = pa.schema(
    [
        pa.field("variant", pa.string()),
        *[pa.field(n, pa.float64()) for n in ("params_m", "flops_g", "macs_g", "eer")],
        pa.field("input_size", pa.int32()),
        *[pa.field(n, pa.float64()) for n in ("params_official_m", "checkpoint_mb", "products_g", "difference")],
        *[pa.field(n, pa.string()) for n in ("explanation", "status")],
    ]
)
# The table `efficiency_parts`: the same by part.
EFFICIENCY_PARTS = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("variant", "part")],
        *[pa.field(n, pa.float64()) for n in ("params_m", "flops_g", "macs_g", "products_g")],
    ]
)

# Times of one variant and runtime, one row an image and pass; decode_ms and upsample_ms have one number a box.
# requested_mib: what was asked for when memory ran out; peak_memory_mib then is what was in use before.
LATENCY = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("pass", pa.int32()),
        *[pa.field(n, pa.float64()) for n in ("prepare_ms", "encode_ms")],
        *[pa.field(n, pa.list_(pa.float64())) for n in ("decode_ms", "upsample_ms")],
        *[pa.field(n, pa.float64()) for n in ("peak_memory_mib", "requested_mib")],
        pa.field("status", pa.string()),
    ]
)
# The table `segany_time`, see results/latency_table.py. weights: checkpoint, random or none. first_ms: the first call,
# compilation included. others: cores that other processes kept busy meanwhile; busy: whether that spoils the timing.
SEGANY_TIME = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights")],
        pa.field("boxes", pa.int32()),
        *[
            pa.field(n, pa.float64())
            for n in (
                *("cumulative_ms", "cumulative_low", "cumulative_high", "segany_ms", "prepare_ms", "encode_ms"),
                *("decode_ms", "upsample_ms", "p50", "p90"),
            )
        ],
        pa.field("n", pa.int64()),
        *[pa.field(n, pa.float64()) for n in ("peak_memory_mib", "requested_mib", "first_ms", "throughput_img_s")],
        pa.field("best_batch", pa.int32()),
        pa.field("others", pa.float64()),
        pa.field("threads", pa.int32()),
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)

# Images a second, one row a batch size. images, boxes: done in `seconds`, of which encode_seconds went into the image
# encoder and wait_seconds into waiting for images. requested_mib: as in LATENCY, or the estimate that kept a batch from
# being tried.
THROUGHPUT_RUN = pa.schema(
    [
        pa.field("batch", pa.int32()),
        *[pa.field(n, pa.int64()) for n in ("images", "boxes")],
        *[
            pa.field(n, pa.float64())
            for n in ("seconds", "encode_seconds", "wait_seconds", "peak_memory_mib", "requested_mib")
        ],
        pa.field("status", pa.string()),
    ]
)
# The table `throughput`: encode_img_s counts the time of the encoder alone; data_wait in per cent of the time.
THROUGHPUT = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights")],
        pa.field("batch", pa.int32()),
        pa.field("best", pa.bool_()),
        *[
            pa.field(n, pa.float64())
            for n in ("throughput_img_s", "encode_img_s", "boxes_per_image", "data_wait", "seconds")
        ],
        pa.field("n", pa.int64()),
        *[pa.field(n, pa.float64()) for n in ("peak_memory_mib", "requested_mib", "others")],
        pa.field("threads", pa.int32()),
        pa.field("busy", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)

# A runtime against eager float32, one row an image and box: the IoU of the two masks of the token that eager chooses,
# its share of the image's area, and whether the runtime chooses that token too.
AGREEMENT_RUN = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("box", pa.int32()),
        pa.field("iou", pa.float64()),
        pa.field("area", pa.float64()),
        pa.field("same_token", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)
# The table `agreement`: mean and lowest IoU, same_token, and area (of the image that a mask covers) in per cent.
AGREEMENT = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "variant", "runtime", "device", "weights")],
        *[pa.field(n, pa.float64()) for n in ("miou", "miou_low", "miou_high", "lowest", "same_token", "area")],
        *[pa.field(n, pa.int64()) for n in ("prompts", "images")],
        pa.field("status", pa.string()),
    ]
)

# The table `reproduction`: a published figure beside ours, in the unit of our column `metric` of `table`. difference in
# per cent of the published value; explanation where it is above one; hardware that the published figure was taken on.
REPRODUCTION = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("table", "variant", "dataset", "setting", "metric")],
        *[pa.field(n, pa.float64()) for n in ("measured", "published", "difference")],
        *[pa.field(n, pa.string()) for n in ("explanation", "runtime", "device", "hardware", "source")],
    ]
)


# The tables by name.
TABLES = {
    "boxes": ACCURACY,
    "points": ACCURACY,
    "instances": INSTANCE_SEGMENTATION,
    "detectors": DETECTORS,
    "segevery": EVERYTHING,
    "efficiency": EFFICIENCY,
    "efficiency_parts": EFFICIENCY_PARTS,
    "segany_time": SEGANY_TIME,
    "throughput": THROUGHPUT,
    "agreement": AGREEMENT,
    "reproduction": REPRODUCTION,
}


def write_parquet(path: Path, frame: pd.DataFrame | pa.Table, schema: pa.Schema, provenance: Mapping[str, str]) -> None:
    """Write rows under a schema, with provenance in the file's metadata, to a temporary name first.

    Raises ValueError when a column is missing, unexpected or of another type: a bug, not the user's mistake.
    """
    if isinstance(frame, pd.DataFrame):
        extra, missing = set(frame.columns) - set(schema.names), set(schema.names) - set(frame.columns)
        if extra or missing:
            raise ValueError(f"{path.name}: missing columns {sorted(missing)}, unexpected {sorted(extra)}")
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    else:
        table = frame.select(schema.names).cast(schema)
    metadata = {PREFIX + b"schema_version": SCHEMA_VERSION.encode()}
    metadata |= {PREFIX + key.encode(): value.encode() for key, value in provenance.items()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a file that `write_parquet` made.

    Raises InputError when it is no such file or its columns are others.
    """
    try:
        table = pq.read_table(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(path, expected="a Parquet file of sambench", found=str(error).splitlines()[0]) from None
    if table.schema.remove_metadata() != schema:
        raise InputError(
            path,
            "columns",
            expected=", ".join(schema.names),
            found=", ".join(table.schema.names),
            remedy="delete the file and run again: it was written by another version",
        )
    return table


def read_provenance(path: Path) -> dict[str, str]:
    """What `write_parquet` was told about the origin of a file."""
    metadata = pq.read_schema(path).metadata or {}
    return {
        key.removeprefix(PREFIX).decode(): value.decode() for key, value in metadata.items() if key.startswith(PREFIX)
    }
