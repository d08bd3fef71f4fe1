# `make demo` and `make test` need python >= 3.11, a C++ compiler and a package registry.
PYTHON ?= python3
BIN := .venv/bin
# As a variable, the constraints hold for the environment that the kernel is built in, too.
INSTALL := PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet \
	--disable-pip-version-check
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)

.PHONY: demo test check lint types setup bench fuzz reliability clean

demo: .venv/installed
	$(BIN)/loso demo

test: check
	$(BIN)/pytest --numprocesses auto --dist worksteal

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
	$(BIN)/python bench/predict.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/scale.py

# By coverage where atheris is installed (Linux), else by chance.
fuzz: .venv/tested
	-$(INSTALL) --only-binary :all: atheris
	$(BIN)/python fuzz/explore.py --seconds 60

reliability: .venv/tested
	$(BIN)/python bench/reliability.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: $(SOURCES) | .venv/bin/python
	$(INSTALL) --editable .
	touch $@

.venv/tested: $(SOURCES) | .venv/bin/python
	$(INSTALL) --editable '.[test]'
	touch .venv/installed $@
