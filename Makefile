# make test is what CI runs. Everything else is a convenience.

GO       ?= go
FUZZTIME ?= 30s
TESTARGS ?=

# The long forms of what go test ./bench runs in short.
FULL := $(GO) test ./bench -count=1 -v -timeout 90m -full $(TESTARGS)
STATICCHECK := $(GO) tool -modfile=tools/go.mod staticcheck

.PHONY: help test lint format-check build bench proof chaos fuzz deploy-check deps clean

help:
	@echo 'make test    formatting, vet, staticcheck, the rules of the tree (arrows_test.go), all tests with -race'
	@echo 'make lint    the same without the tests'
	@echo 'make build   bin/postroom, static'
	@echo 'make bench   what a mail costs, as ratios in one run'
	@echo 'make proof   the long proofs: every part arrives once, an interrupted request, clocks apart, limits, refusals'
	@echo 'make chaos   kill workers, network and Redis while mail goes out; requeue, cancel and expire it, too'
	@echo 'make fuzz    every fuzzer for FUZZTIME=$(FUZZTIME)'
	@echo 'make deploy-check   helm lint and template, manifests and compose file by their own types; builds helm the first time: minutes'
	@echo 'make deps    install the servers that the tests start (Debian, as root)'
	@echo 'make clean   remove what was built'

# The tests come last: their result is what a reader of a long log looks for. lint has vetted them, and packages that wait leave room for
# others.
test: deps lint
	$(GO) test -race -vet=off -p 4 -timeout 10m $(TESTARGS) ./...

lint: format-check
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test .

format-check:
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; fi

# The version comes from the tag of the checkout: debug.ReadBuildInfo.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/postroom ./cmd/postroom

bench: deps
	$(FULL) -run '^Test(Drain|RepairOfALargeBacklog|ListsOfALargeBacklog|WhatWaitsCostsNothing)$$'

proof: deps
	$(FULL) -run '^Test(Submission|Interrupted|Clocks|Limits|AThrottled|AnAlert|ASmall|ABacklog|AMessage|ADear|Waiting|TheProviders|Forecasts|Held|AWrong|AServer|AFull|RetryAfter|OneOfEach|FiftyThousand|AHundred|OAuth|GraphStays|AnAmbiguous|ALarge|Switching|SettingsThat|Secrets|AnAdministrators|TryingSettings|AStream|AGenerated|ACluster)'

chaos: deps
	$(FULL) -run '^Test(Killed|Terminated|MailOfAKilled|Stopped|WhatIsAccepted|AKilledProbe|AKilledWorker|RequeueCancel|AMasterKilled)'

# One fuzzer at a time, for go test -fuzz takes no more. Little minimizing: it can eat all the time, with nothing tried.
fuzz:
	@set -e; for package in $$($(GO) list ./...); do \
		found=$$($(GO) test -list '^Fuzz' $$package); \
		for fuzzer in $$(echo "$$found" | grep '^Fuzz' || true); do \
			echo "$$package $$fuzzer"; \
			$(GO) test -run '^$$' -fuzz "^$$fuzzer\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package; \
		done; \
	done

# What go test ./deploy can't: helm and the types of Kubernetes take minutes to build, once.
deploy-check: build
	cd tools/deploy && $(GO) run . ../.. ../../bin/postroom

deps:
	@.ci/deps

clean:
	rm -rf bin bench/results
