#!/usr/bin/env bash
# Lists the packages whose tests are fast and need neither root nor the heavy
# engines: everything but the packages that link an engine, and the end-to-end
# tests and benchmarks, which have targets of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
heavy='^github.com/slipwayhq/slipway/(internal/cluster|internal/gitops/engine|internal/rollout/engine|cmd/slipway-cluster|cmd/slipway-gitops|cmd/slipway-tools|e2e|bench)(/|$)'
go list ./... | grep -Ev "$heavy"
