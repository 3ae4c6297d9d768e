# Everything that is done by hand or by CI has a name here; `make help` lists the names.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Without compiled modules every command takes three times as long to start; they lie in this folder only.
unexport PYTHONDONTWRITEBYTECODE

# The interpreter that the environments are made from.
PYTHON ?= python3
# The system's own environment, and the one that the reductions of pipelines/ run in.
VENV := .venv
PIPELINES_ENV := build/pipelines-env

BIN := $(VENV)/bin
SYSTEM := $(VENV)/.ready
PIPELINES := $(PIPELINES_ENV)/.ready
SET_UP := PYTHON="$(PYTHON)" VENV=$(VENV) PIPELINES_ENV=$(PIPELINES_ENV) tools/set-up.sh
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url $(ARGS)
PIPELINES_SOURCES := $(shell find pipelines/pyproject.toml pipelines/src -not -name '*.pyc' -not -name __pycache__)

.PHONY: help demo test chaos run check bench lock clean set-up

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(SYSTEM) $(PIPELINES) ## two nights of two instruments, from raw files to maps with their lineage; ends by itself
	@$(BIN)/ccat demo $(ARGS)

# File after file as they stand: the few long tests that are alone in theirs would come last otherwise.
test: $(SYSTEM) $(PIPELINES) ## all tests; ARGS="tests/ops_db -k lease -x" for some of them
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder
	@$(PIPELINES_ENV)/bin/python -m pytest -c pipelines/pyproject.toml pipelines/tests
endif

chaos: $(SYSTEM) ## 300 chains of jobs while something is killed every 5 s; ARGS=--transfer for 200 packages between sites
	@$(BIN)/python -m tests.chaos $(ARGS)

run: $(SYSTEM) $(PIPELINES) ## the whole system on this machine, until Ctrl-C
	@$(BIN)/ccat up $(ARGS)

check: $(SYSTEM) $(PIPELINES) ## lint, format, types, import contracts, ceilings, addresses
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd pipelines && ../$(BIN)/mypy --python-executable ../$(PIPELINES_ENV)/bin/python
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.check_ceilings
	@$(BIN)/python -m tools.check_moves
	@$(BIN)/python -m tools.check_clock
	@$(BIN)/python -m tools.check_addresses

bench: $(SYSTEM) ## measure everything, into bench/results.json; NAME=rules for one thing, ARGS=--help for its options
	@$(BIN)/python -m bench $(NAME) $(ARGS)

lock: $(SYSTEM) ## pin anew what pyproject.toml and requirements/*.in ask for; ARGS=--upgrade for newer versions
	@$(LOCK) pyproject.toml -o requirements/runtime.txt
	@$(LOCK) requirements/dev.in pyproject.toml --overrides requirements/overrides.in -o requirements/dev.txt
	@$(LOCK) requirements/uv.in -o requirements/uv.txt
	@$(LOCK) pipelines/pyproject.toml -o requirements/pipelines.txt
	@$(LOCK) requirements/pipelines-test.in -o requirements/pipelines-test.txt

set-up: $(SYSTEM) $(PIPELINES) ## only the environments; the others do it by themselves
	@echo "$(VENV) and $(PIPELINES_ENV) are ready"

clean: ## remove the environments, caches and the demo's data; the data of `make run` stay
	@[ ! -e .demo/stack/run/lock ] || $(BIN)/ccat down --data-dir .demo/stack
	rm -rf $(VENV) build .demo bench/results.json .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(SYSTEM): tools/set-up.sh pyproject.toml requirements/uv.txt requirements/dev.txt
	@$(SET_UP) system
	@touch $@

$(PIPELINES): tools/set-up.sh requirements/pipelines.txt requirements/pipelines-test.txt $(PIPELINES_SOURCES) | $(SYSTEM)
	@$(SET_UP) pipelines
	@touch $@
