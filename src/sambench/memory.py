"""Memory: how much was in use at most, and one exception for all that say that there was too little."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sambench.allocator import return_freed_memory


class OutOfMemory(MemoryError):
    """The device or the host has too little memory, whatever exception said so; the message is the original one."""


@contextmanager
def memory_guard() -> Iterator[None]:
    """Turn every way in which torch and Python report exhausted memory into OutOfMemory; other errors pass through."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(str(error)) from error


def release_memory() -> None:
    """Give cached memory of a GPU back."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the memory of the device or of the host was exhausted."""
    # On a CPU torch has no exception of its own for it, only a message.
    on_cpu = "can't allocate memory" in str(error) or "not enough memory" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def requested_mib(error: BaseException) -> float | None:
    """How much the allocation that failed asked for, in MiB, where the message says so."""
    text = str(error)
    units = {"bytes": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10}
    found = re.search(r"allocate ([\d.]+) (bytes|KiB|MiB|GiB)", text)
    return float(found[1]) * units[found[2]] if found else None


def reset_peak(device: torch.device) -> None:
    """Let the peak start anew: of the GPU's memory, else of the process where Linux allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    return_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # then the peak is that of the process so far
        return


def peak_mib(device: torch.device) -> float:
    """The highest memory in use since `reset_peak`, MiB: allocated by torch on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        peak = None
    return (int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def total_mib(device: torch.device) -> float:
    """All memory of a GPU, or what a process may have on this host (by its control group too), MiB."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        group = "max"
    return min(host, host if group == "max" else int(group)) / 2**20
