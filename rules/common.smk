"""What all rules share: the checked study, the digest of a stage's code, the conda environment."""

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sambench.config import read_study
from sambench.errors import InputError
from sambench.provenance import source_digest

# Jobs call `python`: make it the one that runs Snakemake, whether its environment is activated or not. An
# environment of --sdm conda is activated later and so comes before it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

try:
    study = read_study(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = study.results


wildcard_constraints:
    dataset=r"[^/]+",
    variant=r"[^/]+",
    runtime=r"[^/]+",
    group=r"[^/]+",
    shard=r"\d+-of-\d+",


def script(name):
    """The path of a stage's script: an input, so that it is compared by content."""
    return f"workflow/scripts/{name}.py"


def code(name, *modules):
    """What makes a stage run again: an edit to its script or to any module that it imports."""
    return source_digest(Path(workflow.basedir) / script(name), *modules)
