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
	@$(BIN)/python -m pip install -qq --upgrade pip
	@echo "installing torch $(TORCH) (a large download) ..."
	@$(BIN)/pip install -qq torch==$(TORCH)
	@touch $@

$(VENV)/.deps: $(VENV)/.torch pyproject.toml
	@echo "installing what the package needs to be built and run ..."
	@$(BIN)/python scripts/requirements.py > $(VENV)/requirements.txt
	@$(BIN)/pip install -qq cmake ninja -r $(VENV)/requirements.txt
	@touch $@

# Linters, test tools and the peers of the benchmarks: the demo does without them.
$(VENV)/.dev: $(VENV)/.deps
	@echo "installing development tools ..."
	@$(BIN)/python scripts/requirements.py dev > $(VENV)/requirements-dev.txt
	@$(BIN)/pip install -qq -r $(VENV)/requirements-dev.txt
	@touch $@

$(VENV)/.package: $(VENV)/.deps pyproject.toml CMakeLists.txt $(wildcard csrc/*)
	@echo "building the native kernels ..."
	@$(BIN)/pip install -qq --no-build-isolation --no-deps -e .
	@touch $@

build: $(VENV)/.package

demo: build
	@$(BIN)/python scripts/demo.py

test: build $(VENV)/.dev
	@$(BIN)/python scripts/fetch_models.py smollm2
	@$(BIN)/python scripts/fetch_models.py qwen2 llama.cpp || echo "tests that need it will be skipped"
	@$(BIN)/python -m pytest

lint: build $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: build $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: build $(VENV)/.dev
	@$(BIN)/python scripts/fetch_models.py smollm2 qwen2 llama.cpp
	@$(BIN)/python scripts/build_llama_cpp.py || echo "packing will have no peer"
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build
