"""How fast a file comes in and how long it will still take: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sambench.progress import LOG_INTERVAL


class Meter:
    """Counts bytes; the speed is that of this process alone, whatever earlier ones had fetched."""

    def __init__(self, title: str, progress: Progress | None) -> None:
        self._title, self._progress = title, progress
        self._task = None if progress is None else progress.add_task(title, total=None)
        self._started = self._said = time.monotonic()
        self._fetched = 0

    def begin(self, position: int, total: int | None) -> None:
        """A response starts at this byte of a file of `total` bytes, None when the server does not say."""
        self._position, self._total = position, total
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=position, total=total)

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self._position += count
        self._fetched += count
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)
        elif (now := time.monotonic()) - self._said >= LOG_INTERVAL:
            self._said = now
            print(self._line(now), file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        speed = self._fetched / (now - self._started)
        text = f"{self._title}: {self._position / 1e6:.1f}"
        if self._total is not None:
            text += f" of {self._total / 1e6:.1f}"
        text += f" MB, {speed / 1e6:.1f} MB/s"
        if self._total is not None and speed > 0:
            text += f", {timedelta(seconds=round((self._total - self._position) / speed))} left"
        return text


@contextmanager
def metered(title: str) -> Iterator[Meter]:
    """Show the progress of one file on stderr while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Meter(title, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Meter(title, progress)
