# The commands of this repository; `make` alone lists them. All of them work in .venv, which they make.
# PYTHON names the interpreter that .venv is made from. uv installs where it is on the path, else pip.

PYTHON ?= python3
BIN := .venv/bin

ifeq ($(shell uv --version >/dev/null 2>&1 && echo yes),yes)
make_venv = uv venv --quiet --seed --allow-existing --python "$$(command -v $(PYTHON))" .venv
install = uv pip install --quiet --python $(BIN)/python
else
# pip knows --group, by which the tests' and the developers' tools are installed, from 25.1 on.
make_venv = $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.DEFAULT_GOAL := help
.PHONY: help train test lint coverage check slow long

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: .venv/.installed  ## install codistill and train five students on the embedded digits
	$(BIN)/codistill train configs/digits.yaml

test: .venv/.test  ## install what the tests need and run the quick ones
	$(BIN)/python -m pytest

lint: .venv/.dev  ## style, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: .venv/.dev  ## the quick tests, with the share of the code that they reach
	$(BIN)/python -m pytest --cov

check: lint coverage  ## lint and coverage: what a change must pass

slow: .venv/.test  ## the slow tests
	$(BIN)/python -m pytest -m slow

long: .venv/.test  ## the tests that are too long for every change
	$(BIN)/python -m pytest -m long

# Each stamp is written when its installation has succeeded, and is out of date when pyproject.toml is newer.
.venv/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "codistill needs Python 3.11 or newer, $(PYTHON) is %d.%d: name another one, as in make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "installing codistill into .venv (the first time takes minutes)"
	@$(make_venv)
	@$(install) --editable .
	@touch $@

.venv/.test: .venv/.installed
	@echo "installing what the tests need into .venv"
	@$(install) --editable . --group test
	@touch $@

.venv/.dev: .venv/.installed
	@echo "installing the developers' tools into .venv"
	@$(install) --editable . --group dev
	@touch $@
