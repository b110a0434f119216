"""The record of the machine behind a timing, and whether anything else was running on it."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sambench.provenance import cpu_name

BUSY_SHARE = 0.05  # of all cores: with more in use by others, a timing is marked as one of a busy machine


def record(device: torch.device) -> dict[str, Any]:
    """What one needs to know of the machine to compare a timing: hardware, frequency policy, libraries, threads."""
    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_features": cpu_features(),
        "frequency_policy": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": os.uname().release,
        "libc": " ".join(platform.libc_ver()),  # with glibc freed memory is kept (allocator.py)
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "gpu_driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def cpu_features() -> list[str]:
    """The features of the processor that decide how fast bfloat16 is."""
    flags = _read("/proc/cpuinfo").partition("flags")[2].partition("\n")[0].split()
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags]


def _driver() -> str:
    """The version of NVIDIA's kernel module."""
    words = _read("/proc/driver/nvidia/version").split()
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class CpuClock:
    """A moment: wall seconds, CPU seconds of the whole machine since it started, and of this process and its children.

    machine is NaN where the system does not say it.
    """

    wall: float
    machine: float
    own: float

    @classmethod
    def now(cls) -> CpuClock:
        fields = _read("/proc/stat").partition("\n")[0].split()
        # user, nice, system, idle, iowait, irq, softirq, steal: what is neither idle nor waiting is in use, stolen too
        ticks = [int(field) for field in fields[1:9]]
        used = sum(ticks) - ticks[3] - ticks[4] if len(ticks) == 8 else float("nan")
        return cls(time.perf_counter(), used / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]))

    def others(self, later: CpuClock) -> float:
        """Cores that everything else kept busy on average between this moment and a later one."""
        elapsed = max(later.wall - self.wall, 1e-9)
        return max(0.0, (later.machine - self.machine - (later.own - self.own)) / elapsed)


def sample_others(seconds: float = 1.0) -> float:
    """Cores that others keep busy right now."""
    before = CpuClock.now()
    time.sleep(seconds)
    return before.others(CpuClock.now())


def is_busy(others: float) -> bool:
    """Whether so many cores in use by others spoil a timing."""
    return others > BUSY_SHARE * (os.cpu_count() or 1)
