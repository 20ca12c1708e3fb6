#!/usr/bin/env bash
# Installs what building and running Slipway need and says which and why. A
# second run finds everything there and does nothing.
set -euo pipefail

# tool or file : package : why
needs=(
  "git:git:repositories"
  "runc:runc:containers"
  "nft:nftables:networking of the cluster"
  "iptables:iptables:port mappings of pods"
  "conntrack:conntrack:networking of the cluster"
  "ip:iproute2:network namespaces"
  "ssh:openssh-client:git over SSH in the tests"
  "mmdebstrap:mmdebstrap:base images without a registry"
  "git-lfs:git-lfs:large files in repositories"
  "chromium:chromium:browser tests"
  "curl:curl:tests and examples"
  "jq:jq:tests and examples"
  "/usr/lib/cni/bridge|/opt/cni/bin/bridge:containernetworking-plugins:pod networks"
)

present() {
  local one
  IFS='|' read -ra alternatives <<<"$1"
  for one in "${alternatives[@]}"; do
    if [[ $one == /* ]]; then [[ -e $one ]] && return 0; else command -v "$one" >/dev/null && return 0; fi
  done
  return 1
}

missing=()
for need in "${needs[@]}"; do
  IFS=: read -r what package why <<<"$need"
  if ! present "$what"; then
    if [[ $package == chromium && -n $(command -v chromium-browser || command -v google-chrome) ]]; then continue; fi
    echo "prerequisite: $package ($why)"
    missing+=("$package")
  fi
done
# The front end is bundled from npm packages.
if ! command -v npm >/dev/null; then
  echo "prerequisite: npm (bundles the front end)"
  missing+=(npm)
fi
if ! command -v go >/dev/null; then
  echo "prerequisite missing: Go 1.26 or later; see https://go.dev/doc/install" >&2
  exit 1
fi

if ((${#missing[@]})); then
  if [[ $(id -u) != 0 ]]; then
    echo "Run as root, or install them yourself: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "apt-get could not install: ${missing[*]}" >&2
    exit 1
  fi
  echo "installed: ${missing[*]}"
fi
