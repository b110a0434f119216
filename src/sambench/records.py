"""The columns of every Parquet file that a stage writes; those of a table stand in its module in results/tables/."""

from __future__ import annotations

import pyarrow as pa

_rle = [pa.field("rle_size", pa.list_(pa.int32())), pa.field("rle_counts", pa.binary())]

# orientation, scaling: how the file is read, see sambench.datasets.pictures.View. identity: of the file as it was
# indexed, see sambench.datasets.identity.
IMAGES = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("path", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("judged_category_ids", pa.list_(pa.int64())),
        pa.field("orientation", pa.int8()),
        pa.field("scaling", pa.string()),
        pa.field("identity", pa.string()),
    ]
)
# What the index notes about a dataset, one row per note. kind: `count`, `left out`, `completed` or `warning`; count:
# how many images, instances or values it is about.
NOTES = pa.schema(
    [
        pa.field("kind", pa.string()),
        pa.field("note", pa.string()),
        pa.field("count", pa.int64()),
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
# points: x0, y0, x1, y1, ...; labels: one per point; box: x0, y0, x1, y1. Null where the prompt has none.
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
# iou and boundary_iou follow the argmax rule; what was not asked for, or a row whose status is not ok, is null.
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
        pa.field("boundary_iou", pa.float64()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("selected_token", pa.int8()),
        pa.field("status", pa.string()),
    ]
)
# The masks of detector boxes, one row per box and selection rule; category and score are the detector's. Without a mask
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
PRECISION = [
    *[pa.field(n, pa.float64()) for n in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")],
    *[pa.field(n, pa.float64()) for n in ("ap_rare", "ap_common", "ap_frequent")],
]
PRECISION_NAMES = [field.name for field in PRECISION]
OF_PRECISION = [
    *[pa.field(n, pa.int64()) for n in ("detections", "images")],
    *[pa.field(n, pa.string()) for n in ("rules", "boxes_sha256", "status")],
]
# AP of the boxes of detectors in per cent, by the rules of COCO or LVIS (the latter with AP by frequency).
AVERAGE_PRECISION_BOXES = pa.schema(
    [*[pa.field(n, pa.string()) for n in ("dataset", "detector")], *PRECISION, *OF_PRECISION]
)
# The same of the masks that one variant gives for these boxes, and their boundary AP (COCO's rules only).
AVERAGE_PRECISION_MASKS = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("dataset", "detector", "selection")],
        *PRECISION,
        pa.field("boundary_ap", pa.float64()),
        *OF_PRECISION,
    ],
)
# Segment everything, one row per image, in a file of quality or of time: what the other one measures is null.
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
SEGEVERY_MASKS = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("score", pa.float64()),
        *[pa.field(n, pa.float32()) for n in ("predicted_iou", "stability")],
        *[pa.field(n, pa.int32()) for n in ("x", "y", "w", "h")],
        pa.field("area", pa.int64()),
        *_rle,
    ]
)
# What one variant costs, one row a part; where nothing could be counted a single row without a part says why.
# flops, macs: by calflops. products: FLOPs of products and convolutions by torch. unseen: JSON, those of them that
# calflops does not see, by function.
EFFICIENCY = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("variant", "part")],
        *[pa.field(n, pa.int64()) for n in ("parameters", "flops", "macs", "products", "checkpoint_bytes")],
        *[pa.field(n, pa.string()) for n in ("unseen", "status")],
    ]
)
# Times of one variant and runtime, one row per image and pass; decode_ms and upsample_ms have one number per box.
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
# Images per second, one row per batch size. images, boxes: done in `seconds`, of which encode_seconds for the image
# encoder and wait_seconds into waiting for images. requested_mib: as in LATENCY, or the estimate that kept a batch from
# being tried.
THROUGHPUT = pa.schema(
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
# Energy, one row per part of the machine (gpu, cpu). joules: what its meter counted in `seconds`; idle_watts: its power
# before. mhz: mean of the clock, mhz_low its lowest; throttled: why it was held down, empty if it was not.
ENERGY = pa.schema(
    [
        *[pa.field(n, pa.string()) for n in ("part", "meter")],
        pa.field("batch", pa.int32()),
        *[pa.field(n, pa.int64()) for n in ("images", "boxes")],
        *[pa.field(n, pa.float64()) for n in ("seconds", "joules", "idle_watts", "mhz", "mhz_low")],
        *[pa.field(n, pa.string()) for n in ("throttled", "status")],
    ]
)
# Interactive segmentation, one row per instance and protocol: the IoU of the answer to `first` clicks, to one more, and
# so on, and the seconds of each answer. A single row without a protocol says why there is nothing.
INTERACTIVE = pa.schema(
    [
        *[pa.field(n, pa.int64()) for n in ("annotation_id", "image_id")],
        pa.field("area", pa.float64()),
        pa.field("iscrowd", pa.bool_()),
        pa.field("protocol", pa.string()),
        pa.field("first", pa.int32()),
        *[pa.field(n, pa.list_(pa.float64())) for n in ("iou", "seconds")],
        pa.field("status", pa.string()),
    ]
)
# Prompts on changed images, one row per instance, prompt type, change and level (severity, JPEG quality or factor of
# scale); `clean` at level 0 is the image as it is. A single row without a change says why there is nothing.
CORRUPTIONS = pa.schema(
    [
        *[pa.field(n, pa.int64()) for n in ("annotation_id", "image_id")],
        pa.field("area", pa.float64()),
        pa.field("iscrowd", pa.bool_()),
        *[pa.field(n, pa.string()) for n in ("prompt", "corruption")],
        *[pa.field(n, pa.float64()) for n in ("level", "iou")],
        pa.field("status", pa.string()),
    ]
)
# Clicks in volumes, one row per volume and label: voxels of the label, its share inside of the cube, and after each
# click Dice and IoU there; seconds of each answer, of which there are fewer than clicks once nothing is wrong. A single
# row without a volume says why there is nothing.
VOLUMES = pa.schema(
    [
        pa.field("volume", pa.string()),
        *[pa.field(n, pa.int64()) for n in ("label", "voxels")],
        pa.field("covered", pa.float64()),
        *[pa.field(n, pa.list_(pa.float64())) for n in ("dice", "iou", "seconds")],
        *[pa.field(n, pa.float64()) for n in ("encode_seconds", "peak_memory_mib")],
        pa.field("status", pa.string()),
    ]
)
# A runtime against eager float32, one row per image and box: the IoU of the two masks of the token that eager chooses,
# its share of the image's area, and whether the runtime chooses that token too.
AGREEMENT = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("box", pa.int32()),
        pa.field("iou", pa.float64()),
        pa.field("area", pa.float64()),
        pa.field("same_token", pa.bool_()),
        pa.field("status", pa.string()),
    ]
)
# Instances that a gallery shows, each with one prompt set of PROMPTS. rle_size, rle_counts: the ground truth. reason:
# why it was picked, in words. window: x0, y0, x1, y1, the part of the image in `picture`, a JPEG.
PICKS = pa.schema(
    [
        pa.field("annotation_id", pa.int64()),
        pa.field("image_id", pa.int64()),
        pa.field("category", pa.string()),
        pa.field("area", pa.float64()),
        pa.field("prompt", pa.string()),
        pa.field("points", pa.list_(pa.float32())),
        pa.field("labels", pa.list_(pa.int8())),
        pa.field("box", pa.list_(pa.float32())),
        *_rle,
        pa.field("reason", pa.string()),
        pa.field("window", pa.list_(pa.int32())),
        pa.field("picture", pa.binary()),
    ]
)
# The mask that one variant gives for each pick by the rule argmax.
GALLERY = pa.schema(
    [
        pa.field("annotation_id", pa.int64()),
        pa.field("image_id", pa.int64()),
        pa.field("prompt", pa.string()),
        pa.field("iou", pa.float64()),
        pa.field("predicted_iou", pa.float32()),
        *_rle,
        pa.field("status", pa.string()),
    ]
)
