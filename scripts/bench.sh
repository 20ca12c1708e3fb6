#!/usr/bin/env bash
# Runs the benchmarks, each beside its real alternative where there is one, and
# writes what they print to docs/benchmarks/NAME.txt and docs/benchmarks.md, with
# the command, the machine and the date. Progress goes to the terminal.
#
#   scripts/bench.sh                 all of them, an hour on a quiet machine
#   scripts/bench.sh ciplan forge    only these
#   SLIPWAY_BENCH_QUICK=1 scripts/bench.sh
#                                    small sizes, to see that they run; nothing is written
set -uo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" SLIPWAY_BIN="$PWD/bin"
quick=${SLIPWAY_BENCH_QUICK:-}
out=docs/benchmarks.md
all=(ciplan pipeline forge registry ingress cluster runner gitops platform)
names=("$@")
((${#names[@]})) || names=("${all[@]}")

# pick FULL QUICK: the arguments that fit.
pick() { if [[ $quick ]]; then echo "$2"; else echo "$1"; fi; }

# command_of NAME: sets command, and limit in minutes.
command_of() {
  limit=20
  case $1 in
    ciplan)
      command=(go run ./bench/ciplan $(pick "" "-jobs 100 -runs 3") $(alternative)) ;;
    pipeline) command=(go run ./bench/pipeline $(pick "" "-only wakeup")) ;;
    forge)
      limit=45
      command=(go run ./bench/forge $(pick "-runs 5" "-runs 1 -tree internal -commits 300 -files 200")) ;;
    registry) command=(go run ./bench/registry $(pick "" "-size 8 -runs 2")) ;;
    ingress) command=(go run ./bench/ingress $(pick "" "-seconds 1 -runs 1")) ;;
    cluster) command=(go run ./bench/cluster $(pick "-rest 7m" "-rest 5s -pods 4")) ;;
    runner)
      limit=30
      command=(go test -run '^$' -bench . -benchtime "$(pick 20x 2x)" -timeout 30m ./bench/runner) ;;
    gitops)
      limit=30
      command=(env SLIPWAY_BENCH="$(pick 1 quick)" go test -tags e2e -count=1 -v -run TestMeasure -timeout 30m ./e2e/gitops) ;;
    platform)
      limit=90
      command=(go run ./bench/platform $(pick "" "-rest 10s -projects 3 -demo=false")) ;;
    *)
      echo "There is no benchmark $1; there are: ${all[*]}" >&2
      return 1 ;;
  esac
}

# alternative: the argument that names gitlab-ci-local, installed from npm once,
# which compiles for some minutes. Its newest versions need Node.js 22.
alternative() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/slipway-bench version=4.60.1
  local program=$dir/node_modules/.bin/gitlab-ci-local
  if ! "$program" --version >/dev/null 2>&1; then
    (($(node -p 'process.versions.node.split(".")[0]' || echo 0) < 22)) || version=latest
    echo "installing gitlab-ci-local $version in $dir" >&2
    mkdir -p "$dir" && timeout 15m npm install --no-fund --no-audit --prefix "$dir" "gitlab-ci-local@$version" >&2 </dev/null
  fi
  if "$program" --version >/dev/null 2>&1; then
    echo "-alternative $program"
  else
    echo "gitlab-ci-local does not run here: slipway ci plan is measured alone" >&2
  fi
}

failed=()
for name in "${names[@]}"; do
  command_of "$name" || exit 2
  new=$(mktemp)
  load=$(cut -d' ' -f1 /proc/loadavg)
  echo "== $name: ${command[*]}"
  begun=$SECONDS
  timeout --signal=INT --kill-after=2m "${limit}m" "${command[@]}" >"$new"
  status=$?
  sed -i -e '/^goos:\|^goarch:\|^PASS$\|^=== \|^--- \|^testing: /d' "$new"
  cat "$new"
  # Some end with a status of their own where a goal is missed: that counts too.
  ((status == 0)) || { failed+=("$name"); echo "$name ended with status $status after $((SECONDS - begun)) s" >&2; }
  if [[ -z $quick && -s $new ]] && ((status == 0 || status == 2)); then
    mkdir -p docs/benchmarks
    {
      echo "\$ ${command[*]//$HOME\//\~/}"
      echo "# $(date -u +%F), $(nproc) cores, $(free -h | awk '/Mem:/ {print $2}') memory, Linux $(uname -r), load $load before it"
      cat "$new"
    } >"docs/benchmarks/$name.txt"
  fi
  rm -f "$new"
done
if [[ -z $quick ]]; then
  {
    sed '/^<!-- results -->/q' "$out"
    for f in docs/benchmarks/*.txt; do
      printf '\n## %s\n\n```\n' "$(basename "$f" .txt)"
      cat "$f"
      printf '```\n'
    done
  } >"$out.new" && mv "$out.new" "$out"
fi
((${#failed[@]} == 0)) || { echo "Failed: ${failed[*]}" >&2; exit 1; }
