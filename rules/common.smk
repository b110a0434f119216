"""What rules share: the checked study, the digest of a stage's code, and how parameters follow from wildcards."""

import functools
import json
import re
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from sambench import resources, slurm, terminal
from sambench.code_digest import runtime_modules, source_digest
from sambench.config import CONFIG_FOLDER, export_project, merge, named, read_registries, read_study
from sambench.datasets.identity import dataset_identity
from sambench.detectors.registry import read_detectors
from sambench.downloads import textures
from sambench.downloads.catalogue import retrievals
from sambench.downloads.store import default_offline
from sambench.digests import digest
from sambench.errors import InputError
from sambench.files import is_file
from sambench.gpus import visible_gpus
from sambench.jobs import Job, mask_selections
from sambench.results.figure import all_figures, selected_figures
from sambench.results.table import all_tables, selected_tables
from sambench.results.tracking import tracking_uri

try:
    # The registries and defaults lie beside the code and not in the working directory; what --configfile and --config
    # or another workflow gives comes on top. Jobs are started with the same files: a study has one name everywhere.
    study = read_study(
        named(merge(read_registries(), config), Path((workflow.overwrite_configfiles or ["config.yaml"])[-1]))
    )
    SERVER = tracking_uri(study.settings.tracking.uri)
except InputError as error:
    raise WorkflowError(str(error)) from None

START = time.time()
FETCH = study.settings.download and not default_offline()
RESULTS = study.results  # what studies share
FOLDER = study.folder  # what belongs to this one
SCENES = f"{RESULTS}/datasets/scenes/source"
PRECISION = study.settings.average_precision
DETECTOR_CARDS = read_detectors(study.plain["detectors"])
RETRIEVALS = retrievals(study)
SITE = study.settings.site
# Of jobs without options of their own; unset, they are those of the profile.
SITE_OPTIONS = {"slurm_extra": SITE.slurm_extra} if SITE.slurm_extra else {}
# A network gets a GPU of its own and its share of the cores; on a cluster the scheduler says how many of each.
if workflow.is_main_process and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", max(1, len(visible_gpus())))
export_project()


# Of all jobs with `--sdm apptainer`; without, it is not looked at.
container: SITE.container or str(CONFIG_FOLDER.parent / "containers" / "sambench.sif")


wildcard_constraints:
    dataset=r"[^/]+",
    variant=r"[^/]+",
    runtime=r"[^/]+",
    group=r"[^/]+",
    sampler=r"[^/]+",
    shard=r"\d+-of-\d+",


@functools.cache
def code(script, *modules):
    """What makes a stage run again: a change of what its script or a module computes, see sambench.code_digest."""
    return source_digest(Path(workflow.source_path(f"../workflow/scripts/{script}.py")), *modules)


def model_code(script, variants, runtime, *modules):
    """`code`, with the modules that build these variants and those that the runtime brings into play."""
    builders = [module for name in variants for module in study.builder_modules(name)]
    return code(script, *builders, *runtime_modules(study.plain["runtimes"][runtime]), *modules)


def table_modules(name):
    """What a change of a table comes from, with what tables declare that it is made of."""
    table = all_tables()[name]
    return [*table.modules, *[all_tables()[other].module for other in table.settings(study).get("tables", ())]]


def figure_modules(name):
    """What a change of a figure comes from: its own module, and what its tables declare for it."""
    return [all_figures()[name].module, *[all_tables()[table].module for table in FIGURES[name]]]


def results_folder(wildcards):
    return RESULTS


def study_folder(wildcards):
    return FOLDER


def index_of(dataset):
    """The files of a data set's index."""
    return {kind: f"{RESULTS}/datasets/{dataset}/{kind}.parquet" for kind in ("images", "instances")}


def one_of(names):
    """A constraint that only these names meet."""
    return "|".join(map(re.escape, names)) or "(?!)"


def passing(file):
    """An output that goes when what needs it is there, unless masks are to be kept."""
    return file if PRECISION.keep_masks else temp(file)


def memory(stage):
    """Megabytes of a job, by stage, variant and attempt."""
    return lambda wildcards, attempt: resources.memory_mb(
        stage, study.cards.get(wildcards.get("variant")), slurm.FAILURES.attempt(wildcards, slurm.MEMORY, attempt)
    )


def limit(stage):
    """Minutes of a job, by stage, or by what is estimated for its variant and dataset, and by attempt."""

    def minutes(wildcards, attempt):
        attempt = slurm.FAILURES.attempt(wildcards, slurm.TIME, attempt)
        if stage in resources.STAGE_MINUTES:
            return resources.stage_minutes(stage, attempt, SITE.max_runtime)
        return resources.minutes(resources.estimate(study, stage, wildcards, cold=True), attempt, SITE.max_runtime)

    return minutes


def gpu_options(gpu):
    """What jobs with a GPU ask for besides it. gpu: from wildcards to the number of GPUs."""

    def where_needed(value):
        return lambda wildcards: value if gpu(wildcards) else ""

    given = {"gpu_model": SITE.gpu_model, "gres": SITE.gres}
    return {name: where_needed(value) for name, value in given.items() if value}


def queueing(stage, *, clock=False):
    """Options of sbatch: the longest jobs of a study start first, and a job with a clock runs alone."""
    alone = ["--exclusive"] if clock and SITE.exclusive else []
    return lambda wildcards: " ".join(
        [*alone, *filter(None, [SITE.slurm_extra]), resources.niceness(study, stage, wildcards)]
    )


def bundle(clock=lambda wildcards: True):
    """What makes the clocks of a variant on a data set one job under SLURM (sambench.bundles)."""
    return lambda wildcards: (
        f"{wildcards.dataset}/{wildcards.variant}/{'gpu' if gpu_of(wildcards) else 'cpu'}" if clock(wildcards) else ""
    )


def needs(stage, gpu=None, *, clock=False):
    """The resources of a stage's jobs. gpu: from wildcards to the number of GPUs; clock: they run alone."""
    asked = {**SITE_OPTIONS, "mem_mb": memory(stage), "runtime": limit(stage)}
    if gpu:
        asked |= {"gpu": gpu, **gpu_options(gpu)}
    if stage in resources.ESTIMATED:
        asked["slurm_extra"] = queueing(stage, clock=clock)
    if clock:
        asked["bundle"] = bundle()
    return asked


# A data set's files are named by `annotations` and `folder`; `source` makes jobs wait for what brings them.
def annotations_files(dataset):
    return study.annotations(dataset) or [f"{SCENES}/annotations.json"]


def annotations_of(wildcards):
    return annotations_files(wildcards.dataset)


def folder_of(wildcards):
    return study.settings.datasets[wildcards.dataset].images or f"{SCENES}/images"


def source_of(wildcards):
    generated = study.settings.datasets[wildcards.dataset].generator
    return [f"{SCENES}/annotations.json"] if generated else retrieved("datasets", wildcards.dataset)


def content_of(wildcards):
    """The digest of the annotation file, or why there is none yet; that of a generated one comes as an input."""
    if study.settings.datasets[wildcards.dataset].generator:
        return ""
    return content(annotations_of(wildcards), f"datasets/{wildcards.dataset}")


def pictures_of(wildcards):
    """The identity of all image files of a data set: a replaced one makes its index run again."""
    if study.settings.datasets[wildcards.dataset].generator:
        return ""
    whole = study.reading(wildcards.dataset)["check_images"] == "full"
    return dataset_identity(annotations_of(wildcards), folder_of(wildcards), whole=whole)


def content(files, retrieval):
    """The digests of files as they are when the job starts: a replaced file makes its stages run again.

    Before the retrieval of missing files has been tried in this run, they count as `to be fetched`, which is never
    recorded: what waits for them is planned.
    """
    if files and all(is_file(file) for file in files):
        return [digest(Path(file)) for file in files]
    marker = Path(f"{RESULTS}/retrieve/{retrieval}.txt")
    wanted = FETCH and retrieval in RETRIEVALS and RETRIEVALS[retrieval].wanted
    tried = marker.is_file() and marker.stat().st_mtime >= START
    return ["to be fetched" if wanted and not tried else "absent"]


# A variant as a script gets it, and the digests of its weights.
def model_of(wildcards):
    return study.model(wildcards.variant, wildcards.runtime)


def weights_of(wildcards):
    return weights_by_name([wildcards.variant])


def weights_by_name(variants):
    return [
        found
        for name in variants
        if study.cards[name].checkpoints
        for found in content(study.cards[name].weights(study.weights_folders), f"variants/{name}")
    ]


# Corruptions alone need photographs.
def textures_of(wildcards):
    return retrieved("textures", textures.NAME) if wildcards.measure == "corruptions" else []


def texture_digests(wildcards):
    wanted = wildcards.measure == "corruptions" and f"textures/{textures.NAME}" in RETRIEVALS
    files = textures.textures(study.weights_folders)
    return {"textures": content(files, f"textures/{textures.NAME}")} if wanted else {}


def threads_with(gpu):
    """A GPU's share of the cores for a network, all without one."""
    shared = gpu and workflow.is_main_process and workflow.local_exec
    return max(1, workflow.cores // workflow.global_resources["gpu"].value) if shared else workflow.cores


def threads_of(wildcards):
    """One for a baseline, so that several run at once."""
    return threads_with(gpu_of(wildcards)) if study.cards[wildcards.variant].checkpoints else 1


def gpu_of(wildcards):
    """A GPU slot for a network, unless its runtime is bound to the CPU."""
    return int(resources.on_gpu(study, wildcards.variant, wildcards.runtime))


def gpu_of_detector(wildcards):
    return int(finds(wildcards) and study.settings.detection.device != "cpu")


def threads_of_detector(wildcards):
    return threads_with(gpu_of_detector(wildcards)) if finds(wildcards) else 1


def boxes_by(dataset, detectors):
    return {name: f"{RESULTS}/boxes/{dataset}/{name}.parquet" for name in detectors}


def boxes_on(dataset):
    """The box file of each detector of the study on a dataset."""
    return boxes_by(dataset, study.detectors_on(dataset))


def boxes_of(wildcards):
    """The box file of each detector in a prompt group."""
    return boxes_by(wildcards.dataset, study.detectors(wildcards.group, wildcards.dataset))


def job_of(wildcards):
    return Job(wildcards.dataset, wildcards.variant, wildcards.runtime, wildcards.group)


@functools.cache
def due(key):
    """Whether this run tries a retrieval (again): something is missing that can be fetched."""
    return FETCH and RETRIEVALS[key].wanted and bool(RETRIEVALS[key].missing(study))


def retrieved(kind, name):
    """The marker that jobs wait for; while nothing is due, what counts is the content of the files, see `content`.

    When a retrieval is tried, what waits for it runs after it: behind an ancient file of a job that runs, Snakemake 9.27
    plans nothing, not even what is missing.
    """
    key = f"{kind}/{name}"
    marker = f"{RESULTS}/retrieve/{key}.txt"
    return [marker if due(key) else ancient(marker)] if key in RETRIEVALS else []


def attempt_of(wildcards):
    """When the retrieval was last tried."""
    if due(f"{wildcards.kind}/{wildcards.name}"):
        return str(START)
    marker = Path(f"{RESULTS}/retrieve/{wildcards.kind}/{wildcards.name}.txt")
    return marker.read_text(encoding="utf-8").partition("\n")[0] if marker.is_file() else ""


def logged_at(wildcards):
    """When the study was last logged because there was no database: now, where there is none."""
    if not SERVER and not Path(f"{RESULTS}/mlflow.db").is_file():
        return str(START)
    note = Path(f"{FOLDER}/mlflow.json")
    return json.loads(note.read_text(encoding="utf-8"))["attempt"] if note.is_file() else ""


def finds(wildcards):
    """Whether a network has to find the boxes."""
    return DETECTOR_CARDS[wildcards.detector].runs(wildcards.dataset)


def box_sources(wildcards):
    """The digests of the published file or of the checkpoint files."""
    card = DETECTOR_CARDS[wildcards.detector]
    return content(card.sources(wildcards.dataset, study.weights_folders), f"detectors/{card.name}")


def generator_settings(wildcards):
    family = study.cards[wildcards.variant].family
    return EVERYTHING["settings"] | EVERYTHING["family_settings"].get(family, {})


def everything_models(wildcards):
    """The variant, and the detector where the sampler takes its boxes."""
    return [wildcards.variant, *([EVERYTHING["detector"]] if wildcards.sampler == "object_aware" else [])]


def everything_detector(wildcards):
    """The detector's card; empty for samplers without one, which then do not depend on it."""
    names = everything_models(wildcards)[1:]
    return {"name": names[0], "card": study.card(names[0])} if names else {}
