# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Short names for what people do here; the build itself is CMake's (CMakePresets.json). `make help` lists them.

JOBS ?= $(shell nproc)
BUILD := build/release
export GGML_DIR ?=

.DEFAULT_GOAL := build
.PHONY: help setup build tests demo test format ci clean

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16
	@echo '  Variables: JOBS=N compiles on N cores; GGML_DIR=PREFIX takes a ggml of your own;'
	@echo '             CMAKE_FLAGS=-DNAME=VALUE sets options of CMakeLists.txt (-DKVIST_UNITY=OFF: one file at a time);'
	@echo '             KVIST_MODELS_DIR=DIR keeps models there (now: ~/.local/share/kvist/models).'

setup: ## what the build needs: Debian packages, ggml in .venv
	@scripts/setup.sh

build: setup ## the library and the program, in build/release
	@mkdir -p build; cmake --preset release -DGGML_DIR="$(GGML_DIR)" $(CMAKE_FLAGS) >build/configure.log 2>&1 \
	  || { cat build/configure.log; exit 1; }
	@cmake --build --preset release --parallel $(JOBS) --target kvist_program

tests: build ## the tests, too
	@cmake --build --preset release --parallel $(JOBS)

demo: build ## a real model answers from the cache
	@$(BUILD)/kvist model get smollm2 >/dev/null
	@scripts/demo.sh $(BUILD)/kvist

test: ## every test, with the two models they run on
	@KVIST_SETUP_TESTS=1 scripts/setup.sh
	@$(MAKE) --no-print-directory tests
	@$(BUILD)/kvist model get smollm2 gemma3 >/dev/null
	@ctest --preset release --parallel $(JOBS)

format: ## clang-format over our C++ files
	@scripts/format.sh

ci: ## what must pass before a change lands
	@.ci/run

clean: ## remove what was built (not .venv, not the models)
	rm -rf build
