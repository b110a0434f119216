"""Promptable segmentation: one job per dataset, variant, runtime, prompt group and shard."""


rule segany:
    input:
        study.segany_files(),
        # Masks that do not stay are there for their AP, which goes with them.
        (study.mask_files() if PRECISION.keep_masks else [job.precision_file(RESULTS) for job in study.mask_jobs()]),


rule segany_shard:
    input:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        prompts=f"{RESULTS}/prompts/{{dataset}}/{{group}}.parquet",
        retrieved=lambda wildcards: retrieved("variants", wildcards.variant),
        boxes=lambda wildcards: boxes_of(wildcards).values(),
    output:
        segany=f"{RESULTS}/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.tsv"
    wildcard_constraints:
        group=one_of([group for group in study["prompt_groups"] if group not in study.detector_groups()]),
    conda:
        "../envs/sambench.yaml"
    threads: threads_of
    resources:
        **needs("segany", gpu_of),
    params:
        code=lambda wildcards: model_code("segany", [wildcards.variant], wildcards.runtime),
        model=model_of,
        weights=weights_of,
        selections=study["selections"],
        boundary=study.settings.segany.boundary,
        detectors=boxes_of,
        keep_unjudged=lambda wildcards: bool(boxes_of(wildcards)) and PRECISION.keep_unjudged,
    script:
        "../workflow/scripts/segany.py"


# Prompt groups with detectors: their boxes give masks.
use rule segany_shard as segany_shard_with_masks with:
    output:
        segany=f"{RESULTS}/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet",
        masks=passing(f"{RESULTS}/masks/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet"),
    wildcard_constraints:
        group=one_of(study.detector_groups()),
