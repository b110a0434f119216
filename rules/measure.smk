"""Cost of variants: one rule for every measure; those with a clock run alone, efficiency is counted and needs no data."""

from sambench.jobs import measured_file
from sambench.settings import CLOCKS, MEASURES, ON_IMAGES

for target in MEASURES:

    # The tables of a measure have names that begin with its name.
    rule:
        name:
            target
        input:
            [table.file(FOLDER) for table in selected_tables(study) if table.name.startswith(target)],


rule measure:
    input:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        retrieved=lambda wildcards: retrieved("variants", wildcards.variant) + textures_of(wildcards),
    output:
        measured=measured_file(RESULTS, "{measure}", "{dataset}", "{variant}", "{runtime}"),
    log:
        f"{RESULTS}/logs/{{measure}}/{{dataset}}/{{variant}}/{{runtime}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{measure}}/{{dataset}}/{{variant}}/{{runtime}}.tsv"
    wildcard_constraints:
        measure=one_of(ON_IMAGES),
    conda:
        "../envs/sambench.yaml"
    threads: lambda wildcards: workflow.cores if wildcards.measure in CLOCKS else threads_of(wildcards)
    resources:
        **gpu_options(gpu_of),
        gpu=gpu_of,
        mem_mb=lambda wildcards, attempt: memory(wildcards.measure)(wildcards, attempt),
        runtime=lambda wildcards, attempt: limit(wildcards.measure)(wildcards, attempt),
        slurm_extra=lambda wildcards: queueing(wildcards.measure, clock=wildcards.measure in CLOCKS)(wildcards),
        bundle=bundle(clock=lambda wildcards: wildcards.measure in CLOCKS),
    params:
        code=lambda wildcards: model_code(
            "measure", [wildcards.variant], wildcards.runtime, f"sambench.measure.{wildcards.measure}"
        ),
        model=model_of,
        weights=weights_of,
        settings=lambda wildcards: study.plain[wildcards.measure] | texture_digests(wildcards),
    script:
        "../workflow/scripts/measure.py"


# Counts need neither data nor weights, except the size of the checkpoint and encoders that are ONNX files.
use rule measure as measure_efficiency with:
    input:
        retrieved=lambda wildcards: retrieved("variants", wildcards.variant),
    output:
        measured=f"{RESULTS}/{{measure}}/{{variant}}.parquet",
    log:
        f"{RESULTS}/logs/{{measure}}/{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{measure}}/{{variant}}.tsv"
    wildcard_constraints:
        measure="efficiency",
    threads: 1
    resources:
        **needs("efficiency"),
    params:
        code=lambda wildcards: code(
            "measure",
            "sambench.measure.efficiency",
            *(study.builder_modules(wildcards.variant) if study.cards[wildcards.variant].checkpoints else []),
        ),
        model=lambda wildcards: {
            "name": wildcards.variant,
            "card": study.card(wildcards.variant),
            "runtime": {"device": "cpu"},
            "weights": study.plain["weights"],
        },
        weights=lambda wildcards: study.cards[wildcards.variant].counted_files(study.weights_folders),
        settings={"image_size": study.plain["efficiency"]["image_size"]},
