#!/usr/bin/env bash
# Azurite (Storage Queues, Blobs) on this machine, without Docker: installs it, starts it, waits
# until it is ready, seeds it, stops it.
#
#   azurite/azurite.sh install|start|seed|stop|status
#
# AZURITE_QUEUE_PORT   default 10001
# AZURITE_BLOB_PORT    default 10000
# AZURITE_SEED         queues and containers to make, default azurite/seed.json
# AZURITE_STATE        where log and process id are kept, default .local/azurite-state; another
#                      directory and other ports make a second one beside the first
# AZURITE_DATA         directory for queues and blobs that outlive a stop; without it, in memory
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
queue_port=${AZURITE_QUEUE_PORT:-10001}
blob_port=${AZURITE_BLOB_PORT:-10000}
seed=${AZURITE_SEED:-$root/azurite/seed.json}
state=${AZURITE_STATE:-$root/.local/azurite-state}
installed=$root/.local/azurite
program=$installed/node_modules/azurite/dist/src

cloud=azurite mark=azurite usage=$0
where="http://127.0.0.1:$queue_port (queues) and http://127.0.0.1:$blob_port (blobs)"

ready() {
    (exec 3<>"/dev/tcp/127.0.0.1/$queue_port") 2>/dev/null &&
        (exec 3<>"/dev/tcp/127.0.0.1/$blob_port") 2>/dev/null
}
run_seed() { node "$root/azurite/seed.mjs" "$queue_port" "$blob_port" "$seed"; }

install() {
    node -e 'process.exit(process.versions.node.split(".")[0] < 18 ? 1 : 0)' 2>/dev/null ||
        { echo "azurite: needs Node 18 or later as node" >&2; exit 1; }
    cmp -s "$root/azurite/package-lock.json" "$installed/package-lock.json" && return
    command -v npm >/dev/null || { echo "azurite: needs npm, which comes with Node" >&2; exit 1; }
    echo "azurite: installing into .local/azurite (half a minute, the first time)"
    rm -rf "$installed" "$installed.new"
    mkdir -p "$installed.new"
    cp "$root/azurite/package.json" "$root/azurite/package-lock.json" "$installed.new"
    npm ci --prefix "$installed.new" --no-audit --no-fund --loglevel error
    mv "$installed.new" "$installed"
}

launch() {
    local kept=(--inMemoryPersistence)
    [[ -z ${AZURITE_DATA:-} ]] || kept=(--location "$AZURITE_DATA")
    # Without --disableTelemetry it calls out.
    exec nohup node --require "$root/azurite/quick.cjs" "$program/azurite.js" \
        --silent "${kept[@]}" --disableTelemetry --skipApiVersionCheck \
        --queueHost 127.0.0.1 --queuePort "$queue_port" \
        --blobHost 127.0.0.1 --blobPort "$blob_port" \
        --tableHost 127.0.0.1 --tablePort 0
}

# shellcheck source=../local-cloud.sh
source "$root/local-cloud.sh"

case ${1:-} in
install) install ;;
start) install; start; run_seed ;;
seed) run_seed ;;
stop) stop ;;
status) status ;;
*) help ;;
esac
