#!/usr/bin/env bash
# Runs in the new conda environment, in the working directory of Snakemake; rules/common.smk says where the project is.
set -euo pipefail
cd "${SAMBENCH_PROJECT:-.}"
python -m pip install --no-deps --require-hashes -r requirements.lock
python -m pip install --no-deps -e .
