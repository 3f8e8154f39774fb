# What a person types, and CI too. Everything that is installed goes under .local/, everything that
# is built under target/. All of cargo's work has the same features, so that nothing is built twice.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO_FLAGS := --workspace --locked
CLOUDS := localstack/localstack.sh azurite/azurite.sh eventhubs/emulator.sh
SCRIPTS := $(shell git ls-files '*.sh' .ci)

.PHONY: help
help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

## For everybody

# Most tests wait for a cloud.
TEST_THREADS := $(shell expr $$(nproc) + 1)

.PHONY: demo demo-once test
demo: setup ## Carry orders and telemetry between three local clouds, live, until Ctrl-C
	@demo/run.sh

demo-once: setup ## The same for 10,000 events, then verify what has arrived
	@demo/run.sh --once

test: setup ## Prove everything, against the local clouds and three foreign SDKs
	@./setup.sh redis-server
	@eventhubs/peers/setup.sh
	EVENTFERRY_REQUIRE_PEERS=1 RUST_TEST_THREADS=$(TEST_THREADS) cargo test $(CARGO_FLAGS)

## The local clouds, for a person: default ports, kept until they are stopped

.PHONY: clouds clouds-stop
clouds: setup ## Start LocalStack, Azurite and the Event Hubs emulator
	@for cloud in $(CLOUDS); do $$cloud start; done

clouds-stop: ## Stop them
	@for cloud in $(CLOUDS); do $$cloud stop; done

## For who changes the code

.PHONY: fmt lint docs deny delivery page ruler simulate torture model
fmt: ## Format
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

lint: programs ## Format, scripts, clippy without a warning, the core without SDKs
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	for script in $(SCRIPTS); do bash -n $$script; done
	cargo clippy $(CARGO_FLAGS) --all-targets -- --deny warnings
	cargo check --quiet --locked --package eventferry --no-default-features

docs: programs ## Build the API's pages without a warning
	RUSTDOCFLAGS='--deny warnings' cargo doc $(CARGO_FLAGS) --no-deps

ruler: ## Patterns against event-ruler itself; needs Java and Maven
	mvn --quiet --batch-mode --file tests/ruler/pom.xml process-classes
	cargo test $(CARGO_FLAGS) --lib -- --ignored --nocapture as_event_ruler_does

deny: ## Check the dependencies: bans, licences, sources, advisories
	.ci/deny

# Any build of the daemon will do: that of the tests, if they have run.
BINARY ?= target/debug/eventferry
delivery: programs ## Prove image, chart, alarms, permissions and pipelines, without a cluster
	[ -x $(BINARY) ] || cargo build $(CARGO_FLAGS)
	python3 deploy/verify $(BINARY)

page: setup ## Look at every view of the page in Chromium (IMAGES=1: keep them in docs/images/)
	@command -v chromium chromium-browser google-chrome > /dev/null || ./setup.sh chromium
	[ -x $(BINARY) -a -x $(dir $(BINARY))eventferry-demo ] || cargo build $(CARGO_FLAGS)
	EVENTFERRY_BINARY=$(abspath $(BINARY)) tests/page/run.sh $(if $(IMAGES),--images)

# What it finds lies in fuzz/artifacts/. SECONDS is a variable of the shell as well, which counts by
# itself; it reaches the recipe as make knows it.
FUZZ_TARGETS := patterns transforms envelopes cloudevents
TARGET ?= $(FUZZ_TARGETS)
SECONDS ?= 60
.PHONY: fuzz
fuzz: programs ## Feed arbitrary bytes to TARGET for SECONDS each (all of them for 60)
	rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
	cargo fuzz --version > /dev/null 2>&1 || cargo install cargo-fuzz --locked
	fuzz/seeds.py
	for target in $(TARGET); do \
		cargo +nightly fuzz run --sanitizer none $$target -- -max_total_time=$(SECONDS) -rss_limit_mb=2048 \
			-timeout=20 -dict=fuzz/dictionaries/$$target.dict; \
	done

SEEDS ?= 20000
simulate: ## Run the engine in SEEDS simulated worlds in which everything fails
	EVENTFERRY_SEEDS=$(SEEDS) cargo test $(CARGO_FLAGS) --lib -- --nocapture simulation

MINUTES ?= 20
torture: setup ## Simulate, kill, cut, slow and soak for about MINUTES, and write docs/guarantees.md
	@./setup.sh redis-server
	tests/torture.py $(MINUTES)

model: ## Try every order of the protocol's steps, with more faults than `make test` does
	EVENTFERRY_MODEL_LARGE=1 cargo test $(CARGO_FLAGS) --test protocol -- --nocapture

## Set-up, all of it quick the second time

.PHONY: programs setup clean-local
programs: ## Name what this machine lacks, or install it by apt
	@./setup.sh

setup: programs ## Install the local clouds
	@localstack/localstack.sh install
	@azurite/azurite.sh install

clean-local: clouds-stop ## Stop the clouds and remove all that is under .local
	rm -rf .local
