# Every target is one command that can also be typed.

.PHONY: all build test race compat e2e partition campaign conformance bench bench-micro fuzz vet lint image clean ci

all: build test

build: ## the program, static, in bin/
	CGO_ENABLED=0 go build -trimpath -o bin/quorate ./cmd/quorate

test: ## all tests of this module
	go test ./...

race: ## the same under the race detector
	go test -race ./...

compat: ## real v2 client libraries against a real server (a module of its own)
	go test -C test/compat ./...

e2e: ## the long rounds of the end-to-end tests
	go test -tags e2e -timeout 60m ./test/e2e

SOAK ?= 10m
soak: ## a mixed load for ten minutes, or SOAK=1h, and what it leaves behind
	go test -tags soak -timeout 0 -run '^TestSoak$$' -v ./test/e2e -duration $(SOAK)

partition: ## network partitions (Linux, root)
	go test -tags partition -timeout 30m ./test/partition

SEEDS ?= 1-320
campaign: ## hours of faults; goes on where it was ended, and adds up (Linux; strace for faults of disks)
	go test -tags faults ./test/linearizability -run TestFaults -count=1 -v -timeout 0 -resume -seeds $(SEEDS) -duration 25s -out bin/campaign

bench: ## side by side with etcd 3.4, which has to be in PATH
	go run ./bench

BASE ?= HEAD~1
BENCH ?= .
BENCH_PKG ?= ./fsm/tree ./httpd
bench-micro: ## make bench-micro BASE=main BENCH='List|Render' BENCH_PKG=./fsm/tree
	bench/micro '$(BASE)' '$(BENCH)' $(BENCH_PKG)

PKG ?= ./configs
FUZZ ?= FuzzParseInitialCluster
fuzz: ## make fuzz PKG=./configs FUZZ=FuzzFile
	go test -run '^$$' -fuzz '^$(FUZZ)$$' -fuzztime 60s $(PKG)

vet:
	go vet ./...

lint:
	golangci-lint run

image: build ## a container image around bin/quorate; fetches nothing
	mkdir -p bin/image/data && cp bin/quorate bin/image/ && docker build -t quorate:local -f configs/docker/Dockerfile.local bin/image

clean:
	rm -rf bin

ci: ## what has to pass before a change is taken
	./.ci/run
