# Every target works from a clean clone; the environment is ./.venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help venv demo test test-slow lint format clean

help:
	@echo "make demo       build the environment, write a video, classify it"
	@echo "make test       build the environment, run the tests"
	@echo "make test-slow  the long suites: 3000 damaged videos and more generated cases"
	@echo "make lint       ruff and pyright"
	@echo "make format     ruff format"
	@echo "make clean      remove the environment and caches"

venv: $(BIN)/.installed

$(BIN)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/mote-fast demo

test: venv
	$(BIN)/python -m pytest -m "not slow"

test-slow: venv
	$(BIN)/python -m pytest -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
