"""Static cost: parameters, FLOPs, MACs and EER. One job a variant; no images, no weights."""

EFFICIENCY = study.config["efficiency"]
EFFICIENCY_TABLES = [f"{RESULTS}/tables/{name}.parquet" for name in ("efficiency", "efficiency_parts")]
# The variant that the EER relates to is counted beside the studied ones, when one of them has anything to count.
EFFICIENCY_REFERENCE = (
    EFFICIENCY["reference"] if any(study.cards[name].checkpoints for name in study["variants"]) else ""
)


rule efficiency:
    input:
        EFFICIENCY_TABLES,


rule efficiency_variant:
    input:
        script=script("efficiency"),
        weights=lambda wildcards: study.weights(wildcards.variant),
    output:
        f"{RESULTS}/efficiency/{{variant}}.parquet",
    log:
        f"{RESULTS}/logs/efficiency/{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/efficiency/{{variant}}.tsv"
    conda:
        "../envs/sambench.yaml"
    resources:
        mem_mb=memory("efficiency"),
        runtime=limit("efficiency"),
    params:
        code=lambda wildcards: code("efficiency", *counted_modules(wildcards.variant)),
        card=lambda wildcards: json.dumps(study.card(wildcards.variant)),
        weights=json.dumps(study.config["weights"]),
        size=EFFICIENCY["image_size"],
    shell:
        "python {input.script} --variant {wildcards.variant} --card {params.card:q} --weights {params.weights:q} "
        "--height {params.size[0]} --width {params.size[1]} --output {output} 2>&1 | tee {log}"


rule efficiency_table:
    input:
        expand(
            "{folder}/{variant}.parquet",
            folder=f"{RESULTS}/efficiency",
            variant=sorted({*study["variants"], EFFICIENCY_REFERENCE} - {""}),
        ),
        script=script("efficiency_table"),
    output:
        expand(
            "{folder}/{table}.{suffix}",
            folder=f"{RESULTS}/tables",
            table=["efficiency", "efficiency_parts"],
            suffix=["parquet", "csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/efficiency_table.log",
    conda:
        "../envs/sambench.yaml"
    params:
        code=code("efficiency_table"),
        results=results_folder,
        cards=efficiency_facts(),
        reference=f"--reference {EFFICIENCY_REFERENCE}" if EFFICIENCY_REFERENCE else "",
    shell:
        "python {input.script} --cards {params.cards:q} {params.reference} "
        "--results {params.results} 2>&1 | tee {log}"
