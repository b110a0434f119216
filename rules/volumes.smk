"""Volumes: NIfTI images, their labels and clicks in three dimensions; one job per set, variant for volumes and runtime."""

from sambench.volumes.nifti import job_settings

VOLUMES = study.plain["volumes"]


rule volumes:
    input:
        [table.file(FOLDER) for table in selected_tables(study) if table.name == "volumes"],


rule volumes_measure:
    input:
        retrieved=lambda wildcards: retrieved("variants", wildcards.variant),
    output:
        measured=measured_file(RESULTS, "volumes", "{dataset}", "{variant}", "{runtime}"),
    log:
        f"{RESULTS}/logs/volumes/{{dataset}}/{{variant}}/{{runtime}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/volumes/{{dataset}}/{{variant}}/{{runtime}}.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: threads_of
    resources:
        **gpu_options(gpu_of),
        **SITE_OPTIONS,
        gpu=gpu_of,
        mem_mb=memory("volumes"),
        runtime=limit("volumes"),
    params:
        code=lambda wildcards: model_code("measure", [wildcards.variant], wildcards.runtime, "sambench.measure.volumes"),
        measure="volumes",
        model=model_of,
        weights=weights_of,
        settings=lambda wildcards: job_settings(
            wildcards.dataset, VOLUMES["datasets"][wildcards.dataset], VOLUMES["clicks"]
        ),
    script:
        "../workflow/scripts/measure.py"
