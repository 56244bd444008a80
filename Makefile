# Everything a fresh clone needs is made by the first target you ask for; nothing is made twice.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements/dev.lock
EXTRAS := test dev
TORCH  := $(shell sed -n 's/^torch==//p' $(LOCK))
NEXT   := .venv-next
CONFIG :=
T      :=
K      :=
WORKERS :=
TIME   := 600

INSTALL := $(BIN)/python -m pip install -qq -c $(LOCK)
PYTEST  = $(if $(WORKERS),OMP_NUM_THREADS=1) $(BIN)/python -m pytest \
	$(if $(WORKERS),-n $(WORKERS) --dist loadfile) $(if $(K),-k '$(K)')
# An editable install lists the package's files: when one is new or moved, it is made anew.
FILES   := $(VENV)/.files-$(shell find src -name '*.py' | sort | cksum | cut -d' ' -f1)
NATIVE  := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl')

.PHONY: demo test quick lint format debug fuzz bench test-oldest oldest update build tools models clean help
.DEFAULT_GOAL := demo

# torch comes first and alone: a package that depends on it would otherwise choose its own, larger build.
$(VENV)/.torch: $(LOCK)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@echo "installing torch $(TORCH) (a large download) ..."
	@$(INSTALL) torch==$(TORCH)
	@touch $@

$(VENV)/.deps: $(VENV)/.torch pyproject.toml
	@echo "installing what the package needs to be built and run ..."
	@$(BIN)/python scripts/requirements.py > $(VENV)/requirements.txt
	@$(INSTALL) cmake ninja -r $(VENV)/requirements.txt
	@touch $@

# Linters, test tools and the peers of the benchmarks: the demo does without them.
$(VENV)/.dev: $(VENV)/.deps
	@echo "installing development tools ..."
	@$(BIN)/python scripts/requirements.py $(EXTRAS) > $(VENV)/requirements-dev.txt
	@$(INSTALL) -r $(VENV)/requirements-dev.txt
	@touch $@

$(FILES): $(VENV)/.torch
	@rm -f $(VENV)/.files-*
	@touch $@

$(VENV)/.package: $(VENV)/.deps pyproject.toml CMakeLists.txt $(FILES) $(NATIVE)
	@echo "building the native kernels ..."
	@$(INSTALL) --no-build-isolation --no-deps -C build-dir=$(VENV)/build $(CONFIG) -e .
	@touch $@

build: $(VENV)/.package ## install the package with what it needs, and build its native kernels

tools: build $(VENV)/.dev

models: build
	@$(BIN)/python scripts/fetch_models.py smollm2
	@$(BIN)/python scripts/fetch_models.py qwen2 gemma3 llama.cpp || echo "tests that need it will be skipped"

demo: build ## fetch a model of 135M parameters, run it, write it back (the default)
	@$(BIN)/python scripts/demo.py

test: tools models ## run the tests: all, or T=tests/nn (a path), K=rope (words of pytest -k); WORKERS=2 at a time
	@$(PYTEST) $(T)

quick: WORKERS = 2
quick: tools models ## run one test of each file, none of the slow ones: less than a minute
	@$(PYTEST) -p tests.quick $(T)

lint: tools ## check style, types, import contracts, and the layout of the C++ code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run -Werror --fallback-style=none $(NATIVE)
	@$(BIN)/python scripts/native_stubs.py --check

format: tools ## lay out the Python and the C++ code, and write the native stubs
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i --fallback-style=none $(NATIVE)
	@$(BIN)/python scripts/native_stubs.py

# Python itself is built without the sanitizers, so their libraries must be loaded before it.
debug: ## run the tests of kernels and quants (or T=...) with the address and undefined behaviour sanitizers
	@$(MAKE) tools VENV=.venv-debug CONFIG="-C cmake.define.TORCHGGUF_SANITIZE=ON"
	@LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(subst $(VENV)/,.venv-debug/,$(PYTEST)) $(or $(T),tests/kernels tests/quants)

bench: tools ## measure every figure beside its peers': a quarter of an hour
	@$(BIN)/python scripts/fetch_models.py smollm2 qwen2 llama.cpp
	@$(BIN)/python scripts/build_llama_cpp.py || echo "packing will have no peer"
	@$(BIN)/python -m benchmarks

# Apart from llama.cpp, no peer runs beside packages as old as these: transformers needs newer ones.
test-oldest: ## run the tests that do without transformers on the oldest packages that pyproject.toml allows
	@$(MAKE) oldest VENV=.venv-oldest LOCK=requirements/oldest.lock EXTRAS=test

oldest: tools models
	@$(PYTEST) -p tests.oldest -m "not slow" $(T)

update: $(VENV)/.deps ## raise the locked versions to those that pass lint and test; TORCH=... raises torch too
	@rm -rf $(NEXT) && mkdir $(NEXT)
	@$(BIN)/python scripts/lock.py newest --torch $(TORCH) > $(NEXT)/dev.lock
	@$(BIN)/python scripts/lock.py oldest > $(NEXT)/oldest.lock
	@$(BIN)/python scripts/lock.py compare $(LOCK) $(NEXT)/dev.lock
	@$(MAKE) lint test VENV=$(NEXT)/dev LOCK=$(NEXT)/dev.lock
	@$(MAKE) oldest VENV=$(NEXT)/oldest LOCK=$(NEXT)/oldest.lock EXTRAS=test \
		TORCH=$$(sed -n 's/^torch==//p' $(NEXT)/oldest.lock)
	@mv $(NEXT)/*.lock requirements/ && rm -rf $(NEXT)

# A finding is a failure: its file lies in fuzz/found.
fuzz: build ## try files that nobody would write for TIME=600 seconds; T=model (a target of fuzz/targets.py)
	@$(BIN)/python scripts/requirements.py fuzz > $(VENV)/requirements-fuzz.txt
	@$(INSTALL) -r $(VENV)/requirements-fuzz.txt
	@OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --seconds $(TIME) $(T)

clean: ## remove all that make made here
	rm -rf .venv .venv-* build

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | expand -t 14
