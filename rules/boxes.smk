"""Boxes of detectors, one file a dataset and detector: found shard by shard, or imported where they are published."""

from sambench.detectors.registry import read_detectors, selected_detectors

DETECTOR_CARDS = read_detectors(study.config["detectors"])
DETECT_ON_GPU = study.config["detection"]["device"] != "cpu"


rule boxes:
    input:
        expand(
            "{results}/boxes/{dataset}/{detector}.parquet",
            results=RESULTS,
            dataset=study["datasets"],
            detector=selected_detectors(study.config),
        ),


rule boxes_shard:
    input:
        lambda wildcards: DETECTOR_CARDS[wildcards.detector].sources(wildcards.dataset, study.weights_folders),
        script=script("boxes"),
        annotations=annotations_of,
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
    output:
        f"{RESULTS}/boxes/{{dataset}}/{{detector}}/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/boxes/{{dataset}}/{{detector}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/boxes/{{dataset}}/{{detector}}/{{shard}}.tsv"
    wildcard_constraints:
        detector=one_of(DETECTOR_CARDS),
    conda:
        "../envs/sambench.yaml"
    threads: lambda wildcards: workflow.cores if DETECTOR_CARDS[wildcards.detector].runs(wildcards.dataset) else 1
    resources:
        gpu=lambda wildcards: int(DETECT_ON_GPU and DETECTOR_CARDS[wildcards.detector].runs(wildcards.dataset)),
        mem_mb=memory("boxes"),
        runtime=limit("boxes"),
    params:
        code=lambda wildcards: code("boxes", *DETECTOR_CARDS[wildcards.detector].modules(wildcards.dataset)),
        card=lambda wildcards: json.dumps(DETECTOR_CARDS[wildcards.detector].deciding()),
        settings=json.dumps(study.config["detection"]),
        weights=json.dumps(study.config["weights"]),
    shell:
        "python {input.script} --dataset {wildcards.dataset} --detector {wildcards.detector} "
        "--card {params.card:q} --settings {params.settings:q} --weights {params.weights:q} "
        "--annotations {input.annotations:q} --images {input.images} --shard {wildcards.shard} "
        "--threads {threads} --output {output} 2>&1 | tee {log}"


rule merge_boxes:
    input:
        script=script("merge_boxes"),
        shards=lambda wildcards: DETECTOR_CARDS[wildcards.detector].shard_files(
            RESULTS, wildcards.dataset, study.shards(wildcards.dataset)
        ),
    output:
        f"{RESULTS}/boxes/{{dataset}}/{{detector}}.parquet",
    log:
        f"{RESULTS}/logs/boxes/{{dataset}}/{{detector}}.log",
    wildcard_constraints:
        detector=one_of(DETECTOR_CARDS),
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("merge_boxes"),
        runtime=limit("merge_boxes"),
    params:
        code=code("merge_boxes"),
        shards=lambda wildcards, input: json.dumps(list(input.shards)),
    shell:
        "python {input.script} --shards {params.shards:q} --output {output} 2>&1 | tee {log}"
