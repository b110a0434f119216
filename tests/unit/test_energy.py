"""Energy: counters in a fake powercap tree, a fake NVML, the measure with meters by script, the table by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from sambench.measure.batches import ImageBoxes
from sambench.measure.energy import measure
from sambench.measure.meters import CpuMeter, GpuMeter, Meter, Reading, meters, watching
from sambench.record_checks import impossible
from sambench.records import ENERGY
from sambench.results.tables.energy import SCHEMA, lines
from sambench.status import NO_METER, NO_WEIGHTS, OK
from sambench.variants.base import Runtime
from sambench.variants.baselines import BoxFill

FACTS = {"dataset": "d", "variant": "v", "runtime": "eager", "device": "x", "weights": "checkpoint", "busy": False}
LIMIT = 262_143_328_850


class Tree:
    """Two packages, the first with cores and memory, as Linux shows them, and two processors."""

    def __init__(self, folder: Path) -> None:
        self.powercap, self.cpus = folder / "powercap", folder / "cpu"
        for name, label in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "dram",
            "intel-rapl:1": "package-1",
            "intel-rapl:2": "psys",
            "intel-rapl-mmio:0": "package-0",
        }.items():
            (self.powercap / name).mkdir(parents=True)
            (self.powercap / name / "name").write_text(f"{label}\n")
            (self.powercap / name / "max_energy_range_uj").write_text(f"{LIMIT}\n")
            self.count(name, 0)
        for cpu in (0, 1):
            for file, value in {
                "cpufreq/scaling_cur_freq": 2_000_000 + 1_000_000 * cpu,
                "thermal_throttle/core_throttle_count": 3,
                "thermal_throttle/package_throttle_count": 5,
            }.items():
                path = self.cpus / f"cpu{cpu}" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{value}\n")

    def count(self, name: str, microjoules: int) -> None:
        (self.powercap / name / "energy_uj").write_text(f"{microjoules}\n")

    def meter(self) -> CpuMeter:
        return CpuMeter(self.powercap, self.cpus)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_packages_and_memory_are_counted_and_their_parts_are_not(tree: Tree) -> None:
    meter = tree.meter()
    assert meter.source == "RAPL: package-0, dram, package-1"
    for number, name in enumerate(("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl:2")):
        tree.count(name, 10**number * 1_000_000)
    assert meter.read() == Reading(1 + 100 + 1000, 2500.0, ())


def test_counters_begin_again(tree: Tree) -> None:
    tree.count("intel-rapl:1", LIMIT - 2_000_000)
    meter = tree.meter()
    tree.count("intel-rapl:1", 3_000_000)
    assert meter.read().joules == pytest.approx(5.0)
    tree.count("intel-rapl:1", 4_000_000)
    assert meter.read().joules == pytest.approx(6.0)
    tree.count("intel-rapl:1", 1_000_000)
    assert meter.read().joules == pytest.approx(6.0 + LIMIT / 1e6 - 3.0), "a second round"


def test_throttling_is_an_event_since_the_last_reading(tree: Tree) -> None:
    meter = tree.meter()
    assert meter.read().throttled == ()
    (tree.cpus / "cpu1/thermal_throttle/core_throttle_count").write_text("4\n")
    assert meter.read().throttled == ("thermal",)
    assert meter.read().throttled == ()


def test_counters_that_may_not_be_read_say_so(tree: Tree, tmp_path: Path) -> None:
    if os.geteuid():
        for file in tree.powercap.glob("*/energy_uj"):
            file.chmod(0)
    else:  # root may read everything
        for file in tree.powercap.glob("*/energy_uj"):
            file.unlink()
            file.mkdir()
    meter = tree.meter()
    assert meter.source == "" and "energy_uj" in meter.missing
    assert meter.read() == Reading(None, 2500.0, ())
    nothing = CpuMeter(tmp_path / "nowhere", tmp_path / "nowhere")
    assert nothing.source == "" and nothing.read() == Reading() and nothing.missing == "no powercap here"


class Nvml:
    """NVML of one GPU; what is None is not supported."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, energy: list[int] | None, watts: list[int] | None, bits: int | None = 0) -> None:
        self.energy, self.watts, self.bits = energy, watts, bits

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-ab":
            raise self.NVMLError("Not Found")
        return "handle"

    def _next(self, values: list[int] | None) -> int:
        if values is None:
            raise self.NVMLError("Not Supported")
        return values.pop(0) if len(values) > 1 else values[0]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self._next(self.energy)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return self._next(self.watts)

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return 1980

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self._next(None if self.bits is None else [self.bits])


def test_a_gpu_that_counts_millijoules() -> None:
    meter = GpuMeter(Nvml([5_000, 7_500], None, bits=0x1), "ab")
    assert meter.source == "NVML: energy"
    assert meter.read() == Reading(2.5, 1980.0, ()), "an idle GPU is not throttled"
    meter.nvml.bits = 0x4 | 0x20 | 0x40
    assert meter.read().throttled == ("power cap", "thermal")


def test_a_gpu_that_only_tells_its_power(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr("sambench.measure.meters.time.perf_counter", lambda: next(clock))
    meter = GpuMeter(Nvml(None, [100_000, 200_000, 400_000], bits=None), "ab")
    assert meter.source == "NVML: power"
    assert meter.read().joules == 300.0, "2 s at 150 W on average"
    assert meter.read().joules == 600.0, "1 s more at 300 W"


def test_a_gpu_without_nvml_has_no_meter() -> None:
    for meter, why in ((GpuMeter(None, "ab"), "pynvml"), (GpuMeter(Nvml([0], [0]), "cd"), "Not Found")):
        assert meter.source == "" and why in meter.missing and meter.read() == Reading()
    neither = GpuMeter(Nvml(None, None), "ab")
    assert neither.source == "" and neither.missing == "Not Supported"
    assert neither.read() == Reading(None, 1980.0, ())


def test_the_meters_of_a_cpu_are_those_of_the_processors() -> None:
    (meter,) = meters(torch.device("cpu"))
    assert meter.part == "cpu"
    assert meter.source or meter.missing


class Script:
    """Joules by script, one reading after the other; the last one stays."""

    part, source, missing = "cpu", "script", ""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.readings: Iterator[Reading] = iter(readings)
        self.now = Reading()

    def read(self) -> Reading:
        self.now = next(self.readings, self.now)
        return self.now


def test_a_watch_sees_what_is_between_its_ends() -> None:
    meter = Script([Reading(5.0, 3000.0, ("thermal",)), Reading(9.0, 2000.0, ("thermal", "power cap"))])
    with watching([meter], every=60) as watch:
        pass
    (usage,) = watch.usages
    assert usage.joules == 4.0 and usage.mhz == [2000.0] and usage.throttled == ["thermal", "power cap"]
    assert watch.seconds > 0


def test_a_run_with_and_without_a_meter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / "1.png")
    tasks = [ImageBoxes(str(tmp_path / "1.png"), (8, 10), np.array([[0, 0, 4, 4]] * 3, np.float32))] * 2

    class Nothing(Script):
        source, missing = "", "nobody counts"

    # Idle: 2 J; work: 6 J.
    counted = Script([Reading(0.0), Reading(2.0, 900.0), Reading(2.0), Reading(8.0, 800.0, ("thermal",))])
    found: list[Meter] = [counted, Nothing([Reading(None, 700.0)])]
    rows = measure(BoxFill(Runtime(device="cpu")), tasks, found, batch=1, min_seconds=0, idle_seconds=0.01)
    assert list(rows.columns) == ENERGY.names
    assert rows["images"].tolist() == [2, 2] and rows["boxes"].tolist() == [6, 6]
    assert rows["status"].tolist() == [OK, NO_METER] and "nobody counts" in capsys.readouterr().err
    assert rows["joules"].tolist()[0] == 6.0 and rows["mhz"].tolist() == [800.0, 700.0]
    assert rows["throttled"].tolist() == ["thermal", ""]
    assert 2 / rows["idle_watts"][0] >= 0.01, "2 J in the seconds of the pause"
    assert impossible(pa.Table.from_pandas(rows, schema=ENERGY), ENERGY) is None


def test_table_by_hand() -> None:
    rows = pd.DataFrame(
        [
            {"part": "gpu", "meter": "NVML: energy", "batch": 1, "images": 20, "boxes": 100, "seconds": 10.0}
            | {"joules": 3000.0, "idle_watts": 60.0, "mhz": 1900.0, "mhz_low": 1800.0}
            | {"throttled": "power cap", "status": OK},
            {"part": "cpu", "meter": "", "batch": 1, "images": 20, "boxes": 100, "seconds": 10.0, "throttled": ""}
            | {"status": NO_METER},
        ]
    )
    table = lines(FACTS, rows)
    assert list(table.columns) == SCHEMA.names
    gpu, cpu = table.to_dict("records")
    # 300 W, of which 60 W are there without work; 2 images per second.
    assert (gpu["watts"], gpu["joules_per_image"], gpu["net_joules_per_image"]) == (300.0, 150.0, 120.0)
    assert gpu["throttled"] is True and gpu["throttled_by"] == "power cap" and gpu["boxes_per_image"] == 5.0
    assert cpu["status"] == NO_METER and pd.isna(cpu["watts"]) and cpu["throttled"] is False and cpu["n"] == 20


def test_a_run_that_did_not_happen_is_a_line() -> None:
    rows = pd.DataFrame([dict.fromkeys(ENERGY.names) | {"status": NO_WEIGHTS}])
    (line,) = lines(FACTS, rows).to_dict("records")
    assert line["status"] == NO_WEIGHTS and line["n"] == 0 and line["throttled"] is False


def test_what_was_measured_before_is_not_measured_again() -> None:
    """The meters are no part of the code of times and accuracy."""
    from sambench.code_digest import module_files

    for measure_name in ("latency", "throughput", "agreement", "interactive"):
        names: Any = {file.name for file in module_files(f"sambench.measure.{measure_name}")}
        assert "meters.py" not in names and "energy.py" not in names
