#!/usr/bin/env bash
# Sets up the foreign peers of the conformance suite, pinned, under .local/peers: the official
# Python and JavaScript SDKs; and builds the peer of the official Rust SDK. Quick the second time.
set -euo pipefail

peers=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$peers/../.." && pwd)
into=${EVENTHUBS_PEERS:-$root/.local/peers}

need() { command -v "$1" >/dev/null || { echo "peers: needs $2" >&2; exit 1; }; }
need python3 "Python 3.10 or later with venv"
need npm "Node 18 or later with npm"
need cargo "Rust (cargo)"
mkdir -p "$into"

# Done for exactly these pins already?
done_for() { [ -f "$into/$1.done" ] && cmp -s "$2" "$into/$1.done"; }

if ! done_for python "$peers/python/requirements.txt"; then
    echo "peers: installing azure-eventhub (Python)"
    python3 -m venv "$into/python"
    "$into/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$peers/python/requirements.txt"
    cp "$peers/python/requirements.txt" "$into/python.done"
fi

if ! done_for js "$peers/js/package-lock.json"; then
    echo "peers: installing @azure/event-hubs (JavaScript)"
    mkdir -p "$into/js"
    cp "$peers/js/package.json" "$peers/js/package-lock.json" "$into/js/"
    (cd "$into/js" && npm ci --silent --no-audit --no-fund)
    cp "$peers/js/package-lock.json" "$into/js.done"
fi
(cd "$root" && cargo build --quiet --package eventhubs-peer)
echo "peers: ready"
