"""Times: what is measured, what becomes of it, and the record of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sambench.measure import machine
from sambench.measure.latency import measure, relative_boxes
from sambench.memory import is_out_of_memory, requested_mib
from sambench.parquet import read_parquet, write_parquet
from sambench.records import LATENCY
from sambench.results.presentation import write_table
from sambench.results.tables.latency import SCHEMA, TABLE, lines
from sambench.status import OK, OUT_OF_MEMORY
from sambench.variants.base import MaskCandidates, Prompts, Runtime
from sambench.variants.baselines import BoxFill

CPU = torch.device("cpu")
IMAGES = [(number, np.zeros((30, 40, 3), dtype=np.uint8)) for number in (3, 5)]
MESSAGE = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has"


class Slow(BoxFill):
    """Takes 20 ms to encode and 5 ms to decode, and remembers its prompts."""

    def __init__(self) -> None:
        super().__init__(Runtime(device="cpu"))
        self.name, self.seen = "slow", []  # type: ignore[var-annotated]

    def encode_prepared(self, prepared: Any) -> list[Any]:
        time.sleep(0.02)
        return super().encode_prepared(prepared)

    def decode(self, features: Any, prompts: Prompts) -> MaskCandidates:
        time.sleep(0.005)
        self.seen.append(prompts.boxes)
        return super().decode(features, prompts)


class Huge(Slow):
    def encode_prepared(self, prepared: Any) -> list[Any]:
        raise torch.OutOfMemoryError(MESSAGE)


class Broken(Slow):
    def encode_prepared(self, prepared: Any) -> list[Any]:
        raise RuntimeError("shapes do not match")


def test_boxes_are_fixed_inside_and_a_prefix_of_more() -> None:
    boxes = relative_boxes(50)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 0.05 - 1e-12).all()
    assert (boxes[:7] == relative_boxes(7)).all()
    # RandomState(0) begins .5488, .7152, .6028, .5449: extents .05 + .55 u, corners (1 - extent) u
    assert boxes[0] == pytest.approx([0.3907, 0.3033, 0.7425, 0.7467], abs=2e-4)


def test_every_image_and_box_is_timed_one_by_one(tmp_path: Path) -> None:
    variant = Slow()
    table, first = measure(variant, IMAGES, relative_boxes(4), CPU, warmup=2, min_seconds=0)
    assert table["image_id"].tolist() == [3, 5] and table["status"].tolist() == [OK, OK]
    assert (table["encode_ms"] >= 20).all() and first >= 0.03
    assert all(len(row) == 4 and min(row) >= 5 for row in table["decode_ms"])
    assert len(variant.seen) == 2 * 2 + 2 * 4, "two boxes a warm-up call, then four an image"
    expected = relative_boxes(4)[:1] * [40, 30, 40, 30]
    assert variant.seen[4] == pytest.approx(expected.astype(np.float32))
    write_parquet(tmp_path / "t.parquet", table, LATENCY, {})
    assert read_parquet(tmp_path / "t.parquet", LATENCY).num_rows == 2


def test_images_are_gone_through_until_enough_time_has_passed() -> None:
    table, _ = measure(Slow(), IMAGES, relative_boxes(1), CPU, warmup=1, min_seconds=0.15)
    assert len(table) >= 4 and table["pass"].max() == len(table) // 2 - 1


def test_a_want_of_memory_is_a_row_and_a_bug_is_not(tmp_path: Path) -> None:
    table, first = measure(Huge(), IMAGES, relative_boxes(1), CPU, warmup=1, min_seconds=0)
    assert table["status"].tolist() == [OUT_OF_MEMORY] and np.isnan(first)
    assert table["requested_mib"].tolist() == [1536.0] and table["peak_memory_mib"][0] > 10
    write_parquet(tmp_path / "t.parquet", table, LATENCY, {})
    with pytest.raises(RuntimeError, match="shapes"):
        measure(Broken(), IMAGES, relative_boxes(1), CPU, warmup=1, min_seconds=0)


def test_messages_about_memory() -> None:
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1048576 bytes. Error code 12")
    assert is_out_of_memory(cpu) and requested_mib(cpu) == 1.0
    assert is_out_of_memory(MemoryError()) and requested_mib(MemoryError()) is None
    assert not is_out_of_memory(RuntimeError("size mismatch"))


PEAK = """
import numpy as np, torch
from sambench.memory import peak_mib, reset_peak
cpu = torch.device("cpu")
large = np.ones(2**25)
del large
reset_peak(cpu)
before = peak_mib(cpu)
block = np.ones(2**24)
print(peak_mib(cpu) - before)
"""


def test_the_peak_is_that_of_a_moment_ago() -> None:
    """128 MiB after 256 that were given back; in a process of its own, whose memory nothing else moves."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(128, abs=30)


def times(**columns: Any) -> pd.DataFrame:
    base = {
        "image_id": [1, 2, 3],
        "pass": 0,
        "prepare_ms": [1.0, 2.0, 6.0],
        "encode_ms": [100.0, 110.0, 150.0],
        "decode_ms": [[4.0] * 20, [4.0] * 20, [9.0] * 20],
        "upsample_ms": [[1.0] * 20] * 3,
        "peak_memory_mib": [10.0, 30.0, 20.0],
        "requested_mib": np.nan,
        "status": OK,
    }
    return pd.DataFrame(base | columns, columns=LATENCY.names)


def test_cumulative_times_by_hand(tmp_path: Path) -> None:
    facts = {
        "dataset": "d",
        "variant": "v",
        "runtime": "eager",
        "device": "x",
        "weights": "random",
        "threads": 2,
        "others": 0.01,
        "busy": False,
        "first_ms": 300.0,
    }
    table = lines(facts, times(), resamples=500, seed=0)
    assert table["boxes"].tolist() == [1, 10, 20]
    # encode, then five (ten for the third image) ms per box
    assert table["cumulative_ms"].tolist() == pytest.approx(
        [(105 + 115 + 160) / 3, (150 + 160 + 250) / 3, (200 + 210 + 350) / 3]
    )
    assert (table["segany_ms"] == table["cumulative_ms"][0]).all()
    assert table["p50"].tolist() == [115, 160, 210] and table["p90"][0] == pytest.approx(115 + 0.8 * 45)
    assert (table["cumulative_low"] < table["p50"]).all() and (table["cumulative_high"] > table["p50"]).all()
    line = table.iloc[0]
    assert line[["prepare_ms", "encode_ms", "decode_ms", "upsample_ms"]].tolist() == [2, 110, 4, 1]
    assert line["n"] == 3 and line["peak_memory_mib"] == 30
    failed = times(status=OUT_OF_MEMORY, decode_ms=None, upsample_ms=None).iloc[:1]
    nothing = lines(facts, failed, resamples=100, seed=0)
    assert nothing["status"].tolist() == [OUT_OF_MEMORY] and nothing["n"].tolist() == [0]
    write_table(tmp_path, TABLE, pd.concat([table, nothing.astype(table.dtypes)]), {})
    assert read_parquet(tmp_path / "latency.parquet", SCHEMA).num_rows == 4


def test_the_machine_is_recorded() -> None:
    facts = machine.record(CPU)
    assert facts["cores"] == os.cpu_count() and facts["memory_gib"] > 0.5
    assert facts["torch_threads"] == torch.get_num_threads() and facts["cpu"]
    assert "gpu" not in facts


def test_work_of_this_process_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before, later = machine.CpuClock(10.0, 100.0, 5.0), machine.CpuClock(12.0, 104.0, 8.0)
    assert before.others(later) == pytest.approx(0.5)
    assert machine.CpuClock(0.0, 0.0, 0.0).others(machine.CpuClock(1.0, 1.0, 1.02)) == 0
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert machine.is_busy(0.5) and not machine.is_busy(0.3)
    assert machine.sample_others(0.05) >= 0
