#!/usr/bin/env bash
# The Event Hubs emulator on this machine: builds it, starts it, seeds it, stops it.
#
#   eventhubs/emulator.sh start|stop|status
#
# EVENTHUBS_PORT          AMQP, default 5672
# EVENTHUBS_CONTROL_PORT  control API, default 5300
# EVENTHUBS_SEED          hubs to serve, default eventhubs/seed.json
# EVENTHUBS_STATE         where log and process id are kept, default .local/eventhubs; another
#                         directory and other ports make a second emulator beside the first
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
port=${EVENTHUBS_PORT:-5672}
control=${EVENTHUBS_CONTROL_PORT:-5300}
seed=${EVENTHUBS_SEED:-$root/eventhubs/seed.json}
state=${EVENTHUBS_STATE:-$root/.local/eventhubs}
program=${CARGO_TARGET_DIR:-$root/target}/debug/eventhubs-emulator

cloud="event hubs" mark=eventhubs-emulator where=amqp://127.0.0.1:$port usage=$0

ready() { grep -q '^ready ' "$state/log" 2>/dev/null; }

build() {
    command -v cargo >/dev/null || { echo "event hubs: needs Rust (cargo)" >&2; exit 1; }
    echo "event hubs: building the emulator"
    # With the features of the whole workspace, so that no dependency is built twice.
    (cd "$root" && cargo build --quiet --workspace --locked --bin eventhubs-emulator)
}

launch() { exec nohup "$program" --port "$port" --control-port "$control" --seed "$seed"; }

# shellcheck source=../local-cloud.sh
source "$root/local-cloud.sh"

case ${1:-} in
start) running || build; start ;;
stop) stop ;;
status) status ;;
*) help ;;
esac
