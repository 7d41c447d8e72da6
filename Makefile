# Needs Python 3.11 or later, make and git; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
ARGS ?=
# Tests side by side, each on a server of its own: they wait more than they compute.
JOBS ?= 4

.PHONY: help demo test test-versions bench million lint clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(STAMP)  ## Rename a column of a live table, there and back, on a server of its own.
	@$(VENV)/bin/migrator demo $(ARGS)

test: $(STAMP)  ## Run the tests on PostgreSQL 18.
	$(VENV)/bin/pytest -n $(JOBS) --dist worksteal $(ARGS)

test-versions: $(STAMP)  ## Run the tests on every PostgreSQL found or to be had.
	$(VENV)/bin/python tests/servers.py $(ARGS)

bench: $(STAMP)  ## Measure against rivals; ARGS=--quick for less, --triggers for a part.
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(VENV)/bin/python -m benchmarks $(ARGS)

million: $(STAMP)  ## Move a million rows by each pattern, under both releases.
	$(VENV)/bin/python tests/million.py $(ARGS)

lint: $(STAMP)  ## Run ruff, mypy and basedpyright.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/basedpyright

clean:  ## Remove what was installed and built.
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache

$(STAMP): pyproject.toml
	@echo "Installing into $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,embedded]'
	@touch $(STAMP)
