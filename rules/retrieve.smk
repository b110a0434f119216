"""Retrieval of what a study lacks: datasets, published boxes, checkpoints. Files that are there are never touched."""


rule retrieve:
    input:
        [f"{RESULTS}/retrieve/{key}.txt" for key in RETRIEVALS],


# Jobs wait for the marker and no more: what counts for them is the content of the files, see `content`.
def retrieved(kind, name):
    key = f"{kind}/{name}"
    return [ancient(f"{RESULTS}/retrieve/{key}.txt")] if key in RETRIEVALS else []


def attempt_of(wildcards):
    """When the retrieval was last tried: now, where something is missing that can be fetched."""
    retrieval = RETRIEVALS[f"{wildcards.kind}/{wildcards.name}"]
    if FETCH and retrieval.wanted and retrieval.missing(study):
        return str(START)
    marker = Path(f"{RESULTS}/retrieve/{wildcards.kind}/{wildcards.name}.txt")
    return marker.read_text(encoding="utf-8").partition("\n")[0] if marker.is_file() else ""


rule retrieve_files:
    output:
        marker=f"{RESULTS}/retrieve/{{kind}}/{{name}}.txt",
    log:
        f"{RESULTS}/logs/retrieve/{{kind}}/{{name}}.log",
    wildcard_constraints:
        kind="datasets|variants|detectors",
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
