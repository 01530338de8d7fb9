# make serve | demo | test | check | bench: each works as the first command ever typed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOME_DIR ?= ./pacs-home
ROOMS := pacs scp scu storage processing config
PYTEST_ARGS ?= -n 2
# e.g. make bench BENCH_ARGS="--quick", or "--markdown docs/performance.md"
BENCH_ARGS ?=
# Servers start in a third of the time where their modules' byte code may be kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve demo test check bench bench-codecs bench-processing bench-index docs format lock clean
.DELETE_ON_ERROR:

help:
	@echo "make serve   run the archive on 127.0.0.1:11112, data in $(HOME_DIR)"
	@echo "make demo    store, query and retrieve sample studies and show it"
	@echo "make test    run the tests; says which foreign DICOM tools are missing"
	@echo "make check   format, lint, types, import contracts, docs, tests"
	@echo "make bench   compare with DCMTK, Orthanc and qrscp on this machine"
	@echo "make bench-codecs  compare lossless encoding with DCMTK and GDCM (2 minutes)"
	@echo "make bench-processing  compare a projection with reading, maximum and writing (2 minutes)"
	@echo "make bench-index  measure an index of up to 1,000,000 studies (20 minutes, 10 GB)"
	@echo "make docs    regenerate the generated tables in docs/"
	@echo "make lock    resolve requirements.lock again"
	@echo "make clean   remove .venv and caches, never data"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; choose one with make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "The venv module is missing. Install it: sudo apt-get install python3-venv python3-pip" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

serve: $(READY)
	$(BIN)/pacs --home $(HOME_DIR) init
	exec $(BIN)/pacs --home $(HOME_DIR) serve

demo: $(READY)
	$(BIN)/python -m bench.demo

test: $(READY)
	@$(BIN)/python -m tests.peers
	@# pynetdicom's own tests change pynetdicom for the whole process: in one of their own, by one.
	@# They mostly wait, and so run beside the others; what they say comes last.
	@said=$$(mktemp); $(BIN)/python -m pytest -q $(PYTEST_ARGS) -n 0 tests/upstream >$$said 2>&1 & beside=$$!; \
	  trap 'kill $$beside; rm -f $$said' INT TERM; failed=0; \
	  $(BIN)/python -m pytest -q $(PYTEST_ARGS) || failed=$$?; \
	  wait $$beside || failed=$$?; cat $$said; rm -f $$said; exit $$failed

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python -m docs.generate --check
	$(MAKE) --no-print-directory test

bench: $(READY)
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-codecs: $(READY)
	$(BIN)/python -m bench.codecs $(BENCH_ARGS)

bench-processing: $(READY)
	$(BIN)/python -m bench.processing $(BENCH_ARGS)

bench-index: $(READY)
	$(BIN)/python -m bench.index

docs: $(READY)
	$(BIN)/python -m docs.generate

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The lock holds versions and hashes only, no index and no host, for every Python we support.
lock:
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras --upgrade \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --output-file requirements.lock pyproject.toml > /dev/null

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
