#!/usr/bin/env bash
# Builds what the demo is made of and plays it. What it can be told: demo/run.sh --help
set -euo pipefail

cd "$(dirname "$0")/.."
echo "demo: building (some minutes the first time, then seconds)"
cargo build --quiet --workspace --locked
exec "${CARGO_TARGET_DIR:-target}/debug/eventferry-demo" "$@"
