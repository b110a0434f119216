"""Prompts from ground truth, one file a dataset and group."""


rule prompts:
    input:
        sorted({job.prompts_file(RESULTS) for job in study.jobs()}),


rule prompt_group:
    input:
        script=script("prompts"),
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
    output:
        f"{RESULTS}/prompts/{{dataset}}/{{group}}.parquet",
    log:
        f"{RESULTS}/logs/prompts/{{dataset}}/{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prompts/{{dataset}}/{{group}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("prompts"),
        runtime=limit("prompts"),
    params:
        code=code("prompts"),
        types=lambda wildcards: json.dumps(study.prompt_types(wildcards.group)),
    shell:
        "python {input.script} --dataset {wildcards.dataset} --instances {input.instances} "
        "--types {params.types:q} --output {output} 2>&1 | tee {log}"
