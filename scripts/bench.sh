#!/usr/bin/env bash
# Runs the benchmarks, each beside its real alternative where there is one, and
# writes what they print to docs/benchmarks.md with the machine and the date.
# Name benchmarks as arguments to run only these: scripts/bench.sh ciplan
set -uo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" SLIPWAY_BIN="$PWD/bin"
out=docs/benchmarks.md
names=("$@")
((${#names[@]})) || names=(cluster forge pipeline ciplan runner registry ingress)
mkdir -p docs/benchmarks
failed=0
for name in "${names[@]}"; do
  echo "== $name"
  if ls bench/"$name"/*_test.go >/dev/null 2>&1; then
    command=(go test -run '^$' -bench . -benchtime 10x -timeout 30m "./bench/$name")
  else
    command=(go run "./bench/$name")
  fi
  if "${command[@]}" >"docs/benchmarks/$name.txt.new" 2>&1; then
    { echo "\$ ${command[*]}"; echo "# $(date -u +%F), $(nproc) cores, $(free -h | awk '/Mem:/ {print $2}') memory, Linux $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"; cat "docs/benchmarks/$name.txt.new"; } >"docs/benchmarks/$name.txt"
    cat "docs/benchmarks/$name.txt"
  else
    cat "docs/benchmarks/$name.txt.new"
    echo "the benchmark $name failed"
    failed=1
  fi
  rm -f "docs/benchmarks/$name.txt.new"
done
{
  sed '/^<!-- results -->/q' "$out"
  for f in docs/benchmarks/*.txt; do
    printf '\n## %s\n\n```\n' "$(basename "$f" .txt)"
    cat "$f"
    printf '```\n'
  done
} >"$out.new" && mv "$out.new" "$out"
exit $failed
