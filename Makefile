# Two targets are all a newcomer needs: `make demo` and `make test`. Both set themselves up.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types contracts pytest format clean

BIN := .venv/bin
DEMO_OUT ?= lungfm-demo
REAL_DATA ?= ../shared/data
# Slow tests are left out unless SLOW=1, as in CI.
MARKS := $(if $(SLOW),,-m "not slow")
# Real viewers need a display; without one, a virtual one.
XVFB := $(if $(DISPLAY),,$(shell command -v xvfb-run >/dev/null 2>&1 && echo 'xvfb-run -a -s "-screen 0 1600x1000x24"'))

help:
	@echo "make demo    set up, then run the benchmark on phantoms (and the real cases, if there)"
	@echo "make test    set up, then check style, types, layers and run the tests (SLOW=1: all)"
	@echo "make setup   only set up .venv"
	@echo "make format  put the style right"
	@echo "make clean   remove .venv and caches"

setup:
	@scripts/setup.sh

demo: setup
	@$(BIN)/napari-lungfm-bench demo --out "$(DEMO_OUT)" --real-data "$(REAL_DATA)"

test: setup lint types contracts pytest

lint:
	@echo "[test] style: ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types:
	@echo "[test] types: mypy"
	@$(BIN)/mypy

contracts:
	@echo "[test] layers: import-linter"
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

pytest:
	@echo "[test] pytest"
	@$(XVFB) $(BIN)/python -m pytest $(MARKS) -n 2 $(PYTEST_ARGS)

format:
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
