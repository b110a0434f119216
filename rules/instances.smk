"""Instance segmentation: average precision of detectors' boxes and of the masks that variants give for them."""

BOX_PRECISION = [f"{RESULTS}/average_precision/{dataset}/boxes.parquet" for dataset in study["datasets"]]
DETECTORS = list(dict.fromkeys(name for group in study["prompt_groups"] for name in study.detectors(group)))


rule instances:
    input:
        f"{RESULTS}/tables/instances.parquet",


rule box_precision:
    input:
        script=script("average_precision"),
        annotations=annotations_of,
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        boxes=lambda wildcards: boxes_by(wildcards.dataset, DETECTORS).values(),
    output:
        f"{RESULTS}/average_precision/{{dataset}}/boxes.parquet",
    log:
        f"{RESULTS}/logs/average_precision/{{dataset}}/boxes.log",
    benchmark:
        f"{RESULTS}/benchmarks/average_precision/{{dataset}}/boxes.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("average_precision"),
        runtime=limit("average_precision"),
    params:
        code=code("average_precision"),
        boxes=lambda wildcards: json.dumps(boxes_by(wildcards.dataset, DETECTORS)),
        options=CLASS_AGNOSTIC,
    shell:
        "python {input.script} --dataset {wildcards.dataset} --annotations {input.annotations:q} "
        "--images {input.images} --boxes {params.boxes:q} {params.options} --output {output} 2>&1 | tee {log}"


rule mask_precision:
    input:
        script=script("average_precision"),
        annotations=annotations_of,
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        boxes=lambda wildcards: boxes_of(wildcards).values(),
        masks=lambda wildcards: job_of(wildcards).mask_files(RESULTS, study.shards(wildcards.dataset)),
    output:
        f"{RESULTS}/average_precision/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.parquet",
    log:
        f"{RESULTS}/logs/average_precision/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/average_precision/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("average_precision"),
        runtime=limit("average_precision"),
    params:
        code=code("average_precision"),
        boxes=lambda wildcards: json.dumps(boxes_of(wildcards)),
        masks=lambda wildcards, input: json.dumps(list(input.masks)),
        selections=json.dumps(mask_selections(study["selections"])),
        options=CLASS_AGNOSTIC,
    shell:
        "python {input.script} --dataset {wildcards.dataset} --annotations {input.annotations:q} "
        "--images {input.images} --boxes {params.boxes:q} --masks {params.masks:q} "
        "--selections {params.selections:q} {params.options} --output {output} 2>&1 | tee {log}"


rule coco_results:
    input:
        [
            f"{RESULTS}/coco_results/{'/'.join(job)}/{detector}.{selection}.json"
            for job in study.mask_jobs()
            for detector in study.detectors(job.group)
            for selection in mask_selections(study["selections"])
        ],


rule coco_results_file:
    input:
        script=script("coco_results"),
        masks=lambda wildcards: job_of(wildcards).mask_files(RESULTS, study.shards(wildcards.dataset)),
    output:
        f"{RESULTS}/coco_results/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{detector}}.{{selection}}.json",
    log:
        f"{RESULTS}/logs/coco_results/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{detector}}.{{selection}}.log",
    wildcard_constraints:
        detector=one_of(DETECTORS),
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("average_precision"),
        runtime=limit("average_precision"),
    params:
        code=code("coco_results"),
        masks=lambda wildcards, input: json.dumps(list(input.masks)),
    shell:
        "python {input.script} --masks {params.masks:q} --detector {wildcards.detector} "
        "--selection {wildcards.selection} --output {output} 2>&1 | tee {log}"


rule instances_table:
    input:
        BOX_PRECISION,
        [job.precision_file(RESULTS) for job in study.mask_jobs()],
        script=script("instances_table"),
    output:
        expand(
            "{folder}/{table}.{suffix}",
            folder=f"{RESULTS}/tables",
            table=["instances", "detectors"],
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/instances.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("instances_table"),
        results=results_folder,
        jobs=json.dumps(study.mask_jobs()),
        detectors=json.dumps(BOX_PRECISION),
    shell:
        "python {input.script} --jobs {params.jobs:q} --detectors {params.detectors:q} "
        "--results {params.results} 2>&1 | tee {log}"
