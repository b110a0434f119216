"""How long the statistics of a large study take: paired differences, their correction, and ranks, on COCO's counts.

    python benchmarks/bootstrap.py [--instances 36781 --images 4952 --variants 20 --resamples 2000]

The numbers are random; only the time is of interest.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sambench.results.statistics import Resampling, ranks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("instances", 36_781), ("images", 4_952), ("variants", 20), ("resamples", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    images = np.sort(random.integers(given.images, size=given.instances))
    iou = random.random((given.instances, given.variants))
    start = time.perf_counter()
    draws = Resampling(images, resamples=given.resamples, seed=0)
    found = draws.means(iou, images)
    print(f"means and intervals        {time.perf_counter() - start:6.2f} s")
    found.interval()
    differences = draws.means(iou[:, 1:] - iou[:, :1], images)
    differences.interval(), differences.simultaneous()
    print(f"+ differences, corrected   {time.perf_counter() - start:6.2f} s")
    ranks(found)
    print(f"+ ranks, of all pairs      {time.perf_counter() - start:6.2f} s")


if __name__ == "__main__":
    main()
