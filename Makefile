# make run     set everything up and run the embedded default
# make test    set everything up and run the tests
# make test-long    parity with the largest networks, which make test leaves out
# make test-slurm   a study on a real SLURM of two nodes on this machine, with faults; needs root
# make fuzz    1,000 mutants of everything that is read, at most 10 minutes (FUZZ="--mutants 100000 --minutes 600" for longer)
# make crash   runs that are killed, starved and disturbed, and go on, an hour or more (CRASH="--kills 4" for shorter)
# make bench-gpu  what a GPU gives: throughput, decoding, segment everything, at most 10 minutes
# make check   formatting, lint, types, workflow lint, generated docs, spelling of names
# make docs    the docs site, in site/index.html
# make report  the report of the embedded default, and where it is
# make ui      MLflow over the results, on this machine only
# make setup   create .venv from the lock; every other target does it when needed
# make lock    resolve the lock again after an edit to pyproject.toml

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell $(p) --version 2>/dev/null),$(p))))
CONFIG ?= config/config.yaml
PORT ?= 5000
BIN := .venv/bin
UV_VERSION := 0.13.9
STAMP := .venv/.complete
SOURCES := src/sambench workflow/scripts tests benchmarks
SMK := Snakefile $(wildcard rules/*.smk)
# Prints the folder of the study: RESULTS/NAME.
FOLDER := $(BIN)/python -m sambench.config $(CONFIG)
# A warning is an error (but not with --quiet). Without the variable, the theme advertises its successor.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Jobs are many short processes: Python keeps what it compiled, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-long test-slurm fuzz crash bench-gpu check docs format report ui setup lock
.DEFAULT_GOAL := run

setup: $(STAMP)

# The stamp is the last thing written: an interrupted set-up starts again. pip brings uv, uv the rest.
$(STAMP): requirements.lock pyproject.toml
	@echo "setting up .venv (once, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

# A run that was killed leaves Snakemake's lock behind. It goes only when neither another `make run` (flock) nor a
# Snakemake started by hand is alive in this folder. The next run takes up the work where it ended.
run: $(STAMP)
	@mkdir -p .snakemake
	@flock --nonblock --conflict-exit-code 75 .snakemake/make-run.lock sh -c ' \
	  alive=; for p in $$(pgrep -x snakemake 2>/dev/null); do [ "$$(readlink /proc/$$p/cwd)" = "$$PWD" ] && alive=$$p; done; \
	  if [ -z "$$alive" ] && [ -n "$$(ls -A .snakemake/locks 2>/dev/null)" ]; then \
	    $(BIN)/snakemake --unlock --configfile $(CONFIG) --quiet all; fi; \
	  exec $(BIN)/snakemake --configfile $(CONFIG)' \
	  || { status=$$?; [ $$status -ne 75 ] || echo "another make run is at work in this folder" >&2; exit $$status; }
	@echo
	@folder="$$($(FOLDER))" && cat "$$folder/tables/overview.md" && \
	  echo "tables: $$folder/tables   report: $$folder/report/index.html   MLflow: make ui"

# One thread a worker: two workers with two threads each would wait for one another.
test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q --durations=25

test-long: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m long -q --durations=5

test-slurm: $(STAMP)
	@$(BIN)/python -m pytest -n 0 -m slurm -q -s --durations=5 tests/integration/test_slurm.py

fuzz: $(STAMP)
	@$(BIN)/python tests/campaigns/fuzz.py $(FUZZ)

crash: $(STAMP)
	@$(BIN)/python tests/campaigns/crash.py $(CRASH)

bench-gpu: $(STAMP)
	@$(BIN)/python benchmarks/gpu.py $(GPU)

check: $(STAMP)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/snakefmt --check $(SMK)
	@$(BIN)/snakemake --lint
	@$(BIN)/python -m sambench.settings_docs --check
	@$(BIN)/python tests/check_names.py
	@$(MKDOCS)

docs: $(STAMP)
	@$(MKDOCS)
	@echo "site/index.html"

format: $(STAMP)
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/snakefmt $(SMK)
	@$(BIN)/python -m sambench.settings_docs

report: $(STAMP)
	@$(BIN)/snakemake --configfile $(CONFIG) --quiet rules -- report
	@echo "$$($(FOLDER))/report/index.html"

ui: $(STAMP)
	@$(BIN)/sambench ui $(CONFIG) --port $(PORT)

lock: $(STAMP)
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group dev \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock
