"""Segment everything: for each dataset, variant, runtime and sampler a job of quality and one of time, which runs alone."""

from sambench.jobs import EverythingJob

EVERYTHING_JOBS = [
    EverythingJob(dataset, variant, runtime, sampler)
    for dataset in study["datasets"]
    for variant in study["variants"]
    for runtime in study["runtimes"]
    for sampler in study["samplers"]
]
EVERYTHING_KINDS = ["quality", "time", "masks"] if EVERYTHING["keep_masks"] else ["quality", "time"]
EVERYTHING_FOLDER = f"{RESULTS}/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}"


wildcard_constraints:
    sampler=r"[^/]+",


rule segevery:
    input:
        [job.file(RESULTS, kind) for job in EVERYTHING_JOBS for kind in EVERYTHING_KINDS],
        [f"{RESULTS}/tables/segevery.parquet"] if EVERYTHING_JOBS else [],


rule segevery_quality:
    input:
        script=script("segevery"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        weights=lambda wildcards: [file for model in everything_models(wildcards) for file in study.weights(model)],
    output:
        **({"masks": f"{EVERYTHING_FOLDER}/masks.parquet"} if EVERYTHING["keep_masks"] else {}),
        quality=f"{EVERYTHING_FOLDER}/quality.parquet",
    log:
        f"{RESULTS}/logs/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/quality.log",
    benchmark:
        f"{RESULTS}/benchmarks/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/quality.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: segany_threads
    resources:
        gpu=segany_gpu,
        mem_mb=memory("segevery"),
        runtime=limit("segevery"),
        slurm_extra=queueing("segevery"),
    params:
        code=everything_code,
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        detector=everything_detector,
        settings=generator_settings,
        study=EVERYTHING,
        masks=lambda wildcards, output: (f"--masks {output.masks}" if EVERYTHING["keep_masks"] else ""),
    shell:
        everything_command("quality") + " --output {output.quality} {params.masks} 2>&1 | tee {log}"


# All cores: no other job runs beside a clock.
rule segevery_time:
    input:
        script=script("segevery"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        weights=lambda wildcards: [file for model in everything_models(wildcards) for file in study.weights(model)],
    output:
        f"{EVERYTHING_FOLDER}/time.parquet",
    log:
        f"{RESULTS}/logs/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/time.log",
    benchmark:
        f"{RESULTS}/benchmarks/segevery/{{dataset}}/{{variant}}/{{runtime}}/{{sampler}}/time.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: workflow.cores
    resources:
        gpu=segany_gpu,
        mem_mb=memory("segevery"),
        runtime=limit("segevery"),
        slurm_extra=queueing("segevery", "--exclusive"),
    params:
        code=everything_code,
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        detector=everything_detector,
        settings=generator_settings,
        study=EVERYTHING,
    shell:
        everything_command("time") + " --output {output} 2>&1 | tee {log}"


rule segevery_table:
    input:
        [job.file(RESULTS, kind) for job in EVERYTHING_JOBS for kind in ("quality", "time")],
        script=script("segevery_table"),
    output:
        expand(
            "{folder}/segevery.{suffix}",
            folder=f"{RESULTS}/tables",
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/segevery_table.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("segevery_table"),
        jobs=json.dumps(EVERYTHING_JOBS),
        results=results_folder,
    shell:
        "python {input.script} --jobs {params.jobs:q} --results {params.results} 2>&1 | tee {log}"
