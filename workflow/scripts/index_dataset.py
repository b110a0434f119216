"""Index a COCO-format dataset: one table of images, one of instances."""

import sys
from pathlib import Path

from sambench.datasets import coco
from sambench.provenance import provenance
from sambench.results.schemas import IMAGES, INSTANCES, write_parquet
from sambench.script import run


def main(
    *,
    annotations: Path,
    images: Path,
    images_table: Path,
    instances_table: Path,
    image_limit: int | None = None,
) -> None:
    """Check a COCO-format annotation file and write its images and instances as Parquet.

    Parameters
    ----------
    annotations
        COCO-format JSON: polygons, uncompressed and compressed RLE are all valid
    images
        the folder that holds the image files
    images_table
        Parquet file to write: image_id, path, width, height
    instances_table
        Parquet file to write: one row an annotation, with its mask as RLE
    image_limit
        take only the first so many images by id
    """
    index = coco.index(annotations, images, image_limit=image_limit)
    origin = provenance([str(annotations), str(images), image_limit])
    write_parquet(instances_table, index.instances, INSTANCES, origin)
    write_parquet(images_table, index.images, IMAGES, origin)
    print(f"{annotations}: {len(index.images)} images, {len(index.instances)} instances", file=sys.stderr)
    for reason, count in index.counts.items():
        if count:
            print(f"{annotations}: {reason}: {count}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
