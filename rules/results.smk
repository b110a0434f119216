"""From per-instance results to tables, figures, the report and MLflow."""

FIGURES = {"boxes": "Box prompts", "points": "Point prompts"}
TABLES = [
    *FIGURES,
    *(["segevery"] if study["samplers"] else []),
    *(["efficiency", "efficiency_parts"] if "efficiency" in study["measures"] else []),
    *(["segany_time"] if "latency" in study["measures"] else []),
]
TABLE_FILES = [f"{RESULTS}/tables/{name}.parquet" for name in TABLES]
STUDY = json.dumps({key: value for key, value in config.items() if key != "variants"})


rule tables:
    input:
        TABLE_FILES,


rule report:
    input:
        f"{RESULTS}/report/index.html",


rule accuracy_tables:
    input:
        study.segany_files(),
        sorted({job.prompts_file(RESULTS) for job in study.jobs()}),
        script=script("tables"),
    output:
        expand(
            "{folder}/{table}.{suffix}",
            folder=f"{RESULTS}/tables",
            table=FIGURES,
            suffix=["parquet", "csv", "md", "tex"],
        ),
        f"{RESULTS}/tables/overview.md",
    log:
        f"{RESULTS}/logs/tables.log",
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=8000,
    params:
        code=code("tables"),
        results=results_folder,
        jobs=json.dumps(study.jobs()),
        shards=study.config["shards"],
        selections=json.dumps(study["selections"]),
        statistics=study.config["statistics"],
    shell:
        "python {input.script} --jobs {params.jobs:q} --shards {params.shards} "
        "--selections {params.selections:q} --resamples {params.statistics[resamples]} "
        "--seed {params.statistics[seed]} --results {params.results} 2>&1 | tee {log}"


rule figure:
    input:
        script=script("figures"),
        table=f"{RESULTS}/tables/{{table}}.parquet",
    output:
        svg=f"{RESULTS}/figures/{{table}}.svg",
        png=f"{RESULTS}/figures/{{table}}.png",
    log:
        f"{RESULTS}/logs/figure/{{table}}.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("figures"),
        title=lambda wildcards: FIGURES[wildcards.table],
    shell:
        "python {input.script} --table {input.table} --title {params.title:q} --svg {output.svg} "
        "--png {output.png} 2>&1 | tee {log}"


rule report_page:
    input:
        TABLE_FILES,
        expand("{folder}/{table}.svg", folder=f"{RESULTS}/figures", table=FIGURES),
        script=script("report"),
    output:
        f"{RESULTS}/report/index.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("report"),
        results=results_folder,
        tables=json.dumps(TABLES),
        study=STUDY,
    shell:
        "python {input.script} --results {params.results} --tables {params.tables:q} --config {params.study:q} "
        "--output {output} 2>&1 | tee {log}"


# The only rule that imports MLflow: two that write at once would break the database.
rule tracking:
    input:
        TABLE_FILES,
        rules.report_page.output,
        script=script("tracking"),
    output:
        update(f"{RESULTS}/mlflow.db"),
    log:
        f"{RESULTS}/logs/tracking.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("tracking"),
        results=results_folder,
        tables=json.dumps(list(FIGURES)),
        study=STUDY,
    shell:
        "python {input.script} --results {params.results} --tables {params.tables:q} --config {params.study:q} "
        "--database {output} --artifacts {params.results}/mlartifacts 2>&1 | tee {log}"
