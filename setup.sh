#!/usr/bin/env bash
# Looks for what has to be on the machine before anything else: Rust, Python, Node, a C compiler
# and OpenSSL's headers (the official Event Hubs SDK, a peer in the tests, links OpenSSL).
# Installs the small things by apt where there is apt; names the rest and stops.
#
# setup.sh [PACKAGE...]: the same for programs of these names, which only the tests need.
set -euo pipefail

root=$(cd "$(dirname "$0")" && pwd)
rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
missing=()
packages=()

# newer MINIMUM VERSION
newer() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

rust=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) || true
if ! command -v cargo >/dev/null || ! newer "$rust_min" "${rust:-0}"; then
    missing+=("Rust $rust_min or later, found ${rust:-none}: https://rustup.rs")
fi

python=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null) || true
if ! newer 3.10 "${python:-0}"; then
    missing+=("Python 3.10 or later as python3, found ${python:-none}: https://www.python.org/downloads")
elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
fi

node=$(node --version 2>/dev/null) || true
if ! newer 18 "${node#v}" || ! command -v npm >/dev/null; then
    missing+=("Node 18 or later with npm, found ${node:-none}: https://nodejs.org/en/download")
fi

command -v cc >/dev/null || packages+=(build-essential)
if [ "$(uname)" = Linux ] && ! pkg-config --exists openssl 2>/dev/null; then
    packages+=(pkg-config libssl-dev)
fi

for program in "$@"; do
    command -v "$program" >/dev/null || packages+=("$program")
done

if [ ${#packages[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    if command -v apt-get >/dev/null && command -v "${as_root[0]:-true}" >/dev/null; then
        echo "setup: installing ${packages[*]} by apt"
        "${as_root[@]}" apt-get -qq update </dev/null
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -qq install --yes --no-install-recommends "${packages[@]}" </dev/null >/dev/null
    else
        missing+=("what Debian calls ${packages[*]}")
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: this machine lacks:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi
echo "setup: Rust $rust, Python $python, Node ${node#v}"
