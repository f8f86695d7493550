# Two commands do all: `make demo` and `make test`. Both use .venv, made once and remade only when the
# dependencies change.
PYTHON ?= python3
BIN := .venv/bin
DEPENDENCIES := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test docs bench lint types zoo clean

demo: .venv/installed
	$(BIN)/kn-attrib compare --max-prompts 6 --out runs/demo --overwrite

test: .venv/installed-test lint types
	$(BIN)/python -m pytest -n 2
	$(BIN)/python -m pytest --doctest-modules --pyargs kn_attrib -p no:cacheprovider

docs: .venv/installed-test
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs build/docs

bench: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/memory.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: .venv/installed-test
	$(BIN)/mypy

zoo: .venv/installed
	$(BIN)/python -m kn_attrib.zoo.train

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python $(DEPENDENCIES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist runs *.egg-info
