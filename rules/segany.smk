"""Promptable segmentation: one job a dataset, variant, runtime, prompt group and shard."""


rule segany:
    input:
        study.segany_files(),
        study.mask_files(),


rule segany_shard:
    input:
        script=script("segany"),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
        instances=f"{RESULTS}/datasets/{{dataset}}/instances.parquet",
        prompts=f"{RESULTS}/prompts/{{dataset}}/{{group}}.parquet",
        weights=lambda wildcards: study.weights(wildcards.variant),
        boxes=lambda wildcards: boxes_of(wildcards).values(),
    output:
        segany=f"{RESULTS}/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.tsv"
    conda:
        "../envs/sambench.yaml"
    threads: segany_threads
    resources:
        gpu=segany_gpu,
        mem_mb=memory("segany"),
        runtime=limit("segany"),
        slurm_extra=queueing("segany"),
    params:
        code=lambda wildcards: code("segany", *study.builder_modules(wildcards.variant)),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        runtime=runtime_of,
        weights=json.dumps(study.config["weights"]),
        selections=json.dumps(study["selections"]),
        boxes=lambda wildcards: json.dumps(boxes_of(wildcards)),
        masks=lambda wildcards, output: f"--masks {output.masks}" if "masks" in output.keys() else "",
    shell:
        "python {input.script} --variant {wildcards.variant} --card {params.card:q} "
        "--runtime {params.runtime:q} --weights {params.weights:q} --images {input.images} "
        "--instances {input.instances} --prompts {input.prompts} --selections {params.selections:q} "
        "--boxes {params.boxes:q} {params.masks} --shard {wildcards.shard} --threads {threads} "
        "--output {output.segany} 2>&1 | tee {log}"


# Prompt groups with detectors: their boxes give masks.
use rule segany_shard as segany_shard_with_masks with:
    output:
        segany=f"{RESULTS}/segany/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet",
        masks=f"{RESULTS}/masks/{{dataset}}/{{variant}}/{{runtime}}/{{group}}/{{shard}}.parquet",
    wildcard_constraints:
        group=one_of(study.detector_groups()),


ruleorder: segany_shard_with_masks > segany_shard
