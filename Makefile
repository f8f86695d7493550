# Two commands do all: `make demo` and `make test`. Both use .venv, made once and remade only when the
# dependencies change.
PYTHON ?= python3
BIN := .venv/bin
DEPENDENCIES := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test docs bench lint types zoo wheels minimal diagram clean

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

# What is not part of `make test`, as it takes gigabytes: the wheel in fresh environments of each Python of PYTHONS, and
# tests with the oldest releases that setup.cfg admits.
PYTHONS ?= python3.10 python3.11 python3.12 python3.13

wheels:
	.ci/wheels $(PYTHONS)

# Old releases warn of what newer ones of others deprecate; click words one error in another way, and transformers draws
# other random weights, of which one test expects that they give one answer.
TOLERATED := -W default::DeprecationWarning -W default::PendingDeprecationWarning -W default::FutureWarning \
	--deselect tests/cli/test_cli.py::test_an_unknown_option_is_refused_with_status_2 \
	--deselect tests/evaluation/protocols/test_protocols.py::test_a_relation_with_one_answer_has_no_counterfactual

minimal:
	$(PYTHON) -m venv --clear build/minimal
	build/minimal/bin/python -m pip install --quiet --constraint constraints-minimal.txt torch
	build/minimal/bin/python -m pip install --quiet --constraint constraints-minimal.txt --editable . pytest hypothesis
	build/minimal/bin/python -m pytest $(TOLERATED) tests/facts tests/forward tests/scoring tests/evaluation tests/cli \
		tests/methods/test_contract.py tests/test_store.py tests/hostile/test_fuzz_saved.py

diagram:  # needs Graphviz
	$(PYTHON) docs/diagram.py

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
