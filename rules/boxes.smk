"""Boxes of detectors, one file per dataset and detector: found shard by shard, or imported where they are published."""


rule boxes:
    input:
        [file for dataset in study["datasets"] for file in boxes_on(dataset).values()],


rule boxes_shard:
    input:
        source=source_of,
        retrieved=lambda wildcards: retrieved("detectors", wildcards.detector),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
    output:
        boxes=f"{RESULTS}/boxes/{{dataset}}/{{detector}}/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/boxes/{{dataset}}/{{detector}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/boxes/{{dataset}}/{{detector}}/{{shard}}.tsv"
    wildcard_constraints:
        detector=one_of(DETECTOR_CARDS),
    conda:
        "../envs/sambench.yaml"
    threads: threads_of_detector
    resources:
        **needs("boxes", gpu_of_detector),
    params:
        code=lambda wildcards: code("boxes", *DETECTOR_CARDS[wildcards.detector].modules(wildcards.dataset)),
        card=lambda wildcards: DETECTOR_CARDS[wildcards.detector].deciding(),
        weights=box_sources,
        settings=study.plain["detection"],
        folders=study.plain["weights"],
        annotations=annotations_of,
        content=content_of,
    script:
        "../workflow/scripts/boxes.py"


rule boxes_merge:
    input:
        shards=lambda wildcards: DETECTOR_CARDS[wildcards.detector].shard_files(
            RESULTS, wildcards.dataset, study.shards(wildcards.dataset)
        ),
    output:
        boxes=f"{RESULTS}/boxes/{{dataset}}/{{detector}}.parquet",
    log:
        f"{RESULTS}/logs/boxes/{{dataset}}/{{detector}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/boxes_merge/{{dataset}}/{{detector}}.tsv"
    wildcard_constraints:
        detector=one_of(DETECTOR_CARDS),
    conda:
        "../envs/sambench.yaml"
    resources:
        **needs("boxes_merge"),
    params:
        code=code("boxes_merge"),
    script:
        "../workflow/scripts/boxes_merge.py"
