SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STACK := $(PYTHON) -m collector.stack

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Each virtual environment is made again when pyproject.toml changes.
.venv-demo/.done: pyproject.toml
	@echo "making .venv-demo (what a user gets) ..."
	@$(PYTHON) -m venv .venv-demo
	@.venv-demo/bin/python -m pip install --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.done: pyproject.toml
	@echo "making $(VENV) (with the tools for development) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv-docs/.done: pyproject.toml
	@echo "making .venv-docs (with the tools for the documentation) ..."
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

.PHONY: install
install: $(VENV)/.done  ## Install the package and the development tools into .venv

.PHONY: demo
demo: .venv-demo/.done  ## Run a small flow on the fake provider and print its trace with costs
	@.venv-demo/bin/python -m tracemind_otel demo

.PHONY: test
test: $(VENV)/.done  ## Run the tests; those against the real Collector, Jaeger and Prometheus need Go or Docker
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

.PHONY: check
check: $(VENV)/.done  ## Run lint and the quick tests: before each commit
	@$(MAKE) --no-print-directory --jobs 2 lint quick

.PHONY: quick
quick: $(VENV)/.done  ## Run the tests that start no processes and no servers
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not e2e"

.PHONY: test-all
test-all: $(VENV)/.done  ## Run the tests with other tools: gunicorn, Celery, RQ, Django, Jupyter, a browser, SDKs
	@$(BIN)/python -m pytest -m tools --durations=5 tests/tools tests/e2e

.PHONY: chain
chain: $(VENV)/.done  ## Kill programs of the chain with Kafka and Cassandra, and account for every trace (10 minutes)
	@$(BIN)/python -m pytest -m chain --durations=10 tests/chain

.PHONY: nightly
nightly: $(VENV)/.done  ## Run the tests with llama.cpp and LiteLLM, which are built the first time (half an hour)
	@$(BIN)/python -m pytest -m nightly --durations=10 tests/nightly

.PHONY: soak
soak: $(VENV)/.done  ## Run the tests about ends, forks and threads 200 times (40 minutes)
	@$(BIN)/python tests/soak.py

.PHONY: chaos
chaos: $(VENV)/.done  ## Break the provider, the Collector and the application three times, then compare the accounts
	@$(BIN)/python -m benchmarks.chaos --spool memory
	@$(BIN)/python -m benchmarks.chaos --spool disk
	@$(BIN)/python -m benchmarks.chaos --spool full-disk

.PHONY: lint
lint: $(VENV)/.done  ## Check style with ruff, and types with mypy and pyright
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright

.PHONY: format
format: $(VENV)/.done  ## Format the code and apply the safe fixes of ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: wheel
wheel: $(VENV)/.done  ## Build the wheel and run the smoke tests on it, outside the source tree
	@$(BIN)/python tests/wheel.py

.PHONY: bench
bench: $(VENV)/.done  ## Measure all figures of performance, each beside its aim, and what `instrument()` costs
	@$(BIN)/python -m benchmarks
	@$(BIN)/python benchmarks/wire.py

.PHONY: bench-against
bench-against: $(VENV)/.done  ## Compare the cost of a call and a chunk with another source tree: make bench-against TREE=...
	@$(BIN)/python benchmarks/against.py $(TREE)

.PHONY: docs
docs: .venv-docs/.done  ## Build the documentation into site/; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "open site/index.html"

.PHONY: docs-serve
docs-serve: .venv-docs/.done  ## Serve the documentation on http://127.0.0.1:8000 and rebuild it on each change
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs serve --strict

.PHONY: stack
stack:  ## Start the Collector, Jaeger and Prometheus, and print their addresses
	@$(STACK) up

.PHONY: stack-down
stack-down:  ## Stop what `make stack` started
	@$(STACK) down

.PHONY: clean
clean:  ## Remove the virtual environments and what the tools left behind
	@rm -rf .venv .venv-demo .venv-docs site dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
