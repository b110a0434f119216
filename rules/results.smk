"""From what was measured to tables, figures, the report and MLflow: rules that only go through the registry of tables."""

from sambench.results.parts import part_settings, parted

TABLES = selected_tables(study)
FIGURES = selected_figures([table.name for table in TABLES])  # each with the tables that it is drawn from
TABLE_FILES = [table.file(FOLDER) for table in TABLES]
TABLE_MODULES = [module for table in TABLES for module in table.modules]
STUDY = {key: value for key, value in study.plain.items() if key not in ("variants", "detectors", "site")}
PARTED = parted(study)
OVERVIEW = [table.name for table in TABLES if table.page or table.name.startswith("accuracy")]


rule tables:
    input:
        TABLE_FILES,
        f"{FOLDER}/tables/overview.md",


rule report:
    input:
        f"{FOLDER}/report/index.html",


# What one variant has to say in the tables that come in parts: they only stack it.
rule parts:
    input:
        shards=lambda wildcards: job_of(wildcards).shard_files(RESULTS, study.shards(wildcards.dataset)),
        prompts=f"{RESULTS}/prompts/{{dataset}}/{{group}}.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
    output:
        [Job("{dataset}", "{variant}", "{runtime}", "{group}").part_file(RESULTS, table) for table in PARTED],
    log:
        f"{RESULTS}/logs/parts/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/parts/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        **needs("parts"),
    params:
        code=code("parts", *[all_tables()[name].module for name in PARTED]),
        results=results_folder,
        tables=PARTED,
        settings=lambda wildcards: part_settings(study, job_of(wildcards)),
    script:
        "../workflow/scripts/parts.py"


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
        code=lambda wildcards: code("table", *table_modules(wildcards.table)),
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
        **needs("tables"),


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
        files=study.first_files(),
    script:
        "../workflow/scripts/overview.py"


rule figure:
    input:
        lambda wildcards: [all_tables()[name].file(FOLDER) for name in FIGURES[wildcards.figure]],
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
    wildcard_constraints:
        figure=one_of(FIGURES),
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=lambda wildcards: code("figure", "sambench.results.figures", *figure_modules(wildcards.figure)),
        folder=study_folder,
        tables=lambda wildcards: FIGURES[wildcards.figure],
    script:
        "../workflow/scripts/figure.py"


rule report_page:
    input:
        TABLE_FILES,
        expand("{folder}/{figure}.svg", folder=f"{FOLDER}/figures", figure=FIGURES),
        [file for dataset in study["datasets"] for file in index_of(dataset).values()],
        [*PICTURED.values(), *GALLERY],
    output:
        report=report(f"{FOLDER}/report/index.html", caption="../workflow/report/page.rst", category="Report"),
    log:
        f"{RESULTS}/logs/report/{study.name}.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("report", *TABLE_MODULES, *[all_figures()[name].module for name in FIGURES]),
        name=study.name,
        folder=study_folder,
        tables=[table.name for table in TABLES],
        figures=list(FIGURES),
        datasets={name: index_of(name) | {"title": study.settings.datasets[name].title} for name in study["datasets"]},
        pictured=PICTURED,
        gallery=[list(job) for job in study.gallery_jobs()],
        files=study.first_files(),
        study=STUDY,
    script:
        "../workflow/scripts/report.py"


# The only rule that imports MLflow. The database is a view of the files and no output: it may be deleted, and then each
# study is logged again when it runs next.
rule tracking:
    input:
        TABLE_FILES,
        rules.report_page.output,
    output:
        tracking=f"{FOLDER}/mlflow.json",
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
        shards={name: study.shards(name) for name in study["datasets"]},
        annotations={name: annotations_files(name) for name in study["datasets"]},
        server=SERVER,
        attempt=logged_at,
    script:
        "../workflow/scripts/tracking.py"
