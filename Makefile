# `make help` lists the verbs. ./demo and ./check install what is missing first, then call make.
BUILD ?= build
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
BENCH_ARGS ?= --lengths 1024,4096,8192
PEERS_ARGS ?=
CMAKE_ARGS ?=

MODEL = models/SmolLM2-135M-Instruct.Q4_1.gguf
TOOL = $(BUILD)/compactattn
CTEST = ctest --output-on-failure --no-tests=error
configure = mkdir -p $(1) && { cmake -S . -B $(1) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(2) $(CMAKE_ARGS) >$(1)/configure.log 2>&1 || { cat $(1)/configure.log; exit 1; }; }
compile = cmake --build $(1) --parallel $(JOBS)

MAKEFLAGS += --no-print-directory

.PHONY: build model demo check check-arm check-sanitize lint format bench bench-peers quality fuzz install clean help

build: ## build the tool (build/compactattn) and the library
	@$(call configure,$(BUILD),)
	@$(call compile,$(BUILD)) --target tool compactattn

model: ## download and verify the default model (98 MB, once)
	@scripts/fetch-model.sh

demo: build model ## answer a question about a long text, dense against CompactAttention; results in out/
	@$(TOOL) demo --model $(MODEL) --text data/demo.txt --out out

check: lint model ## lint, then build and run every test
	@$(call configure,$(BUILD),-DCA_TESTS=ON)
	@$(call compile,$(BUILD))
	@cd $(BUILD) && $(CTEST)

check-arm: ## cross-compile for ARM64 and run the tests of the NEON kernels under qemu-user
	@JOBS=$(JOBS) CMAKE_ARGS="$(CMAKE_ARGS)" scripts/check-arm.sh build-arm

check-sanitize: model ## every test under address, leak and undefined-behavior sanitizers
	@$(call configure,build-sanitize,-DCA_TESTS=ON -DCA_SANITIZE=ON)
	@$(call compile,build-sanitize)
	@cd build-sanitize && $(CTEST)

lint: ## clang-format, cppcheck and clang-tidy
	@$(call configure,$(BUILD),-DCA_TESTS=ON)
	@scripts/lint.sh $(BUILD)

format: ## rewrite all C files in the house style
	@find $(wildcard include src cli report eval tests bench) -name '*.[ch]' -exec clang-format -i {} +

bench: build model ## measure prefill: lengths x methods (BENCH_ARGS)
	@$(TOOL) bench prefill -m $(MODEL) $(BENCH_ARGS)

bench-peers: build model ## measure attention and prefill beside other libraries, from PyPI; results in out/peers (PEERS_ARGS)
	@scripts/bench-peers.sh $(PEERS_ARGS)

quality: build model ## measure what every method and setting costs in quality; results in out/quality
	@mkdir -p out
	@$(TOOL) bench quality -m $(MODEL) -f data/demo.txt --from 3900 --runs 1 --out out/quality --progress

fuzz: ## fuzz every parser for FUZZ_SECONDS each
	@$(call configure,build-fuzz,-DCA_FUZZ=ON -DCA_TOOL=OFF -DCMAKE_C_COMPILER=clang)
	@$(call compile,build-fuzz)
	@scripts/fuzz.sh build-fuzz $(FUZZ_SECONDS)

install: build ## install tool, library and headers (PREFIX, DESTDIR)
	@cmake --install $(BUILD)

clean: ## remove what was built; the model stays
	@rm -rf $(BUILD) build-* out

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-17s %s\n", $$1, $$2 }'
