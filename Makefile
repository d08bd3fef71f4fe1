# `make demo` and `make test` need python >= 3.11 and a package registry, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check lint types setup bench clean

demo: .venv/installed
	$(BIN)/loso demo

test: check
	$(BIN)/pytest

check: lint types

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/tested
	$(BIN)/mypy

setup: .venv/tested

bench: .venv/tested
	$(BIN)/python bench/load.py
	$(BIN)/python bench/corpus.py
	$(BIN)/python bench/train.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[torch]'
	touch $@

.venv/tested: .venv/installed
	$(INSTALL) --editable '.[test]'
	touch $@
