"""What becomes of freed memory on a CPU.

glibc takes every large block from the system and gives it back when it is freed, so each activation of a network is
mapped, filled with zeros page by page, and unmapped again: a third of the time of an image encoder and half of a mask
decoder, and more on a machine whose pages are slow.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


@cache
def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocations; whether the C library can (glibc)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # No block apart from the heap, and a heap that never shrinks: -1 is the largest size there is.
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> None:
    """Give what is free now back to the system, as before a measurement of memory."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
