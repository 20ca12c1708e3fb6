# Slipway. `make help` lists the targets.

SHELL       := /bin/bash
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
BIN         ?= bin
GO          ?= go

# One set of flags for every build, vet and test: the build cache is shared.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false
ENGINE_TAGS := -tags=no_btrfs,no_devmapper,no_zfs
# What the engines report as their versions comes from go.mod.
module = $(shell $(GO) list -m -f '{{if .Replace}}{{.Replace.Version}}{{else}}{{.Version}}{{end}}' $(1))

# The programs that are ours, and upstream programs built from the same go.mod.
OURS   := $(notdir $(wildcard cmd/*))
ENGINES := \
	github.com/containerd/containerd/v2/cmd/containerd \
	github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
	github.com/containerd/containerd/v2/cmd/ctr \
	github.com/moby/buildkit/cmd/buildkitd \
	github.com/aquasecurity/trivy/cmd/trivy \
	github.com/argoproj/argo-rollouts/cmd/kubectl-argo-rollouts \
	sigs.k8s.io/kustomize/kustomize/v5
ARGOCD := github.com/argoproj/argo-cd/v3/cmd

K8S  := $(call module,k8s.io/kubernetes)
LINK := -s -w -X main.version=$(VERSION) \
	-X k8s.io/component-base/version.gitVersion=$(K8S) -X k8s.io/component-base/version.gitMajor=1 \
	-X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(K8S))) -X k8s.io/client-go/pkg/version.gitVersion=$(K8S) \
	-X github.com/containerd/containerd/v2/version.Version=$(patsubst v%,%,$(call module,github.com/containerd/containerd/v2)) \
	-X github.com/argoproj/argo-cd/v3/common.version=$(patsubst v%,%,$(call module,github.com/argoproj/argo-cd/v3)) \
	-X github.com/argoproj/argo-rollouts/utils/version.version=$(patsubst v%,%,$(call module,github.com/argoproj/argo-rollouts)) \
	-X github.com/moby/buildkit/version.Version=$(call module,github.com/moby/buildkit) \
	-X github.com/aquasecurity/trivy/pkg/version/app.ver=$(patsubst v%,%,$(call module,github.com/aquasecurity/trivy))

.PHONY: help prereqs build engines web test unit e2e demo bench lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

prereqs: ## install what building and running need (apt packages, npm)
	@scripts/prereqs.sh

web: ## bundle the front end
	@$(GO) run ./internal/web/bundle

build: prereqs ## build every program into bin/
	@$(MAKE) --no-print-directory web
	@echo "== our programs ($(words $(OURS)))"
	@mkdir -p $(BIN)
	@$(GO) build $(ENGINE_TAGS) -ldflags="$(LINK)" -o $(BIN)/ ./cmd/...
	@$(MAKE) --no-print-directory engines
	@echo "== built: $$(du -sh $(BIN) | cut -f1) in $(BIN)/"

engines: ## build the upstream programs
	@echo "== engines ($(words $(ENGINES) $(ARGOCD))); the first build takes 10 to 20 minutes"
	@for p in $(ENGINES); do echo "   $$p"; $(GO) build $(ENGINE_TAGS) -ldflags="$(LINK)" -o $(BIN)/ $$p || exit 1; done
	@echo "   $(ARGOCD)"; $(GO) build $(ENGINE_TAGS) -ldflags="$(LINK)" -o $(BIN)/argocd $(ARGOCD)

unit: ## fast tests: no root, no cluster
	@$(GO) vet $$(scripts/packages.sh)
	@$(GO) test -timeout 5m $$(scripts/packages.sh)

test: ## all tests: prerequisites, build, unit, conformance, end-to-end
	@scripts/test.sh

e2e: build ## end-to-end tests against the real programs (root)
	@$(GO) test -tags=e2e -count=1 -timeout 40m ./e2e/...

demo: build ## start the platform and play the seed story
	@scripts/demo.sh

bench: build ## measure; the result goes to docs/benchmarks.md
	@scripts/bench.sh

lint: ## vet and staticcheck
	@$(GO) vet $$(scripts/packages.sh)
	@$(GO) run honnef.co/go/tools/cmd/staticcheck@latest $$(scripts/packages.sh)

clean: ## remove what was built
	rm -rf $(BIN) node_modules internal/web/static/build
