#!/usr/bin/env bash
# Runs every test: installs what is missing, builds all programs, runs the unit
# and conformance tests, then the end-to-end tests against the real programs.
# Prints each failure's output and ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

echo "== prerequisites and build"
if ! make --no-print-directory build; then
  echo "the build failed"
  echo "0 passed, 1 failed"
  exit 1
fi

export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
run() { # name, go test arguments...
  local name=$1; shift
  echo "== $name tests"
  go test -json "$@" >"$results/$name.json" 2>"$results/$name.err"
  echo $? >"$results/$name.status"
  go run ./scripts/testsummary "$results/$name.json" "$results/$name.err"
}

run unit -timeout 10m $(scripts/packages.sh)
if [[ $(id -u) == 0 ]]; then
  run e2e -tags=e2e -count=1 -p 1 -timeout 45m ./e2e/...
else
  echo "== e2e tests need root and were not run"
  echo 1 >"$results/e2e.status"
fi

go run ./scripts/testsummary -total "$results"/*.json
status=$?
for s in "$results"/*.status; do [[ $(cat "$s") == 0 ]] || status=1; done
exit $status
