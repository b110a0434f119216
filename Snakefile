"""sambench: every Segment Anything variant, measured the same way.

snakemake --cores all                                        the embedded default
snakemake --cores all --configfile config/coco-mini.yaml     a study from a file
snakemake --cores all segany | tables | report               one stage
snakemake --snakefile CHECKOUT/Snakefile ...                 from any folder, where results and .snakemake go
"""

from snakemake.utils import min_version

min_version("9.19")


include: "rules/common.smk"
include: "rules/retrieve.smk"
include: "rules/data.smk"
include: "rules/prompts.smk"
include: "rules/boxes.smk"
include: "rules/segany.smk"
include: "rules/average_precision.smk"
include: "rules/segevery.smk"
include: "rules/measure.smk"
include: "rules/volumes.smk"
include: "rules/gallery.smk"
include: "rules/results.smk"


onstart:
    terminal.plan(study, workflow.dag.needrun_jobs(), workflow.dag.jobid)
    if workflow.executor_plugin.name == "slurm":
        slurm.watch(logger.warning, SITE.max_runtime or resources.LONGEST)


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.report.input,
        rules.tracking.output,
