"""Latency: one job a dataset, variant and runtime, each of which takes all cores so that it runs alone."""

THROUGHPUT_TABLE = f"{RESULTS}/tables/throughput.parquet"


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
    benchmark:
        f"{RESULTS}/benchmarks/latency/{{dataset}}/{{variant}}/{{runtime}}.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: workflow.cores
    resources:
        gpu=segany_gpu,
        mem_mb=memory("latency"),
        runtime=limit("latency"),
        slurm_extra=queueing("latency", "--exclusive"),
    params:
        code=measuring_code("latency"),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        settings=json.dumps(study.config["latency"]),
    shell:
        MEASURE


rule latency_table:
    input:
        measured_files("latency"),
        script=script("latency_table"),
        throughput=[THROUGHPUT_TABLE] if "throughput" in study["measures"] else [],
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
        jobs=json.dumps(MEASURED_JOBS),
        statistics=study.config["statistics"],
        throughput=f"--throughput {THROUGHPUT_TABLE}" if "throughput" in study["measures"] else "",
    shell:
        "python {input.script} --jobs {params.jobs:q} --resamples {params.statistics[resamples]} "
        "--seed {params.statistics[seed]} {params.throughput} --results {params.results} 2>&1 | tee {log}"
