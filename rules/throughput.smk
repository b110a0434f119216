"""Throughput, alone on its machine; and the agreement of a runtime's masks with those of eager float32."""


rule throughput:
    input:
        THROUGHPUT_TABLE,


rule agreement:
    input:
        f"{RESULTS}/tables/agreement.parquet",


rule throughput_variant:
    input:
        script=script("throughput"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        weights=lambda wildcards: study.weights(wildcards.variant),
    output:
        f"{RESULTS}/throughput/{{dataset}}/{{variant}}/{{runtime}}.parquet",
    log:
        f"{RESULTS}/logs/throughput/{{dataset}}/{{variant}}/{{runtime}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/throughput/{{dataset}}/{{variant}}/{{runtime}}.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: workflow.cores
    resources:
        gpu=segany_gpu,
        mem_mb=memory("throughput"),
        runtime=limit("throughput"),
        slurm_extra=queueing("throughput", "--exclusive"),
    params:
        code=measuring_code("throughput"),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        settings=json.dumps(study.config["throughput"]),
    shell:
        MEASURE


rule agreement_variant:
    input:
        script=script("agreement"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        weights=lambda wildcards: study.weights(wildcards.variant),
    output:
        f"{RESULTS}/agreement/{{dataset}}/{{variant}}/{{runtime}}.parquet",
    log:
        f"{RESULTS}/logs/agreement/{{dataset}}/{{variant}}/{{runtime}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/agreement/{{dataset}}/{{variant}}/{{runtime}}.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: segany_threads
    resources:
        gpu=segany_gpu,
        mem_mb=memory("agreement"),
        runtime=limit("agreement"),
        slurm_extra=queueing("agreement"),
    params:
        code=measuring_code("agreement"),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        settings=json.dumps(study.config["agreement"]),
    shell:
        MEASURE


rule throughput_table:
    input:
        measured_files("throughput"),
        script=script("throughput_table"),
    output:
        expand(
            "{folder}/throughput.{suffix}",
            folder=f"{RESULTS}/tables",
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/throughput_table.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("throughput_table"),
        results=results_folder,
        jobs=json.dumps(MEASURED_JOBS),
    shell:
        "python {input.script} --jobs {params.jobs:q} --results {params.results} 2>&1 | tee {log}"


rule agreement_table:
    input:
        measured_files("agreement"),
        script=script("agreement_table"),
    output:
        expand(
            "{folder}/agreement.{suffix}",
            folder=f"{RESULTS}/tables",
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/agreement_table.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("agreement_table"),
        results=results_folder,
        jobs=json.dumps(MEASURED_JOBS),
        statistics=study.config["statistics"],
    shell:
        "python {input.script} --jobs {params.jobs:q} --resamples {params.statistics[resamples]} "
        "--seed {params.statistics[seed]} --results {params.results} 2>&1 | tee {log}"
