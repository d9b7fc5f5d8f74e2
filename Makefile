# `make test` and `make check` build .venv by themselves: from constraints.txt, and again whenever
# that file or pyproject.toml changes. On a machine where pip finds no CPU build of torch:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help test check format
.DELETE_ON_ERROR:

help:
	@echo "make test     run the tests with coverage (at least 90 %)"
	@echo "make check    what CI runs: format, lint, strict types, then the tests"
	@echo "make format   rewrite the sources as 'make check' wants them"
	@echo "PYTHON=python3.12 and VENV=DIR choose the interpreter and where its packages go"

$(STAMP): pyproject.toml constraints.txt
	@echo "==> checking that $(PYTHON) is Python 3.11, 3.12 or 3.13"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "$(PYTHON) is not; name one that is: make PYTHON=python3.12"; exit 2; }
	@echo "==> making $(VENV) from constraints.txt"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

test: $(STAMP)
	@echo "==> tests"
	@$(BIN)/python -m pytest --cov --cov-report=term

check: $(STAMP)
	@echo "==> format"
	@$(BIN)/ruff format --check .
	@echo "==> lint"
	@$(BIN)/ruff check .
	@echo "==> strict types"
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory test

format: $(STAMP)
	@echo "==> format"
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
