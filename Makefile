# Nothing is needed beforehand but python3, pip and make. Every target makes .venv when it is absent.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test nightly lint format bench clean

demo: $(VENV)/stamp
	$(BIN)/vidstill demo

test: $(VENV)/stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

nightly: $(VENV)/stamp
	$(BIN)/pytest -m ''

lint: $(VENV)/stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/stamp
	for script in forward reader loader views; do $(BIN)/python benchmarks/$$script.py || exit 1; done

# torch first and by its pinned version, so that no other build is pulled in beside it.
$(VENV)/stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
