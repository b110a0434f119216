"""From what was measured to tables, figures, the report and MLflow: rules that only go through the registry of tables."""

TABLES = selected_tables(study)
FIGURES = [table.name for table in TABLES if table.draw and {*table.drawn_from} <= {other.name for other in TABLES}]
TABLE_FILES = [table.file(FOLDER) for table in TABLES]
TABLE_MODULES = [table.module for table in TABLES]
STUDY = {key: value for key, value in study.plain.items() if key not in ("variants", "detectors")}
OVERVIEW = [table.name for table in TABLES if table.page or table.name.startswith("accuracy")]


rule tables:
    input:
        TABLE_FILES,
        f"{FOLDER}/tables/overview.md",


rule report:
    input:
        f"{FOLDER}/report/index.html",


rule table:
    input:
        sources=lambda wildcards: all_tables()[wildcards.table].sources(study),
    output:
        f"{FOLDER}/tables/{{table}}.parquet",
        f"{FOLDER}/tables/{{table}}.md",
        f"{FOLDER}/tables/{{table}}.tex",
        report(
            f"{FOLDER}/tables/{{table}}.csv",
            caption="../workflow/report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{RESULTS}/logs/tables/{study.name}/{{table}}.log",
    wildcard_constraints:
        table=one_of([table.name for table in TABLES if not table.large]),
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=lambda wildcards: code("table", all_tables()[wildcards.table].module),
        results=results_folder,
        folder=study_folder,
        settings=lambda wildcards: all_tables()[wildcards.table].settings(study),
    script:
        "../workflow/scripts/table.py"


# Tables that read every result of a study are jobs of a cluster.
use rule table as table_large with:
    benchmark:
        f"{RESULTS}/benchmarks/tables/{study.name}/{{table}}.tsv"
    wildcard_constraints:
        table=one_of([table.name for table in TABLES if table.large]),
    localrule: False
    resources:
        mem_mb=memory("tables"),
        runtime=limit("tables"),


rule overview:
    input:
        [all_tables()[name].file(FOLDER) for name in OVERVIEW],
    output:
        overview=f"{FOLDER}/tables/overview.md",
    log:
        f"{RESULTS}/logs/tables/{study.name}/overview.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("overview", *[table.module for table in TABLES if table.page]),
        folder=study_folder,
        tables=OVERVIEW,
        missing=missing_weights,
    script:
        "../workflow/scripts/overview.py"


rule figure:
    input:
        lambda wildcards: [all_tables()[name].file(FOLDER) for name in all_tables()[wildcards.figure].drawn_from],
    output:
        svg=report(
            f"{FOLDER}/figures/{{figure}}.svg",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png=f"{FOLDER}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figures/{study.name}/{{figure}}.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=lambda wildcards: code("figure", "sambench.results.figures", all_tables()[wildcards.figure].module),
        folder=study_folder,
    script:
        "../workflow/scripts/figure.py"


rule report_page:
    input:
        TABLE_FILES,
        expand("{folder}/{figure}.svg", folder=f"{FOLDER}/figures", figure=FIGURES),
    output:
        report=report(f"{FOLDER}/report/index.html", caption="../workflow/report/page.rst", category="Report"),
    log:
        f"{RESULTS}/logs/report/{study.name}.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("report", *TABLE_MODULES),
        folder=study_folder,
        tables=[table.name for table in TABLES],
        study=STUDY,
    script:
        "../workflow/scripts/report.py"


# The only rule that imports MLflow: two that write at once would break the database.
rule tracking:
    input:
        TABLE_FILES,
        rules.report_page.output,
    output:
        database=update(f"{RESULTS}/mlflow.db"),
    log:
        f"{RESULTS}/logs/tracking/{study.name}.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("tracking", *TABLE_MODULES),
        results=results_folder,
        folder=study_folder,
        tables=[table.name for table in TABLES],
        study=STUDY,
    script:
        "../workflow/scripts/tracking.py"
