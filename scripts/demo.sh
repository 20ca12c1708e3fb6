#!/usr/bin/env bash
# Starts the platform, unless it runs already, and plays the seed story on it.
# It can be repeated: the demonstration of an earlier run is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $(id -u) != 0 ]]; then
  echo "The platform runs containers and networks, so this needs root: sudo make demo" >&2
  exit 1
fi
echo "== start the platform"
if bin/slipway status >/dev/null 2>&1; then
  echo "It runs already."
else
  bin/slipway up --detach || {
    # Status 1 of a start may only mean that it runs but is not ready yet.
    bin/slipway status >/dev/null 2>&1 || exit 1
  }
fi
exec bin/slipway demo
