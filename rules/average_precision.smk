"""Instance segmentation: average precision of detectors' boxes and of the masks that variants give for them."""

from sambench.jobs import box_precision_file

PRECISION_PARAMS = {
    "code": code("average_precision"),
    "class_agnostic": PRECISION.class_agnostic,
    "annotations": annotations_of,
    "content": content_of,
}


rule average_precision:
    input:
        [table.file(FOLDER) for table in selected_tables(study) if table.name in ("average_precision", "boxes")],


rule average_precision_boxes:
    input:
        source=source_of,
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        boxes=lambda wildcards: boxes_on(wildcards.dataset).values(),
    output:
        precision=box_precision_file(RESULTS, "{dataset}"),
    log:
        f"{RESULTS}/logs/average_precision/{{dataset}}/boxes.log",
    benchmark:
        f"{RESULTS}/benchmarks/average_precision/{{dataset}}/boxes.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        **needs("average_precision"),
    params:
        **PRECISION_PARAMS,
        detectors=lambda wildcards: boxes_on(wildcards.dataset),
    script:
        "../workflow/scripts/average_precision.py"


use rule average_precision_boxes as average_precision_masks with:
    input:
        source=source_of,
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        boxes=lambda wildcards: boxes_of(wildcards).values(),
        masks=lambda wildcards: job_of(wildcards).mask_files(RESULTS, study.shards(wildcards.dataset)),
    output:
        precision=Job("{dataset}", "{variant}", "{runtime}", "{group}").precision_file(RESULTS),
    log:
        f"{RESULTS}/logs/average_precision/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/average_precision/{{dataset}}/{{variant}}/{{runtime}}/{{group}}.tsv"
    params:
        **PRECISION_PARAMS,
        detectors=boxes_of,
        selections=mask_selections(study["selections"]),
        config_digest=lambda wildcards: study.segany_digest(wildcards.variant, wildcards.runtime),
        keep_unjudged=PRECISION.keep_unjudged,
        boundary=PRECISION.boundary,


rule coco_results:
    input:
        [
            f"{RESULTS}/coco_results/{'/'.join(job)}/{detector}.{selection}.json"
            for job in study.mask_jobs()
            for detector in study.detectors(job.group, job.dataset)
            for selection in mask_selections(study["selections"])
        ],


rule coco_results_file:
    input:
        masks=lambda wildcards: job_of(wildcards).mask_files(RESULTS, study.shards(wildcards.dataset)),
    output:
        coco_results=f"{RESULTS}/coco_results/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{detector}}.{{selection}}.json",
    log:
        f"{RESULTS}/logs/coco_results/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{detector}}.{{selection}}.log",
    wildcard_constraints:
        detector=one_of(DETECTOR_CARDS),
    conda:
        "../envs/sambench.yaml"
    resources:
        **needs("average_precision"),
    params:
        code=code("coco_results"),
    script:
        "../workflow/scripts/coco_results.py"
