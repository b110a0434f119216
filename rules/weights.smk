"""Downloads of what the study selects: datasets, published boxes, checkpoints. No other rule depends on this one."""

import shlex

from sambench.downloads.catalogue import selected

DOWNLOADS, CHECKPOINTS = selected(study)
CACHE = study.config.get("cache", "")


# Without an output it always runs, and has nothing to do where everything is in place.
rule download:
    input:
        script=script("download"),
    log:
        f"{RESULTS}/logs/download.log",
    localrule: True
    conda:
        "../envs/sambench.yaml"
    params:
        names=json.dumps(DOWNLOADS),
        checkpoints=json.dumps(CHECKPOINTS),
        weights=json.dumps(study.config["weights"]),
        cache=f"--cache {shlex.quote(CACHE)}" if CACHE else "",
    shell:
        "python {input.script} --names {params.names:q} --checkpoints {params.checkpoints:q} "
        "--weights {params.weights:q} {params.cache} 2>&1 | tee {log}"
