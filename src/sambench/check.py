"""Everything that can be known about a study before it runs: what stops it, what will be missing, and what it takes.

`sambench check STUDY.yaml` prints it. Each finding comes with the command, or the step, that mends it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sambench import resources
from sambench.config import check_dataset, read_study, read_study_file
from sambench.datasets import coco
from sambench.datasets.annotations import read_document
from sambench.datasets.inspection import Reading
from sambench.detectors.boxes import Limits
from sambench.detectors.registry import Detector, read_detectors
from sambench.detectors.stage import published_boxes
from sambench.downloads.catalogue import Download, Retrieval, find, from_checkpoints, read_table, retrievals
from sambench.downloads.store import default_offline
from sambench.errors import InputError
from sambench.files import default_cache, exists
from sambench.gpus import visible_gpus
from sambench.prompt_names import is_box
from sambench.status import BAD_WEIGHTS, NO_DEVICE, NO_WEIGHTS, OK, UNSUPPORTED_PROMPT, UNSUPPORTED_RUNTIME
from sambench.study import Study
from sambench.variants import origin
from sambench.variants.cards import Card
from sambench.variants.options import configured

if TYPE_CHECKING:
    import pandas as pd

Level = Literal["stop", "warn", "ok"]
MASK_BYTES = 600  # of one mask as run-lengths, of COCO's about 450 on average
PROMPT_BYTES = 150  # of one prompt and its result
LEAST_FREE = 200e6  # bytes for logs, tables, figures and the database


@dataclass(frozen=True)
class Finding:
    """One line. stop: the study cannot run; warn: something will be missing or may be wrong; ok: a fact.

    about: config, data, boxes, weights, device, runtime, prompts, memory, disk or time. remedy: the command that mends
    it, or what to do.
    """

    level: Level
    about: str
    text: str
    remedy: str = ""


def check(file: Path) -> Iterator[Finding]:
    """What is found about the study of a file, stage by stage. A configuration that is wrong is the only finding."""
    try:
        study = read_study(read_study_file(file))
    except InputError as error:
        yield Finding("stop", "config", *_split(error))
        return
    fetching = study.settings.download and not default_offline()
    images: dict[str, pd.DataFrame] = {}
    yield from check_data(study, fetching, images)
    study = counted(study, {name: len(rows) for name, rows in images.items()})
    yield from check_boxes(study, fetching, images)
    yield from check_weights(study, fetching)
    yield from check_prompts(study)
    yield from check_memory(study)
    yield from check_disk(study, fetching)
    yield from check_time(study)


def check_data(study: Study, fetching: bool, images: dict[str, pd.DataFrame]) -> Iterator[Finding]:
    """Index every data set that is here, as the study will. images: takes in its images, see coco.Index."""
    for name in study["datasets"]:
        entry = study.settings.datasets[name]
        if entry.generator:
            yield Finding("ok", "data", f"{name}: is generated")
            continue
        if not all(map(exists, (*entry.annotation_files, entry.images))):
            command = f"sambench download {' '.join(entry.downloads)}"
            if entry.fetched and fetching:
                yield Finding("ok", "data", f"{name}: will be fetched first", command)
                continue
            try:
                check_dataset(name, entry)
            except InputError as error:
                text, remedy = _split(error)
                yield Finding("stop", "data", text, command if entry.downloads else remedy)
            continue
        reading: dict[str, Any] = dict(study.reading(name))
        try:
            index = coco.index(
                [Path(path) for path in entry.annotation_files],
                Path(entry.images),
                image_limit=entry.image_limit,
                reading=Reading(reading["exif"], reading["scaling"], whole=reading["check_images"] == "full"),
                on_bad_image=reading["on_bad_image"],
            )
        except InputError as error:
            yield Finding("stop", "data", *_split(error))
            continue
        images[name] = index.images
        yield Finding("ok", "data", f"{name}: {len(index.images):,} images, {len(index.instances):,} instances")
        for reason, count in index.counts.items():
            if count:
                yield Finding("ok", "data", f"{name}: {reason}: {count:,}")
        for text, count in index.warnings.items():
            yield Finding("warn", "data", f"{name}: {text} ({count:,})", "see docs/adding-a-dataset.md")


def check_boxes(study: Study, fetching: bool, images: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    """Where the boxes of detectors come from, and what is wrong with published ones. images: of indexed data sets."""
    cards = read_detectors(study.plain["detectors"])
    fetched = retrievals(study)
    for dataset in study["datasets"]:
        document: dict[str, Any] = {}  # read once, when a published file needs it
        for name in study.detectors_on(dataset):
            card = cards[name]
            state = card.state(dataset, study.weights_folders)
            if state == OK:
                if card.result_file(dataset) and dataset in images:
                    files = [Path(path) for path in study.settings.datasets[dataset].annotation_files]
                    document = document or read_document(files, segmentations=False)
                    yield from _import(study, card, dataset, document, images[dataset])
                else:
                    yield Finding("ok", "boxes", f"{name} on {dataset}")
            elif fetching and f"detectors/{name}" in fetched:
                yield Finding("ok", "boxes", f"{name} on {dataset}: will be fetched first", f"sambench download {name}")
            else:
                remedy = card.remedy(dataset, study.weights_folders)
                yield Finding("warn", "boxes", f"{name} on {dataset}: {state}, so it has no figures", remedy)


def _import(
    study: Study, card: Detector, dataset: str, document: dict[str, Any], images: pd.DataFrame
) -> Iterator[Finding]:
    """Import the published boxes of a detector, as the study will. document, images: of the indexed data set."""
    annotations = Path(study.settings.datasets[dataset].annotation_files[0])
    limits = Limits(study.settings.detection.score_threshold, 1)  # what is wrong is looked for in all boxes
    published = card.result_file(dataset)
    assert published is not None
    try:
        _, warnings = published_boxes(published, document, annotations, images, limits)
    except InputError as error:
        yield Finding("stop", "boxes", *_split(error))
        return
    yield Finding("ok", "boxes", f"{card.name} on {dataset}")
    for text, count in warnings.items():
        yield Finding("warn", "boxes", f"{card.name} on {dataset}: {text} ({count:,})", "see docs/adding-a-dataset.md")


def check_weights(study: Study, fetching: bool) -> Iterator[Finding]:
    """Whether each variant can run in each runtime, and whose file its weights are."""
    fetched = retrievals(study)
    folders = study.weights_folders
    for name in study["variants"]:
        card = study.cards[name]
        for runtime in study["runtimes"]:
            _, how, _ = configured(study.model(name, runtime), 1)
            state = card.availability(folders, how)
            where = f"{name} in {runtime}" if len(study["runtimes"]) > 1 else name
            if state == NO_WEIGHTS and fetching and f"variants/{name}" in fetched:
                yield Finding("ok", "weights", f"{where}: will be fetched first", f"sambench download {name}")
            elif state == NO_WEIGHTS:
                command = f"sambench download {name}" if f"variants/{name}" in fetched else card.explain(folders, how)
                yield Finding("warn", "weights", f"{where}: {state}, so it has no accuracy", command)
            elif state != OK:
                about = "device" if state == NO_DEVICE else "runtime" if state == UNSUPPORTED_RUNTIME else "weights"
                yield Finding("warn", about, f"{where}: {state}, so it has no figures", card.explain(folders, how))
            elif card.checkpoints:
                yield _whose(card, where, card.origin(folders))
            else:
                yield Finding("ok", "weights", f"{where}: needs none")


def _whose(card: Card, where: str, found: str) -> Finding:
    if found.startswith(origin.KNOWN_AS) and found.removeprefix(origin.KNOWN_AS) != card.like:
        remedy = f"put the right file there, `sambench download {card.name}` brings it"
        return Finding("warn", "weights", f"{where}: {found}: {BAD_WEIGHTS}, so it has no figures", remedy)
    if found == origin.ANOTHER:
        remedy = "right for weights of your own; else delete the file, and a run or `sambench download` fetches it"
        return Finding("warn", "weights", f"{where}: {found} than the official one", remedy)
    return Finding("ok", "weights", f"{where}: {found}")


def check_prompts(study: Study) -> Iterator[Finding]:
    """Prompt sets that variants do not take."""
    for name in study["variants"]:
        taken = study.cards[name].prompts
        sets = [prompt for group in study["prompt_groups"] for prompt in study.prompt_types(group)]
        refused = [prompt for prompt in sets if taken and ("box" if is_box(prompt) else "point") not in taken]
        if refused:
            remedy = "leave them out with `study.only`, or keep the rows that say so"
            yield Finding("warn", "prompts", f"{name}: {UNSUPPORTED_PROMPT}: {', '.join(refused)}", remedy)


def check_memory(study: Study) -> Iterator[Finding]:
    """Whether the largest job fits into this machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    needs = {name: resources.memory_mb("segany", study.cards[name]) for name in study["variants"]}
    needs["index and tables"] = max(resources.STAGE_MB.values())
    largest = max(needs, key=lambda name: needs[name])
    text = (
        f"the largest job ({largest}) asks for {needs[largest] / 1000:.0f} GB, this machine has {total / 1000:.0f} GB"
    )
    if needs[largest] > total:
        remedy = "its rows may say `out of memory`; run it on a larger machine (profiles/slurm)"
        yield Finding("warn", "memory", text, remedy)
    else:
        yield Finding("ok", "memory", text)


def check_disk(study: Study, fetching: bool) -> Iterator[Finding]:
    """Whether results and downloads fit, and may be written."""
    results = _existing(Path(study.results))
    if not os.access(results, os.W_OK):
        remedy = "change its permissions, or name another folder under `results`"
        yield Finding("stop", "disk", f"{results}: may not be written", remedy)
        return
    wanted = missing_downloads(study) if fetching else []
    sizes = sum(item.bytes or 0 for item in wanted)
    cache = _existing(Path(study.settings.cache or default_cache()).expanduser())
    own = LEAST_FREE + results_bytes(study)
    for folder, need, what in ((cache, 2 * sizes, "downloads"), (results, own, "results")):
        if not need:
            continue
        free = shutil.disk_usage(folder).free
        together = need + (own if what == "downloads" and folder.stat().st_dev == results.stat().st_dev else 0)
        text = f"{what} take about {need / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB"
        if together > free:
            remedy = f"free some space, or move them: {'SAMBENCH_CACHE' if what == 'downloads' else '`results`'}"
            yield Finding("stop", "disk", text, remedy)
        else:
            yield Finding("ok", "disk", text)


def missing_downloads(study: Study) -> list[Download]:
    """What the study will fetch."""
    found: list[Download] = []
    table = read_table()
    for retrieval in retrievals(study).values():
        if retrieval.wanted and retrieval.missing(study):
            found += _items(retrieval, table, study.weights_folders)
    return [item for item in {item.name: item for item in found}.values() if not exists(item.target)]


def _items(retrieval: Retrieval, table: Mapping[str, Download], folders: Sequence[Path]) -> list[Download]:
    return [*find(retrieval.names, table, {}, folders), *from_checkpoints(retrieval.checkpoints, folders)]


def results_bytes(study: Study) -> float:
    """Roughly what the results of a study take."""
    total = 0.0
    for job in study.jobs():
        images = study.images(job.dataset)
        card = study.cards[job.variant]
        prompts = resources.prompts_per_image(study, card, job.dataset, job.group)
        each = PROMPT_BYTES + (MASK_BYTES if study.detectors(job.group, job.dataset) else 0)
        total += images * prompts * each
    return total


def check_time(study: Study) -> Iterator[Finding]:
    """About how long the study takes here, one job after the other, as networks run on one machine."""
    gpus = len(visible_gpus())
    seconds: dict[str, float] = {}
    here = study if gpus else on_cpu(study)
    jobs = [("segany", job._asdict(), here.shards(job.dataset)) for job in here.jobs()]
    jobs += [("segevery", job._asdict(), 2) for job in here.everything_jobs()]
    for measure in here["measures"]:
        if measure in resources.ESTIMATED:
            names = ("dataset", "variant", "runtime")
            jobs += [(measure, dict(zip(names, place, strict=True)), 1) for place in here.measuring_jobs(measure)]
    for stage, wildcards, count in jobs:
        seconds[stage] = seconds.get(stage, 0.0) + count * resources.estimate(here, stage, wildcards)
    device = f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "the CPU"
    total = sum(seconds.values())
    parts = ", ".join(f"{stage} {_duration(part)}" for stage, part in seconds.items())
    text = f"about {_duration(total)} on {device}, one job after the other ({parts or 'nothing to measure'})"
    remedy = "`sambench simulate` plans it for a cluster" if total > 24 * 3600 else ""
    yield Finding("warn" if remedy else "ok", "time", text, remedy)


def counted(study: Study, counts: Mapping[str, int]) -> Study:
    """The study with the number of images of its data sets, which entries need not say."""
    datasets = {
        name: entry.model_copy(update={"image_count": counts[name]}) if name in counts else entry
        for name, entry in study.settings.datasets.items()
    }
    return Study(study.settings.model_copy(update={"datasets": datasets}), study.cards)


def on_cpu(study: Study) -> Study:
    """The study as it runs on a machine without a GPU."""
    settings = study.settings
    runtimes = {
        name: how.model_copy(update={"device": "cpu"}) if how.device == "auto" else how
        for name, how in settings.runtimes.items()
    }
    return Study(settings.model_copy(update={"runtimes": runtimes}), study.cards)


def _duration(seconds: float) -> str:
    """Seconds in words, as rough as the estimate."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if each.is_dir()), folder)


def _split(error: InputError) -> tuple[str, str]:
    """The message of an error without its remedy, and the remedy."""
    text, remedy = str(error), str(error.remedy)
    return (text.removesuffix(f"; {remedy}"), remedy) if remedy else (text, "")
