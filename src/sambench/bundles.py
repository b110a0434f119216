"""Jobs that go to a cluster as one: they run one after the other, and each is judged by itself.

A job with a clock takes a whole node. The clocks of a variant on a data set pay for the wait in the queue and for the
emptying of a node once. They are no group of Snakemake's, which fails as a whole (docs/decisions-workflow.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
RESOURCE = "bundle"  # of a job: the name of its bundle; jobs without, or with an empty one, go alone


def bundles(jobs: Iterable[T], name: Callable[[T], str], minutes: Callable[[T], int], longest: int) -> list[list[T]]:
    """Jobs with the same name, as many together as their limits allow; those with an empty name alone.

    minutes: the time limit of a job. longest: that of a bundle, unless one job has more.
    """
    made: list[list[T]] = []
    last: dict[str, list[T]] = {}
    left: dict[str, int] = {}
    for job in jobs:
        key, limit = name(job), minutes(job)
        if key and limit <= left.get(key, 0):
            last[key].append(job)
            left[key] -= limit
        else:
            made.append([job])
            last[key], left[key] = made[-1], longest - limit
    return made
