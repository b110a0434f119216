"""Prompts from ground truth, one file per dataset and group."""


rule prompts:
    input:
        sorted({job.prompts_file(RESULTS) for job in study.jobs()}),


rule prompts_group:
    input:
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
    output:
        prompts=f"{RESULTS}/prompts/{{dataset}}/{{group}}.parquet",
    log:
        f"{RESULTS}/logs/prompts/{{dataset}}/{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prompts/{{dataset}}/{{group}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        **needs("prompts"),
    params:
        code=code("prompts"),
        types=lambda wildcards: study.prompt_types(wildcards.group),
    script:
        "../workflow/scripts/prompts.py"
