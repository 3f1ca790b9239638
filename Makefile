# Two commands to know: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check format clean

demo: $(CORE)  ## three real nodes answer a prompt together
	$(BIN)/p2pnode demo

test: $(DEV)  ## lint, types, contracts and every test
	$(MAKE) --no-print-directory check
	$(BIN)/p2pnode models pull smollm2-135m
	$(BIN)/python -m pytest

check: $(DEV)  ## lint, types and import contracts alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "p2pnode needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c .ci/constraints.txt -e .
	touch $@

$(DEV): pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c .ci/constraints.txt -e '.[dev]'
	touch $@ $(CORE)
