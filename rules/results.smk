"""From per-instance results to tables, figures, the report and MLflow."""

ACCURACY_TABLES = ["boxes", "points"]
COSTS = {"latency": "segany_time", "throughput": "throughput", "agreement": "agreement"}
# What is drawn, and the tables that it is drawn from.
FIGURES = {
    "boxes": ["boxes"],
    "points": ["points"],
    **({"instances": ["instances"]} if study.mask_jobs() else {}),
    **({"segany_time": ["segany_time"]} if "latency" in study["measures"] else {}),
    **({"efficiency": ["efficiency", "segany_time"]} if {"latency", "efficiency"} <= set(study["measures"]) else {}),
}
MEASURED_TABLES = [
    *ACCURACY_TABLES,
    *(["instances", "detectors"] if study.mask_jobs() else []),
    *(["segevery"] if study["samplers"] else []),
    *(["efficiency", "efficiency_parts"] if "efficiency" in study["measures"] else []),
    *[table for measure, table in COSTS.items() if measure in study["measures"]],
]
TABLES = [*MEASURED_TABLES, "reproduction"]
TABLE_FILES = [f"{RESULTS}/tables/{name}.parquet" for name in TABLES]
PUBLISHED = "config/published.csv"
STUDY = json.dumps({key: value for key, value in config.items() if key not in ("variants", "detectors")})


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
            table=ACCURACY_TABLES,
            suffix=["parquet", "csv", "md", "tex"],
        ),
        f"{RESULTS}/tables/overview.md",
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("tables"),
        runtime=limit("tables"),
    params:
        code=code("tables"),
        results=results_folder,
        jobs=json.dumps(study.jobs()),
        shards=json.dumps({name: study.shards(name) for name in study["datasets"]}),
        selections=json.dumps(study["selections"]),
        statistics=study.config["statistics"],
    shell:
        "python {input.script} --jobs {params.jobs:q} --shards {params.shards:q} "
        "--selections {params.selections:q} --resamples {params.statistics[resamples]} "
        "--seed {params.statistics[seed]} --results {params.results} 2>&1 | tee {log}"


rule reproduction_table:
    input:
        [f"{RESULTS}/tables/{name}.parquet" for name in MEASURED_TABLES],
        script=script("reproduction"),
        published=PUBLISHED,
    output:
        expand(
            "{folder}/reproduction.{suffix}",
            folder=f"{RESULTS}/tables",
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/reproduction.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("reproduction"),
        results=results_folder,
        tables=json.dumps(MEASURED_TABLES),
    shell:
        "python {input.script} --published {input.published} --tables {params.tables:q} --results {params.results} "
        "2>&1 | tee {log}"


rule figure:
    input:
        lambda wildcards: [f"{RESULTS}/tables/{name}.parquet" for name in FIGURES[wildcards.figure]],
        script=script("figures"),
    output:
        svg=f"{RESULTS}/figures/{{figure}}.svg",
        png=f"{RESULTS}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure/{{figure}}.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("figures"),
        results=results_folder,
        tables=lambda wildcards: json.dumps(FIGURES[wildcards.figure]),
    shell:
        "python {input.script} --figure {wildcards.figure} --tables {params.tables:q} --results {params.results} "
        "--svg {output.svg} --png {output.png} 2>&1 | tee {log}"


rule report_page:
    input:
        TABLE_FILES,
        expand("{folder}/{figure}.svg", folder=f"{RESULTS}/figures", figure=FIGURES),
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
        tables=json.dumps(TABLES),
        study=STUDY,
    shell:
        "python {input.script} --results {params.results} --tables {params.tables:q} --config {params.study:q} "
        "--database {output} --artifacts {params.results}/mlartifacts 2>&1 | tee {log}"
