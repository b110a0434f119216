"""Pictures: per dataset a job that picks instances from what was scored, then one per variant that keeps their masks."""

from sambench.jobs import gallery_file, picks_file
from sambench.results import paired

GALLERY = [gallery_file(FOLDER, *job) for job in study.gallery_jobs()]
PICTURED = {dataset: picks_file(FOLDER, dataset) for dataset in study.pictured()}


rule gallery:
    input:
        GALLERY,


rule gallery_pick:
    input:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        segany=lambda wildcards: [
            file
            for job in study.prompted_jobs()
            if job.dataset == wildcards.dataset
            for file in [job.prompts_file(RESULTS), *job.shard_files(RESULTS, study.shards(job.dataset))]
        ],
    output:
        picks=picks_file(FOLDER, "{dataset}"),
    log:
        f"{RESULTS}/logs/gallery/{study.name}/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gallery/{study.name}/{{dataset}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        **SITE_OPTIONS,
        mem_mb=memory("tables"),
        runtime=limit("gallery"),
    params:
        code=code("gallery_pick"),
        plan=paired.plan(study),
        number=int(study.settings.study.gallery),
        chosen=lambda wildcards: list(study.settings.study.gallery_annotations.get(wildcards.dataset, ())),
        results=results_folder,
    script:
        "../workflow/scripts/gallery_pick.py"


rule gallery_masks:
    input:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        picks=picks_file(FOLDER, "{dataset}"),
        retrieved=lambda wildcards: retrieved("variants", wildcards.variant),
    output:
        gallery=gallery_file(FOLDER, "{dataset}", "{variant}", "{runtime}"),
    log:
        f"{RESULTS}/logs/gallery/{study.name}/{{dataset}}/{{variant}}/{{runtime}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gallery/{study.name}/{{dataset}}/{{variant}}/{{runtime}}.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: threads_of
    resources:
        **needs("gallery", gpu_of),
    params:
        code=lambda wildcards: model_code("gallery", [wildcards.variant], wildcards.runtime),
        model=model_of,
        weights=weights_of,
    script:
        "../workflow/scripts/gallery.py"
