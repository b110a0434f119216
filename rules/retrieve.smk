"""Retrieval of what a study lacks: datasets, published boxes, checkpoints. Files that are there are never touched."""


rule retrieve:
    input:
        [f"{RESULTS}/retrieve/{key}.txt" for key in RETRIEVALS],


rule retrieve_files:
    output:
        marker=f"{RESULTS}/retrieve/{{kind}}/{{name}}.txt",
    log:
        f"{RESULTS}/logs/retrieve/{{kind}}/{{name}}.log",
    wildcard_constraints:
        kind="datasets|variants|detectors|textures",
        name=r"[^/]+",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        retrieval=lambda wildcards: RETRIEVALS[f"{wildcards.kind}/{wildcards.name}"].plain(),
        # With `output` among its arguments it is no reason to run again.
        download=lambda wildcards, output: FETCH,
        folders=study.plain["weights"],
        cache=study.settings.cache,
        attempt=attempt_of,
    script:
        "../workflow/scripts/retrieve.py"
