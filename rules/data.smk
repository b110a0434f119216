"""Datasets: generated or given, each indexed into images and instances."""

from sambench.datasets.scenes import IMAGE_NAMES


rule scenes:
    input:
        script=script("scenes"),
    output:
        f"{SCENES}/annotations.json",
        [f"{SCENES}/images/{name}" for name in IMAGE_NAMES],
    log:
        f"{RESULTS}/logs/scenes.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("scenes"),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python {input.script} --folder {params.folder} 2>&1 | tee {log}"


rule index_dataset:
    input:
        script=script("index_dataset"),
        annotations=annotations_of,
    output:
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
    log:
        f"{RESULTS}/logs/index_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/index_dataset/{{dataset}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("index_dataset"),
        runtime=limit("index_dataset"),
    params:
        code=code("index_dataset"),
        images=images_of,
        limit=image_limit_of,
    shell:
        "python {input.script} --annotations {input.annotations:q} --images {params.images:q} {params.limit} "
        "--images-table {output.images} --instances-table {output.instances} 2>&1 | tee {log}"
