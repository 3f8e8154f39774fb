#!/usr/bin/env bash
# Looks at every view of the page in a real browser, with a daemon between real local clouds: as
# whoever may everything, as each role, and as a newcomer who has README.md and the demo.
#
#   tests/page/run.sh [--images]   --images: keep what it sees in docs/images/
#
# CHROMIUM           the browser, default the first of chromium, chromium-browser, google-chrome
# EVENTFERRY_BINARY  the daemon, default the one that the tests were run with
# EVENTFERRY_DEMO    the demo, default eventferry-demo next to the daemon
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
page=$root/tests/page
into=$root/.local/page

for name in chromium chromium-browser google-chrome; do
    CHROMIUM=${CHROMIUM:-$(command -v "$name" || true)}
done
if [ -z "$CHROMIUM" ]; then
    echo "page: needs Chromium, and finds none on the PATH (Debian: apt-get install chromium)" >&2
    exit 1
fi
# Playwright without a browser of its own: it needs no download.
if ! cmp -s "$page/package-lock.json" "$into/package-lock.json"; then
    mkdir -p "$into"
    cp "$page/package.json" "$page/package-lock.json" "$into/"
    (cd "$into" && npm ci --silent --no-audit --no-fund) || { rm "$into/package-lock.json"; exit 1; }
fi
export CHROMIUM PAGE_MODULES=$into
if [ "${1:-}" = --images ]; then export PAGE_IMAGES=$root/docs/images; fi
for part in page newcomer roles; do node "$page/$part.mjs"; done
