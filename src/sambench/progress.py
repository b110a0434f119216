"""Progress with the time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
LOG_INTERVAL = 10.0  # seconds between two lines of a log


def track(items: Iterable[T], total: int, title: str, done: int = 0) -> Iterator[T]:
    """Yield the items and say on stderr how far the work is and how long it will still take.

    done: of `total`, what is there already and not among the items.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)
        return
    start = said = time.monotonic()
    for count, item in enumerate(items, done + 1):
        yield item
        now = time.monotonic()
        if now - said >= LOG_INTERVAL or (count == total and said > start):
            left = (now - start) / (count - done) * (total - count)
            print(
                f"{title}: {count}/{total}, {_clock(now - start)} elapsed, {_clock(left)} left",
                file=sys.stderr,
                flush=True,
            )
            said = now


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
