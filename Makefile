# sealdisk. `make help` lists the targets.

GO ?= go
BIN := bin/sealdisk
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)
RUN := $(GO) build -o bin/runtests ./scripts/runtests && bin/runtests
BENCH_TOOL = $(GO) build -o bin/bench ./scripts/bench && bin/bench

.DEFAULT_GOAL := build
.PHONY: build demo check test test-vm test-long lint bench bench-quick bench-go fuzz fuzz-long clean help

build: ## the one binary, bin/sealdisk
	@scripts/deps.sh go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/sealdisk

demo: ## a timed story: key, encrypted disk, file system, key disabled, data back (under a minute)
	@scripts/deps.sh demo
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh

check: ## format, vet, staticcheck, unit tests: no root, no installs, under 2 minutes
	@scripts/deps.sh go
	@$(RUN) check

test: ## everything, with real clients and a real kernel; installs what it needs (under 20 minutes)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory build
	@$(RUN) test

test-vm: build ## all scenarios on a real kernel (User-mode Linux)
	@scripts/deps.sh test
	@$(RUN) vm

test-long: build ## what takes long: power cuts and linearizability over many more schedules
	@scripts/deps.sh test
	@$(RUN) long

lint: ## format, vet and staticcheck only
	@scripts/deps.sh go
	@$(RUN) lint

bench: ## sealdisk beside other NBD servers, all rows (tens of minutes); BENCH='-rows core' passes flags
	@scripts/deps.sh bench
	@$(BENCH_TOOL) $(BENCH)

bench-quick: ## the core rows against nbdkit, plain and encrypted (about two minutes)
	@scripts/deps.sh bench
	@$(BENCH_TOOL) -quick $(BENCH)

bench-go: ## Go benchmarks of the data path
	$(GO) test -run '^$$' -bench . -benchmem ./xts/... ./blockdev/... ./pkg/nbd/... ./pkg/nbdserver/...

fuzz: ## every fuzz target for 20 seconds
	@$(RUN) -fuzztime 20s fuzz

fuzz-long: ## every fuzz target for 10 minutes
	@$(RUN) -fuzztime 10m fuzz

clean: ## what make built
	rm -rf bin dist

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r t d; do printf '  make %-11s %s\n' "$$t" "$$d"; done
