"""What every measurement of a variant needs around it: the variant, a look at the machine, a row in any case."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from sambench.datasets.pictures import read_image, view_of
from sambench.digests import digest
from sambench.errors import BadWeights, InputError, UnsupportedRuntime
from sambench.measure import machine
from sambench.memory import OutOfMemory, memory_guard, peak_mib, requested_mib, reset_peak
from sambench.parquet import read_parquet
from sambench.provenance import why_none
from sambench.records import IMAGES, INSTANCES
from sambench.status import (
    BAD_WEIGHTS,
    NO_DEVICE,
    NO_NETWORK,
    NO_WEIGHTS,
    OK,
    OUT_OF_MEMORY,
    UNSUPPORTED_PROMPT,
    UNSUPPORTED_RUNTIME,
)
from sambench.variants.base import BOX, OFFICIAL, TORCH, Runtime, Variant
from sambench.variants.cards import Card
from sambench.variants.registry import build

WEIGHTS_SEED = 0  # of random weights: the same ones in every runtime

# What is measured: a variant on a device -> rows, and facts of the run.
Measurement = Callable[[Variant, torch.device], tuple[pd.DataFrame, dict[str, Any]]]
# What a measure gives: rows, the name of the GPU, and facts for the provenance of their file.
Measured = tuple[pd.DataFrame, str, dict[str, str]]


@dataclass(frozen=True)
class MeasuringJob:
    """One variant under one runtime, to be measured.

    settings: the section of the configuration with the measure's name. images, instances: Parquet files of the data
    set; None where a measure needs no data. Each measure is a module with RECORD, the schema of its rows, and
    `run(job)`, which gives `Measured`.
    """

    card: Card
    runtime: Runtime
    folders: Sequence[Path]
    settings: Mapping[str, Any]
    images: Path | None = None
    instances: Path | None = None

    def annotated(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The first images by id that have annotations, as many as the settings say, and their annotations."""
        assert self.images is not None and self.instances is not None, "a measure of images needs a data set"
        return annotated(self.images, self.instances, self.settings["images"])


def as_table(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    """Rows with the columns of a schema, null where a row has no value."""
    return pd.DataFrame([{name: row.get(name) for name in schema.names} for row in rows], columns=schema.names)


def build_seeded(card: Card, runtime: Runtime, folders: Iterable[Path]) -> Variant:
    """A variant with its checkpoint, or without one with random weights that are the same each time."""
    folders = list(folders)
    torch.manual_seed(WEIGHTS_SEED)
    return build(card, runtime, folders, random_weights=card.weights(folders) is None)


def observe(
    title: str, job: MeasuringJob, schema: pa.Schema, measurement: Measurement, *, accuracy: bool = False
) -> Measured:
    """Build a variant, measure it, and watch what else the machine does meanwhile.

    Without a checkpoint weights are random: times and memory do not depend on them. A measure of `accuracy` then has
    nothing to measure; the ground truth as a variant and variants without boxes take part in it. Gives rows with the
    columns of `schema`, or one row with a status where there is nothing to measure; and facts for the provenance of
    their file: weights_sha256, machine, and run, which is JSON with `weights` (checkpoint, random or none), `decoder`
    (fast, official or none), `encodes` (per image or per prompt), `others` (cores that other processes kept busy),
    `busy`, and what the measurement adds.
    """
    card, runtime, folders = job.card, job.runtime, list(job.folders)
    state = card.availability(folders, runtime)
    device = torch.device("cpu") if state == NO_DEVICE else runtime.torch_device()
    decoder = runtime.decoder if runtime.engine == TORCH else OFFICIAL  # which graphs are made of
    facts: dict[str, Any] = {"weights": "none", "decoder": decoder if card.checkpoints else "none"}
    if card.checkpoints:
        facts["weights"] = "random" if card.weights(folders) is None else "checkpoint"
    if state not in ((OK,) if accuracy else (OK, NO_WEIGHTS)):
        reason = card.explain(folders, runtime)
        print(f"{title} {card.name}: {state}: {reason}", file=sys.stderr)
        table = as_table([{"status": state}], schema)
        why = why_none(state, reason)
    else:
        facts["others_before"] = machine.sample_others()
        before = machine.CpuClock.now()
        table, extra, why = _measure(card, runtime, folders, schema, measurement, device, state, accuracy=accuracy)
        facts |= {"others": before.others(machine.CpuClock.now()), **extra}
        others = max(facts["others_before"], facts["others"])
        facts["busy"] = machine.is_busy(others)
        if facts["busy"]:
            print(f"{title} {card.name}: others keep {others:.1f} cores busy", file=sys.stderr)
    paths = card.weights(folders) if state == OK else None
    facts_of_file = {
        "weights_sha256": ",".join(digest(path) for path in paths or []),
        "machine": json.dumps(machine.record(device), sort_keys=True),
        "run": json.dumps(facts, sort_keys=True),
        **why,
    }
    return table, "" if state == NO_DEVICE else runtime.device_name(), facts_of_file


def _measure(
    card: Card,
    runtime: Runtime,
    folders: list[Path],
    schema: pa.Schema,
    measurement: Measurement,
    device: torch.device,
    state: str,
    *,
    accuracy: bool,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, str]]:
    """The rows, facts of the run, and why there are none."""
    reset_peak(device)
    try:
        with memory_guard():
            model = build_seeded(card, runtime, folders)
            if accuracy:
                return *measurement(model, device), {}
            if model.uses_ground_truth:
                return as_table([{"status": NO_NETWORK}], schema), {}, {}
            if BOX not in model.prompt_kinds:
                return as_table([{"status": UNSUPPORTED_PROMPT}], schema), {}, {}
            table, extra = measurement(model, device)
            return table, {"encodes": model.encodes, **extra}, {}
    except (BadWeights, UnsupportedRuntime) as error:
        print(error, file=sys.stderr)
        status = BAD_WEIGHTS if isinstance(error, BadWeights) else UNSUPPORTED_RUNTIME
        return as_table([{"status": status}], schema), {}, why_none(status, str(error))
    except InputError as error:
        if state == OK:
            raise
        print(error, file=sys.stderr)  # an encoder that is an ONNX file cannot have random weights
        return as_table([{"status": state}], schema), {}, why_none(state, str(error))
    except OutOfMemory as error:
        print(error, file=sys.stderr)
        return as_table([out_of_memory(error, device)], schema), {}, {}


def out_of_memory(error: BaseException, device: torch.device) -> dict[str, Any]:
    """A row of the peak memory in use, and of the size of the failed request where the error states it."""
    return {"peak_memory_mib": peak_mib(device), "requested_mib": requested_mib(error), "status": OUT_OF_MEMORY}


def annotated(images: Path, instances: Path, count: int | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first `count` images by id that have annotations (None: all of them), and their annotations."""
    truth = read_parquet(instances, INSTANCES).to_pandas()
    rows = read_parquet(images, IMAGES).to_pandas().sort_values("image_id")
    rows = rows[rows["image_id"].isin(set(truth["image_id"]))].head(len(rows) if count is None else count)
    return rows, truth[truth["image_id"].isin(set(rows["image_id"]))]


def load_images(rows: pd.DataFrame) -> list[tuple[int, np.ndarray]]:
    """(id, (H, W, 3) uint8 RGB) of all images, in memory."""
    return [(int(row.image_id), read_image(row.path, row.width, row.height, view_of(row))) for row in rows.itertuples()]
