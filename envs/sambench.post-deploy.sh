#!/usr/bin/env bash
# Runs in the new conda environment, in the working directory of Snakemake, which is the project's folder.
set -euo pipefail
python -m pip install --no-deps --require-hashes -r requirements.lock
python -m pip install --no-deps -e .
