# Everything a fresh clone needs is made by the first target you ask for; nothing is made twice.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := 2.13.0

.PHONY: demo test lint format bench build clean
.DEFAULT_GOAL := demo

# torch comes first and alone: a package that depends on it would otherwise choose its own, larger build.
$(VENV)/.torch: Makefile
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade pip
	@echo "installing torch $(TORCH) ..."
	@$(BIN)/pip install -q torch==$(TORCH)
	@touch $@

$(VENV)/.deps: $(VENV)/.torch pyproject.toml
	@echo "installing build and development tools ..."
	@$(BIN)/python scripts/requirements.py dev > $(VENV)/requirements.txt
	@$(BIN)/pip install -q -r $(VENV)/requirements.txt
	@touch $@

$(VENV)/.package: $(VENV)/.deps pyproject.toml CMakeLists.txt $(wildcard csrc/*)
	@echo "building the native kernels ..."
	@$(BIN)/pip install -q --no-build-isolation --no-deps -e .
	@touch $@

build: $(VENV)/.package

demo: build
	@$(BIN)/python scripts/demo.py

test: build
	@$(BIN)/python scripts/fetch_models.py
	@$(BIN)/python -m pytest

lint: build
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: build
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: build
	@$(BIN)/python scripts/fetch_models.py
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build
