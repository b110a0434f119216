"""Datasets: generated or given, each indexed into images and instances."""

from sambench.datasets.scenes import IMAGE_NAMES


rule scenes:
    output:
        f"{SCENES}/annotations.json",
        [f"{SCENES}/images/{name}" for name in IMAGE_NAMES],
    log:
        f"{RESULTS}/logs/scenes.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("scenes"),
        folder=lambda wildcards: SCENES,
    script:
        "../workflow/scripts/scenes.py"


rule index:
    input:
        source=source_of,
    output:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        notes=f"{RESULTS}/datasets/{{dataset}}/notes.parquet",
    log:
        f"{RESULTS}/logs/index/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/index/{{dataset}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        **needs("index"),
    params:
        code=code("index"),
        annotations=annotations_of,
        content=content_of,
        pictures=pictures_of,
        folder=folder_of,
        reading=lambda wildcards: study.reading(wildcards.dataset),
        faults=f"{RESULTS}/logs/index/{{dataset}}.faults.txt",
        image_limit=lambda wildcards: study.settings.datasets[wildcards.dataset].image_limit,
    script:
        "../workflow/scripts/index.py"
