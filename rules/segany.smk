"""Promptable segmentation: one job a dataset, variant, runtime, prompt group and shard."""


rule segany:
    input:
        study.segany_files(),


rule segany_shard:
    input:
        script=script("segany"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        prompts=f"{RESULTS}/prompts/{{dataset}}/{{group}}.parquet",
        weights=lambda wildcards: study.weights(wildcards.variant),
    output:
        f"{RESULTS}/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.log",
    conda:
        "../envs/sambench.yaml"
    threads: segany_threads
    resources:
        gpu=segany_gpu,
        mem_mb=16000,
    params:
        code=lambda wildcards: code("segany", *study.builder_modules(wildcards.variant)),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        selections=json.dumps(study["selections"]),
    shell:
        "python {input.script} --variant {wildcards.variant} --card {params.card:q} "
        "--runtime {params.runtime:q} --weights {params.weights:q} --images {input.images} "
        "--instances {input.instances} --prompts {input.prompts} --selections {params.selections:q} "
        "--shard {wildcards.shard} --threads {threads} --output {output} 2>&1 | tee {log}"
