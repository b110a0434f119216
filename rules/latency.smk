"""Latency: one job a dataset, variant and runtime, each of which takes all cores so that it runs alone."""

LATENCY_JOBS = [
    [dataset, variant, runtime]
    for dataset in study["datasets"]
    for variant in study["variants"]
    for runtime in study["runtimes"]
]
LATENCY_FILES = [f"{RESULTS}/latency/{'/'.join(job)}.parquet" for job in LATENCY_JOBS]


rule latency:
    input:
        f"{RESULTS}/tables/segany_time.parquet",


rule latency_variant:
    input:
        script=script("latency"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        weights=lambda wildcards: study.weights(wildcards.variant),
    output:
        f"{RESULTS}/latency/{{dataset}}/{{variant}}/{{runtime}}.parquet",
    log:
        f"{RESULTS}/logs/latency/{{dataset}}/{{variant}}/{{runtime}}.log",
    conda:
        "../envs/sambench.yaml"
    threads: workflow.cores
    resources:
        gpu=segany_gpu,
        mem_mb=16000,
    params:
        code=lambda wildcards: code("latency", *study.builder_modules(wildcards.variant)),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        settings=json.dumps(study.config["latency"]),
    shell:
        "python {input.script} --variant {wildcards.variant} --card {params.card:q} --runtime {params.runtime:q} "
        "--weights {params.weights:q} --images {input.images} --instances {input.instances} "
        "--settings {params.settings:q} --threads {threads} --output {output} 2>&1 | tee {log}"


rule latency_table:
    input:
        LATENCY_FILES,
        script=script("latency_table"),
    output:
        expand(
            "{folder}/segany_time.{suffix}",
            folder=f"{RESULTS}/tables",
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/latency_table.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("latency_table"),
        results=results_folder,
        jobs=json.dumps(LATENCY_JOBS),
        statistics=study.config["statistics"],
    shell:
        "python {input.script} --jobs {params.jobs:q} --resamples {params.statistics[resamples]} "
        "--seed {params.statistics[seed]} --results {params.results} 2>&1 | tee {log}"
