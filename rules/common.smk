"""What rules share: the checked study, the digest of a stage's code, and how parameters follow from wildcards."""

import json
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sambench import resources
from sambench.config import check_dataset, read_study
from sambench.errors import InputError
from sambench.jobs import Job, mask_selections
from sambench.provenance import source_digest

# Jobs call `python`: make it the one that runs Snakemake, whether its environment is activated or not. An
# environment of --sdm conda is activated later and so comes before it.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.getenv("PATH", "")]))

try:
    study = read_study(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = study.results
SCENES = f"{RESULTS}/datasets/scenes/source"
EVERYTHING = study.config["segevery"]
CLASS_AGNOSTIC = "--class-agnostic" if study.config["average_precision"]["class_agnostic"] else ""


# Seconds of work, or a database: on the machine that Snakemake runs on, also when a cluster does the rest.
localrules:
    scenes,
    efficiency_table,
    latency_table,
    throughput_table,
    agreement_table,
    reproduction_table,
    segevery_table,
    instances_table,
    figure,
    report_page,
    tracking,


wildcard_constraints:
    dataset=r"[^/]+",
    variant=r"[^/]+",
    runtime=r"[^/]+",
    group=r"[^/]+",
    shard=r"\d+-of-\d+",


def script(name):
    """The path of a stage's script: an input, so that it is compared by content."""
    return f"workflow/scripts/{name}.py"


def code(name, *modules):
    """What makes a stage run again: an edit to its script or to any module that it imports."""
    return source_digest(Path(workflow.basedir) / script(name), *modules)


def results_folder(wildcards):
    return RESULTS


def annotations_of(wildcards):
    try:
        check_dataset(wildcards.dataset, study.config["datasets"][wildcards.dataset])
    except InputError as error:
        raise WorkflowError(str(error)) from None
    return study.config["datasets"][wildcards.dataset].get("annotations", f"{SCENES}/annotations.json")


def images_of(wildcards):
    return study.config["datasets"][wildcards.dataset].get("images", f"{SCENES}/images")


def image_limit_of(wildcards):
    limit = study.config["datasets"][wildcards.dataset].get("image_limit")
    return f"--image-limit {limit}" if limit else ""


def memory(stage):
    """Megabytes of a job, by stage, variant and attempt."""
    return lambda wildcards, attempt: resources.memory_mb(stage, study.cards.get(wildcards.get("variant")), attempt)


def limit(stage):
    """Minutes of a job, by stage, or by what is estimated for its variant and dataset, and by attempt."""
    if stage in resources.STAGE_MINUTES:
        return lambda wildcards, attempt: resources.stage_minutes(stage, attempt)
    return lambda wildcards, attempt: resources.minutes(resources.estimate(study, stage, wildcards), attempt)


def queueing(stage, *options):
    """Options of sbatch: the longest jobs of a study start first."""
    return lambda wildcards: " ".join([*options, resources.niceness(study, stage, wildcards)])


def segany_threads(wildcards):
    """All cores for a network, which uses them; one for a baseline, so that several run at once."""
    return workflow.cores if study.cards[wildcards.variant].checkpoints else 1


def segany_gpu(wildcards):
    """A GPU slot for a network, unless its runtime is bound to the CPU."""
    cpu = study.config["runtimes"][wildcards.runtime].get("device") == "cpu"
    return 0 if cpu or not study.cards[wildcards.variant].checkpoints else 1


def boxes_by(dataset, detectors):
    return {name: f"{RESULTS}/boxes/{dataset}/{name}.parquet" for name in detectors}


def boxes_of(wildcards):
    """The box file of each detector in a prompt group."""
    return boxes_by(wildcards.dataset, study.detectors(wildcards.group))


def job_of(wildcards):
    return Job(wildcards.dataset, wildcards.variant, wildcards.runtime, wildcards.group)


def one_of(names):
    """A constraint that only these names meet."""
    return "|".join(map(re.escape, names)) or "(?!)"


def runtime_of(wildcards):
    return json.dumps({"name": wildcards.runtime} | study.config["runtimes"][wildcards.runtime])


def generator_settings(wildcards):
    family = study.cards[wildcards.variant].family
    return json.dumps(EVERYTHING["settings"] | EVERYTHING["family_settings"].get(family, {}))


def everything_models(wildcards):
    """The variant, and the detector where the sampler takes its boxes."""
    detector = [EVERYTHING["detector"]] if wildcards.sampler == "object_aware" else []
    return [wildcards.variant, *detector]


def everything_code(wildcards):
    models = everything_models(wildcards)
    return code(
        "segevery",
        *[module for model in models for module in study.builder_modules(model)],
    )


def everything_detector(wildcards):
    """The detector's card; empty for samplers without one, which then do not depend on it."""
    names = everything_models(wildcards)[1:]
    return json.dumps({"name": names[0]} | study.card(names[0]) if names else {})


def everything_command(kind):
    return (
        f"python {{input.script}} --kind {kind} "
        "--variant {wildcards.variant} --card {params.card:q} --runtime {params.runtime:q} "
        "--weights {params.weights:q} --sampler {wildcards.sampler} --detector {params.detector:q} "
        "--settings {params.settings:q} --images {input.images} --instances {input.instances} "
        "--count {params.study[images]} --warmup {params.study[warmup]} --threads {threads}"
    )


def efficiency_facts():
    """What the table takes from the cards."""
    cards = {name: study.cards[name] for name in study["variants"]}
    return json.dumps(
        {name: {"input_size": card.input_size, "params_m": card.params_m} for name, card in cards.items()}
    )


def counted_modules(variant):
    """The code of a network; that of a baseline is not looked at."""
    return study.builder_modules(variant) if study.cards[variant].checkpoints else []


MEASURED_JOBS = [
    [dataset, variant, runtime]
    for dataset in study["datasets"]
    for variant in study["variants"]
    for runtime in study["runtimes"]
]
# What every measuring job is told; its rule adds `code` and `settings`.
MEASURE = (
    "python {input.script} --variant {wildcards.variant} --card {params.card:q} --runtime {params.runtime:q} "
    "--weights {params.weights:q} --images {input.images} --instances {input.instances} "
    "--settings {params.settings:q} --threads {threads} --output {output} 2>&1 | tee {log}"
)


def measured_files(stage):
    return [f"{RESULTS}/{stage}/{'/'.join(job)}.parquet" for job in MEASURED_JOBS]


def measuring_code(stage):
    return lambda wildcards: code(stage, *study.builder_modules(wildcards.variant))
