# `make diagnose` and `make test` need git, make and Python ≥ 3.11, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests share the cores, a file to a worker, in the order of tests/conftest.py: within a file they
# share what was compiled.
WORKERS ?= 2
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help diagnose test test-all durations lint types bench clean

help:
	@echo "make diagnose   install into .venv, diagnose two agents, one damaged and one not"
	@echo "make test       install what tests need; lint, types, the quick tests"
	@echo "make test-all   the same with all tests"
	@echo "make durations  measure which tests are quick: tests/durations.json; on idle cores"
	@echo "make bench      beside Stable-Baselines3 and sbx, and what interventions cost; one core"

$(VENV)/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "regrow needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/bench: $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

diagnose: $(VENV)/run
	$(BIN)/regrow demo

test: lint types
	$(PYTEST) --quick

test-all: lint types
	$(PYTEST) --slow

durations: $(VENV)/test
	$(PYTEST) --write-durations

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test
	$(BIN)/basedpyright

bench: $(VENV)/bench
	$(BIN)/python bench/training_loop.py
	$(BIN)/python bench/interventions.py
	$(BIN)/python bench/sac.py
	$(BIN)/python bench/ppo.py
	$(BIN)/python bench/atari.py

clean:
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache .hypothesis
