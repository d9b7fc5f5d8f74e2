# `make test` and `make check` build .venv by themselves: from constraints.txt, and again whenever
# that file or pyproject.toml changes. On a machine where pip finds no CPU build of torch:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DOCS_VENV ?= .venv-docs
NATIVE := $(VENV)/.native
MUTMUT := $(VENV)/.mutmut
OUTSIDE := $(VENV)/.outside
NPM := $(VENV)/npm
OLDEST := $(VENV)/oldest
PIP := $(BIN)/python -m pip --disable-pip-version-check
CLIENTS := $(VENV)/clients
# What sends requests to a server, in an environment of its own: its needs conflict with others.
API_VENV ?= $(VENV)-api
# Ray is large, and its processes outlive a test that fails: an environment of its own.
RAY_VENV ?= $(VENV)-ray
# What releases are built with, in an environment of its own.
DIST_VENV ?= $(VENV)-dist

DEMO_DIR ?= demo-checkpoints
DEMO_TRAIN := --embed 64 --sim-dim 32 --word-dim 32 --batch-size 32 --epochs 5 --lr-update 4 \
	--learning-rate 1e-3 --warmup-epochs 2 --threads 1

# A process for each processor, at most 8; a process that has nothing left takes from another.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
TEST := $(BIN)/python -m pytest
THREADED := $(addprefix tests/,bundle/test_bundle.py model/test_exact.py model/test_untrusted.py test_fakes.py \
	$(patsubst %,engines/%.py,native/test_engine test_ort test_ort_cuda torch/test_engine \
		trt/test_engine trt/test_threads) \
	$(patsubst %,runtime/test_%.py,load ranks retry saved_encodings score workers))
ROUNDS ?= 10

.DEFAULT_GOAL := help
.PHONY: help test test-slow test-random test-threads test-outside test-clients test-api test-ray mutation sanitize check format \
	demo demo-checkpoints docs dist
.DELETE_ON_ERROR:

help:
	@echo "make demo     see it all on embedded checkpoints, in about a minute"
	@echo "make test     run the tests with coverage (at least 95 %), all but the slow ones"
	@echo "make test-slow     run the slow ones, in at most ten minutes"
	@echo "make test-random   run both in random order; SEED=NUMBER, which is printed, repeats one"
	@echo "make test-threads  run what uses threads over and over, ROUNDS=10 times in random orders"
	@echo "make test-outside  run the graphs in other programs: needs npm, cmake, a C++ compiler, Chromium"
	@echo "make test-clients  rerank with stock clients, installed apart, in at most ten minutes"
	@echo "make test-api  send a server whatever its description allows, and what it does not"
	@echo "make test-ray  run on a cluster of Ray's on this machine, in at most ten minutes"
	@echo "make mutation change the code that decides, and list the changes that no test notices"
	@echo "make sanitize run engine native's tests with assertions, AddressSanitizer and UBSan, with GCC"
	@echo "make check    what CI runs: format, lint, strict types, then the tests"
	@echo "make format   rewrite the sources as 'make check' wants them"
	@echo "make dist     build the sdist and the wheels of the last commit into dist/, and try each"
	@echo "make docs     build the site into build/site, in an environment of its own; check its links"
	@echo "make demo-checkpoints   train the embedded checkpoints anew, into $(DEMO_DIR)"
	@echo "PYTHON=python3.12 and VENV=DIR choose the interpreter and where its packages go"

define MAKE_VENV
	@echo "==> checking that $(PYTHON) is Python 3.11 or later"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is not; name one that is: make PYTHON=python3.12"; exit 2; }
	@echo "==> making $(@D) from constraints.txt"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --quiet --constraint constraints.txt --upgrade pip
endef

$(STAMP): pyproject.toml constraints.txt
	$(MAKE_VENV)
	@SGRAF_DEPLOY_NATIVE=0 $(PIP) install --quiet --quiet --constraint constraints.txt \
		--editable '.[torch,cpu,rtx,fused,hub,images,serve]' --group dev
	@touch $@

$(API_VENV)/.stamp: tests/api/requirements.txt
	@echo "==> making $(@D) from $<"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --quiet -r $<
	@touch $@

$(RAY_VENV)/.stamp: pyproject.toml constraints.txt hatch_build.py
	$(MAKE_VENV)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --quiet --constraint constraints.txt \
		--editable '.[torch,cpu,serve,ray]' --group dev
	@touch $@

$(DIST_VENV)/.stamp: pyproject.toml constraints.txt
	$(MAKE_VENV)
	@$(@D)/bin/python -m pip install --quiet --quiet --constraint constraints.txt --group dist
	@touch $@

# The scorer in C: whenever the rest is installed anew, which removes it, or its sources change.
$(NATIVE): hatch_build.py $(wildcard $(addprefix sgraf_deploy/engines/native/,build.py *.[ch])) $(STAMP)
	@echo "==> compiling engine native"
	@$(PIP) install --quiet --quiet --no-deps --editable .
	@touch $@

# Nothing else needs it.
$(MUTMUT): $(NATIVE)
	@echo "==> installing mutmut"
	@$(PIP) install --quiet --quiet --constraint constraints.txt mutmut
	@touch $@

# Other programs than this one, in the same environment: the graphs must fit them.
$(OUTSIDE): $(NATIVE) $(wildcard tests/outside/package*.json) tests/outside/oldest.txt
	@echo "==> installing what else runs graphs"
	@$(PIP) install --quiet --quiet --constraint constraints.txt --group outside
	@mkdir -p $(NPM) && cp tests/outside/package.json tests/outside/package-lock.json $(NPM)
	@npm ci --silent --no-audit --no-fund --prefix $(NPM)
	@$(BIN)/python -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python -m pip --disable-pip-version-check install --quiet --quiet -r tests/outside/oldest.txt
	@touch $@

# Clients of rerank servers, which conflict: an environment for each file.
$(CLIENTS)/.stamp: $(wildcard tests/outside/clients/*.txt)
	@echo "==> installing clients of rerank servers"
	@for file in $^; do \
		to=$(CLIENTS)/$$(basename $$file .txt); \
		$(PYTHON) -m venv --clear $$to && $$to/bin/python -m pip --disable-pip-version-check \
			install --quiet --quiet -r $$file || exit 1; \
	done
	@touch $@

demo: $(NATIVE)
	@$(BIN)/sgraf-deploy demo

demo-checkpoints: $(NATIVE)
	@echo "==> training on synthetic scenes, about ten minutes"
	mkdir $(DEMO_DIR)
	$(BIN)/sgraf-deploy synth -o $(DEMO_DIR)/scenes
	$(BIN)/sgraf-deploy train $(DEMO_DIR)/scenes --module SGR -o $(DEMO_DIR)/sgr.pth.tar $(DEMO_TRAIN)
	$(BIN)/sgraf-deploy train $(DEMO_DIR)/scenes --module SAF -o $(DEMO_DIR)/saf.pth.tar \
		--vocab $(DEMO_DIR)/sgr_vocab.json $(DEMO_TRAIN)

test: $(NATIVE)
	@echo "==> tests"
	@$(TEST) $(PARALLEL) -m 'not slow and not outside and not ray' --cov --cov-report=term

test-slow: $(NATIVE)
	@echo "==> slow tests"
	@$(TEST) $(PARALLEL) -m 'slow and not ray'

test-outside: $(OUTSIDE)
	@echo "==> the graphs in other programs"
	@SGRAF_DEPLOY_NODE_MODULES=$(abspath $(NPM))/node_modules SGRAF_DEPLOY_OLDEST_PYTHON=$(abspath $(OLDEST))/bin/python \
		$(TEST) --numprocesses 0 -m 'outside and not clients' tests/outside

test-clients: $(NATIVE) $(CLIENTS)/.stamp
	@echo "==> a server and stock clients"
	@SGRAF_DEPLOY_CLIENTS=$(abspath $(CLIENTS)) $(TEST) --numprocesses 0 -m clients tests/outside

test-random: $(NATIVE)
	@echo "==> tests in random order"
	@$(TEST) $(PARALLEL) -m 'not outside and not ray' -p randomly $(if $(SEED),--randomly-seed=$(SEED))

test-threads: $(NATIVE)
	@for round in $$(seq $(ROUNDS)); do \
		echo "==> what uses threads, $$round of $(ROUNDS)"; \
		$(TEST) $(PARALLEL) --quiet -m 'not slow and not outside and not ray' -p randomly --randomly-seed=$$round $(THREADED) || exit 1; \
	done

test-api: $(NATIVE) $(API_VENV)/.stamp
	@echo "==> requests of every kind, in about three minutes"
	@$(BIN)/python tests/api/run.py $(abspath $(API_VENV))/bin/schemathesis

test-ray: $(RAY_VENV)/.stamp
	@echo "==> a cluster of Ray's on this machine"
	@$(RAY_VENV)/bin/python -m pytest --numprocesses 0 -m ray tests/distributed

mutation: $(MUTMUT)
	@echo "==> mutants of the code that decides, up to 40 minutes"
	@$(BIN)/python tests/mutate.py $(MUTANTS)

sanitize: $(NATIVE)
	@echo "==> the scorer in C with assertions, under AddressSanitizer and UBSan"
	@$(BIN)/python tests/sanitize_native.py

dist: $(DIST_VENV)/.stamp
	@echo "==> what is released, in at most ten minutes"
	@$(DIST_VENV)/bin/python scripts/dist.py

check: $(NATIVE)
	@echo "==> format"
	@$(BIN)/ruff format --check .
	@echo "==> lint"
	@$(BIN)/ruff check .
	@echo "==> strict types"
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory test

format: $(NATIVE)
	@echo "==> format"
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

$(DOCS_VENV)/.stamp: docs/requirements.txt
	@echo "==> making $(DOCS_VENV) from docs/requirements.txt"
	@$(PYTHON) -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --quiet -r docs/requirements.txt
	@touch $@

docs: $(DOCS_VENV)/.stamp
	@echo "==> the site"
	@$(DOCS_VENV)/bin/python -m tools.pages
