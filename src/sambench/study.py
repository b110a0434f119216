"""A checked configuration, turned into lists of jobs and their files.

No network library is imported here: Snakemake reads this module at every start.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sambench.jobs import IMAGES_PER_SHARD, EverythingJob, Job, boxes_file, measured_file
from sambench.provenance import digest
from sambench.settings import ON_IMAGES, Settings
from sambench.variants.cards import CEILING, Card

# What decides how a variant computes; the rest of a card is prose, and editing prose re-runs nothing.
CARD_FIELDS = ("builder", "arguments", "prompts", "checkpoints", "plain_only", "onnx", "module", "extra", "like")
PROSE_OF_CHECKPOINTS = ("sha256_source", "package")


@dataclass(frozen=True)
class Study:
    """A checked configuration: its settings, the cards of all variants, and what rules and commands need."""

    settings: Settings
    cards: Mapping[str, Card]

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The settings as plain mappings and lists, with what was given: for parameters of rules and for people."""
        return self.settings.model_dump(mode="json", exclude_unset=True)

    def __getitem__(self, name: str) -> list[str]:
        """A selection of the study: datasets, variants, runtimes, prompt_groups or selections."""
        return list(getattr(self.settings.study, name))

    @property
    def results(self) -> str:
        """The folder of what studies share: datasets, prompts, boxes, results per instance, measured times."""
        return self.settings.results

    @property
    def name(self) -> str:
        return self.settings.study.name

    @property
    def folder(self) -> str:
        """The folder of what belongs to this study alone: tables, figures, report."""
        return f"{self.results}/{self.name}"

    @property
    def bootstrap(self) -> dict[str, int]:
        """The keyword arguments of every bootstrap: resamples and seed."""
        return {"resamples": self.settings.statistics.resamples, "seed": self.settings.statistics.seed}

    @property
    def weights_folders(self) -> list[Path]:
        return [Path(folder) for folder in self.settings.weights]

    def jobs(self) -> list[Job]:
        """Every segany job of the study, in the order of the selections."""
        return [
            Job(*where, group)
            for where in self.places()
            for group in self["prompt_groups"]
            if self.wanted(group, *where) and (self.prompt_types(group) or self.detectors(group, where[0]))
        ]

    def wanted(self, name: str, dataset: str = "", variant: str = "", runtime: str = "") -> bool:
        """Whether `only` lets something of that name be combined with a dataset, a variant and a runtime; "" is any."""
        place = {"datasets": dataset, "variants": variant, "runtimes": runtime}
        limits = [self.settings.study.only.get(each) for each in (name, *place.values())]
        return all(
            allowed is None or not value or value in allowed
            for limit in filter(None, limits)
            for kind, value in place.items()
            for allowed in [getattr(limit, kind)]
        )

    def places(self) -> list[tuple[str, str, str]]:
        """Every (dataset, variant, runtime) of the study; a variant for volumes has no place among images."""
        variants = [name for name in self["variants"] if not self.cards[name].volumes]
        every = itertools.product(self["datasets"], variants, self["runtimes"])
        return [place for place in every if self.wanted("", *place)]

    def volume_jobs(self) -> list[tuple[str, str, str]]:
        """Every (set of volumes, variant for volumes, runtime) of the study."""
        variants = [name for name in self["variants"] if self.cards[name].volumes]
        every = itertools.product(self["volumes"], variants, self["runtimes"])
        return [place for place in every if self.wanted("", *place)]

    def volume_files(self) -> list[str]:
        """Every result file of the stage of volumes."""
        return [measured_file(self.results, "volumes", *job) for job in self.volume_jobs()]

    def images(self, dataset: str) -> int:
        """How many images a dataset is known to have; one shard's worth when its entry does not say."""
        entry = self.settings.datasets[dataset]
        count = entry.image_count or IMAGES_PER_SHARD
        return min(count, entry.image_limit or count)

    def annotations(self, dataset: str) -> list[str]:
        """The annotation files of a dataset; none for a generated one."""
        return list(self.settings.datasets[dataset].annotation_files)

    def reading(self, dataset: str) -> dict[str, str]:
        """How the image files of a dataset are looked at and read: the keywords of the index's script."""
        settings, entry = self.settings, self.settings.datasets[dataset]
        bounds = entry.range
        whole = entry.generator is not None
        return {
            "check_images": entry.check_images or ("full" if whole else settings.check_images),
            "on_bad_image": entry.on_bad_image or settings.on_bad_image,
            "exif": entry.exif,
            "scaling": ",".join(map(str, bounds)) if isinstance(bounds, tuple) else bounds or "",
        }

    def shards(self, dataset: str) -> int:
        """The number of jobs that a (variant, runtime, prompt group) is split into on a dataset."""
        shards = self.settings.shards
        return math.ceil(self.images(dataset) / IMAGES_PER_SHARD) if shards == "auto" else shards

    def segany_files(self) -> list[str]:
        """Every result file of the segany stage."""
        return [file for job in self.jobs() for file in job.shard_files(self.results, self.shards(job.dataset))]

    def first_files(self) -> list[str]:
        """One result file of each job with a network or a published file, which says why it has no numbers."""
        segany = [job.shard_files(self.results, self.shards(job.dataset))[0] for job in self.jobs()]
        everything = [job.file(self.results, kind) for job in self.everything_jobs() for kind in ("quality", "time")]
        boxes = [
            boxes_file(self.results, dataset, name)
            for dataset in self["datasets"]
            for name in self.detectors_on(dataset)
        ]
        measures = [name for name in self["measures"] if name in ON_IMAGES]
        return segany + everything + boxes + [file for name in measures for file in self.measured_files(name)]

    def prompt_types(self, group: str) -> list[str]:
        """The members of a prompt group that are made from ground truth."""
        return [name for name in self.settings.prompt_groups[group] if name not in self.settings.detectors]

    def detectors(self, group: str, dataset: str = "") -> list[str]:
        """The members of a prompt group whose prompts are the boxes of a detector, on a dataset or on any."""
        names = [name for name in self.settings.prompt_groups[group] if name in self.settings.detectors]
        return [name for name in names if self.wanted(name, dataset)]

    def detectors_on(self, dataset: str) -> list[str]:
        """The detectors of all selected prompt groups on a dataset, in their order, each once."""
        groups = [group for group in self["prompt_groups"] if self.wanted(group, dataset)]
        return list(dict.fromkeys(name for group in groups for name in self.detectors(group, dataset)))

    def detector_groups(self) -> list[str]:
        """The selected prompt groups that have a detector."""
        return [group for group in self["prompt_groups"] if self.detectors(group)]

    def mask_jobs(self) -> list[Job]:
        """The segany jobs that also yield masks."""
        return [job for job in self.jobs() if self.detectors(job.group, job.dataset)]

    def mask_files(self) -> list[str]:
        """Every file of masks that the segany stage yields."""
        return [file for job in self.mask_jobs() for file in job.mask_files(self.results, self.shards(job.dataset))]

    def card(self, variant: str) -> dict[str, Any]:
        """The part of a variant's card that decides what it computes."""
        card = self.cards[variant]
        fields = {name: getattr(card, name) for name in CARD_FIELDS if getattr(card, name)}
        files = [{key: file[key] for key in file if key not in PROSE_OF_CHECKPOINTS} for file in card.checkpoints]
        return fields | ({"checkpoints": files} if files else {})

    def model(self, variant: str, runtime: str) -> dict[str, Any]:
        """A variant with its runtime, as scripts get it."""
        return {
            "name": variant,
            "card": self.card(variant),
            "runtime": {"name": runtime} | self.plain["runtimes"][runtime],
            "weights": self.plain["weights"],
        }

    def segany_digest(self, variant: str, runtime: str) -> str:
        """The `config_digest` of what the segany stage writes for a variant and runtime."""
        return digest([self.model(variant, runtime), self["selections"]])

    def builder_modules(self, variant: str) -> list[str]:
        """The module with the builder of a variant, none when it has no public code."""
        module = self.cards[variant].builder.partition(":")[0]
        return [module] if module else []

    def weights(self, variant: str) -> list[str]:
        """The checkpoint files of a variant that are here; none when one is missing."""
        return [str(path) for path in self.cards[variant].weights(self.weights_folders) or []]

    def pictured(self) -> list[str]:
        """The datasets with a gallery."""
        return list(dict.fromkeys(job[0] for job in self.gallery_jobs()))

    def prompted_jobs(self) -> list[Job]:
        """The segany jobs with prompts from ground truth."""
        return [job for job in self.jobs() if self.prompt_types(job.group)]

    def gallery_jobs(self) -> list[tuple[str, str, str]]:
        """(dataset, variant, runtime) of every job that keeps the masks of a gallery, where pictures are wanted.

        The mask of the ceiling is the ground truth, which is shown anyway.
        """
        study = self.settings.study
        shown = [name for name in self["datasets"] if study.gallery or study.gallery_annotations.get(name)]
        jobs = [job for job in self.prompted_jobs() if job.dataset in shown and job.variant != CEILING]
        return list(dict.fromkeys((*job[:3],) for job in jobs))

    def everything_jobs(self) -> list[EverythingJob]:
        """Every job of segment everything."""
        return [
            EverythingJob(*where, sampler)
            for where in self.places()
            for sampler in self["samplers"]
            if self.wanted(sampler, *where)
        ]

    def measuring_jobs(self, measure: str) -> list[tuple[str, str, str]]:
        """(dataset, variant, runtime) of every job of a measure that needs data."""
        return [where for where in self.places() if self.wanted(measure, *where)]

    def measured_files(self, measure: str) -> list[str]:
        """Every result file of a measure that needs data."""
        return [measured_file(self.results, measure, *job) for job in self.measuring_jobs(measure)]
