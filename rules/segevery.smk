"""Segment everything: for each dataset, variant, runtime and sampler a job of quality and one of time, which runs alone."""

EVERYTHING = study.plain["segevery"]
EVERYTHING_FOLDER = f"{RESULTS}/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}"
EVERYTHING_PARAMS = {
    "code": lambda wildcards: model_code("segevery", everything_models(wildcards), wildcards.runtime),
    "model": model_of,
    "weights": lambda wildcards: weights_by_name(everything_models(wildcards)),
    "detector": everything_detector,
    "settings": generator_settings,
    "image_count": EVERYTHING["images"],
    "warmup": EVERYTHING["warmup"],
}


rule segevery:
    input:
        [job.file(RESULTS, kind) for job in study.everything_jobs() for kind in ("quality", "time")],
        [table.file(FOLDER) for table in selected_tables(study) if table.name == "segevery"],


rule segevery_quality:
    input:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        retrieved=lambda wildcards: [
            file for model in everything_models(wildcards) for file in retrieved("variants", model)
        ],
    output:
        **({"masks": f"{EVERYTHING_FOLDER}/masks.parquet"} if EVERYTHING["keep_masks"] else {}),
        segevery=f"{EVERYTHING_FOLDER}/quality.parquet",
    log:
        f"{RESULTS}/logs/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/quality.log",
    benchmark:
        f"{RESULTS}/benchmarks/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/quality.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: threads_of
    resources:
        **needs("segevery", gpu_of),
    params:
        **EVERYTHING_PARAMS,
        kind="quality",
    script:
        "../workflow/scripts/segevery.py"


# All cores: no other job runs beside a clock.
use rule segevery_quality as segevery_time with:
    output:
        segevery=f"{EVERYTHING_FOLDER}/time.parquet",
    log:
        f"{RESULTS}/logs/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/time.log",
    benchmark:
        f"{RESULTS}/benchmarks/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/time.tsv"
    threads: workflow.cores
    resources:
        **needs("segevery", gpu_of, clock=True),
    params:
        **EVERYTHING_PARAMS,
        kind="time",
