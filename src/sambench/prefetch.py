"""Work done ahead of its consumer by threads, so that a device need not wait for the disk."""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
WORKERS = 3  # threads: reading and resizing an image take a fraction of an encoder's time


def prefetch(load: Callable[[T], R], items: Iterable[T], ahead: int = WORKERS) -> Generator[R, None, None]:
    """`load` of each item, in order; up to `ahead` items load while one is used.

    An error of `load` is raised at the turn of its item. Closing the generator discards what was not taken.
    """
    queue: collections.deque[Future[R]] = collections.deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for item in items:
                queue.append(pool.submit(load, item))
                if len(queue) > ahead:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()
