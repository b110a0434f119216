"""Index a COCO-format dataset: one table of images, one of instances."""

import sys
from pathlib import Path

from sambench.datasets import coco
from sambench.parquet import inputs, write_parquet
from sambench.provenance import provenance
from sambench.records import IMAGES, INSTANCES
from sambench.script import run


def main(*, annotations: Path, folder: Path, images: Path, instances: Path, image_limit: int | None = None) -> None:
    """Check a COCO-format annotation file and write its images and instances as Parquet.

    annotations: polygons, uncompressed and compressed RLE are all valid. folder: of the image files. image_limit: only
    the first so many images by id.
    """
    index = coco.index(annotations, folder, image_limit=image_limit)
    origin = provenance([str(annotations), str(folder), image_limit]) | inputs(annotations=annotations)
    write_parquet(instances, index.instances, INSTANCES, origin)
    write_parquet(images, index.images, IMAGES, origin)
    print(f"{annotations}: {len(index.images)} images, {len(index.instances)} instances", file=sys.stderr)
    for reason, count in index.counts.items():
        if count:
            print(f"{annotations}: {reason}: {count}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
