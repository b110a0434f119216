"""What a computation takes out of the socket, where the machine has a meter: joules, clock frequency, throttling.

NVIDIA's GPUs count in NVML (the module pynvml of nvidia-ml-py), Intel's and AMD's processors in RAPL, which Linux shows
as files below /sys/class/powercap. A meter that is not there reads clocks only, and says why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")
CPUS = Path("/sys/devices/system/cpu")
EVERY = 0.25  # seconds between readings: RAPL's counters begin again after minutes at the soonest


@dataclass(frozen=True)
class Reading:
    """One look at a meter.

    joules: since the meter was made, None where nothing counts them. mhz: of the clock now, None where it is not told.
    throttled: why the clock is held down now; for a CPU, that it was since the last reading.
    """

    joules: float | None = None
    mhz: float | None = None
    throttled: Sequence[str] = ()


class Meter(Protocol):
    """part: `cpu` or `gpu`. source: what counts, empty for nothing. missing: why nothing does."""

    part: str
    source: str
    missing: str

    def read(self) -> Reading:
        """A new reading."""


class Counter:
    """A counter that begins again at 0: joules since the first reading, as long as it is read once per round."""

    def __init__(self, energy: Path, limit: int) -> None:
        self.energy, self.limit = energy, limit
        self.last, self.total = self._now(), 0

    def _now(self) -> int:
        return int(self.energy.read_text(encoding="ascii"))

    def joules(self) -> float:
        now = self._now()
        self.total += now - self.last if now >= self.last else now - self.last + self.limit
        self.last = now
        return self.total / 1e6


class CpuMeter:
    """All processor packages and their memory, by RAPL; AMD's are called `intel-rapl` too.

    `psys` contains the packages, `core` and `uncore` are parts of them: these are left out. Since 2020 only root may
    read the counters, unless the administrator has changed that.
    """

    part = "cpu"

    def __init__(self, powercap: Path = POWERCAP, cpus: Path = CPUS) -> None:
        self.cpus, self.counters, names, self.missing = cpus, list[Counter](), list[str](), "no powercap here"
        for folder in sorted(powercap.glob("intel-rapl:*")):
            try:
                name = (folder / "name").read_text(encoding="ascii").strip()
                if not name.startswith(("package", "dram")):
                    continue
                limit = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
                self.counters.append(Counter(folder / "energy_uj", limit))
                names.append(name)
            except (OSError, ValueError) as error:
                self.missing = str(error)
        self.source = f"RAPL: {', '.join(names)}" if names else ""
        self._events = self._throttled()

    def read(self) -> Reading:
        joules = sum(counter.joules() for counter in self.counters) if self.counters else None
        events, self._events = self._events, self._throttled()
        return Reading(joules, self._mhz(), ("thermal",) if self._events > events else ())

    def _mhz(self) -> float | None:
        khz = [_number(file) for file in self.cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
        known = [value for value in khz if value]
        return sum(known) / len(known) / 1e3 if known else None

    def _throttled(self) -> int:
        """How often cores and packages have been held down since the machine started."""
        return sum(_number(file) or 0 for file in self.cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


# Bits of NVML that mean a clock is held down, and not that it has nothing to do or was set so.
GPU_REASONS: Mapping[int, str] = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal",
    0x40: "thermal",
    0x80: "power brake",
}


class GpuMeter:
    """The board of one GPU, by NVML. nvml: the module pynvml. uuid: of the GPU, as torch has it."""

    part = "gpu"

    def __init__(self, nvml: Any, uuid: str) -> None:
        self.nvml, self.source, self.missing = nvml, "", "no pynvml: pip install nvidia-ml-py"
        self.handle: Any = None
        self._integral, self._last = 0.0, (0.0, 0.0)
        if nvml is None:
            return
        try:
            nvml.nvmlInit()
            self.handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except nvml.NVMLError as error:
            self.missing = str(error)
            return
        for source, now in (("NVML: energy", self._counted), ("NVML: power", self._watts)):
            try:
                self._start = now()
            except nvml.NVMLError as error:
                self.missing = str(error)
                continue
            self.source, self._last = source, (time.perf_counter(), self._start)
            return

    def _counted(self) -> float:
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1e3

    def _watts(self) -> float:
        return float(self.nvml.nvmlDeviceGetPowerUsage(self.handle)) / 1e3

    def read(self) -> Reading:
        if self.handle is None:
            return Reading()
        mhz = self._asked("nvmlDeviceGetClockInfo", getattr(self.nvml, "NVML_CLOCK_SM", 1))
        bits = self._asked("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        reasons = dict.fromkeys(word for bit, word in GPU_REASONS.items() if bits & bit)
        return Reading(self._joules(), None if mhz is None else float(mhz), tuple(reasons))

    def _asked(self, function: str, *arguments: Any) -> int | None:
        try:
            return int(getattr(self.nvml, function)(self.handle, *arguments))
        except self.nvml.NVMLError:
            return None

    def _joules(self) -> float | None:
        if not self.source:
            return None
        if self.source == "NVML: energy":
            return self._counted() - self._start
        before, now = self._last, (time.perf_counter(), self._watts())
        self._integral += (now[0] - before[0]) * (now[1] + before[1]) / 2
        self._last = now
        return self._integral


def meters(device: torch.device) -> list[Meter]:
    """The meters of what computes: the GPU of the device, and the processors, which have their part in any case."""
    found: list[Meter] = [CpuMeter()]
    if device.type == "cuda":
        try:
            import pynvml
        except ImportError:
            pynvml = None
        found.insert(0, GpuMeter(pynvml, str(torch.cuda.get_device_properties(device).uuid)))
    return found


@dataclass
class Usage:
    """What one meter saw. joules: None without a counter. mhz: of the clock, one number per reading."""

    meter: Meter
    joules: float | None = None
    mhz: list[float] = field(default_factory=list)
    throttled: list[str] = field(default_factory=list)


@dataclass
class Watch:
    """What all meters saw, in `seconds`."""

    usages: list[Usage]
    seconds: float = 0.0


@contextmanager
def watching(found: Sequence[Meter], every: float = EVERY) -> Iterator[Watch]:
    """Read meters from a thread until the block ends; the result is complete after it."""
    watch, ended = Watch([Usage(meter) for meter in found]), threading.Event()
    start, first = time.perf_counter(), [meter.read() for meter in found]

    def look() -> None:
        for usage, begin in zip(watch.usages, first, strict=True):
            now = usage.meter.read()
            usage.throttled += [word for word in now.throttled if word not in usage.throttled]
            if now.mhz is not None:
                usage.mhz.append(now.mhz)
            if now.joules is not None and begin.joules is not None:
                usage.joules = now.joules - begin.joules
        watch.seconds = time.perf_counter() - start

    def keep_looking() -> None:
        while not ended.wait(every):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        look()
