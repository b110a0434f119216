"""Volumes: NIfTI images, their labels and clicks in three dimensions; one job per set, variant for volumes and runtime."""

from sambench.volumes.nifti import job_settings

VOLUMES = study.plain["volumes"]


rule volumes:
    input:
        [table.file(FOLDER) for table in selected_tables(study) if table.name == "volumes"],


# No index: a volume and its labels are read by the job.
use rule measure as volumes_measure with:
    input:
        retrieved=lambda wildcards: retrieved("variants", wildcards.variant),
    wildcard_constraints:
        measure="volumes",
    resources:
        **needs("volumes", gpu_of),
    params:
        code=lambda wildcards: model_code("measure", [wildcards.variant], wildcards.runtime, "sambench.measure.volumes"),
        measure="volumes",
        model=model_of,
        weights=weights_of,
        settings=lambda wildcards: job_settings(
            wildcards.dataset, VOLUMES["datasets"][wildcards.dataset], VOLUMES["clicks"]
        ),
