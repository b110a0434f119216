"""Freed memory stays with the process, and goes back when asked; each in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")

SCRIPT = """
import re, resource, sys
import numpy as np
from sambench.allocator import keep_freed_memory, return_freed_memory

def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident(): return int(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024

if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(2**23)
before = faults()
for _ in range(5):
    np.ones(2**23)  # 64 MiB
print(faults() - before)
kept = resident()
return_freed_memory()
print(kept - resident())
"""


def run(mode: str) -> tuple[float, float]:
    """Page faults of five blocks, one after the other, and MiB that went back in the end."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    faults, returned = done.stdout.split()
    return float(faults), float(returned)


def test_a_block_is_mapped_once_and_goes_back_when_asked() -> None:
    usual, _ = run("give back")
    kept, returned = run("keep")
    assert kept < usual / 10
    assert returned > 32
