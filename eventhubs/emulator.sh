#!/usr/bin/env bash
# The Event Hubs emulator on this machine: builds it, starts it, seeds it, waits for it, stops it.
#
#   eventhubs/emulator.sh start|stop|wait|status
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

running() { [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }

wait_ready() {
    for _ in $(seq 100); do
        if grep -q '^ready ' "$state/log" 2>/dev/null; then
            echo "event hubs: $(grep -m1 "^ready " "$state/log")"
            return
        fi
        running || break
        sleep 0.1
    done
    echo "event hubs: not ready; its log:" >&2
    cat "$state/log" >&2
    exit 1
}

case ${1:-} in
start)
    if ! running; then
        command -v cargo >/dev/null || { echo "event hubs: needs Rust (cargo)" >&2; exit 1; }
        echo "event hubs: building the emulator"
        # With the features of the whole workspace, so that no dependency is built twice.
        (cd "$root" && cargo build --quiet --workspace --locked --bin eventhubs-emulator)
        mkdir -p "$state"
        : >"$state/log"
        nohup "$program" --port "$port" --control-port "$control" --seed "$seed" >"$state/log" 2>&1 </dev/null &
        echo $! >"$state/pid"
    fi
    wait_ready
    ;;
wait)
    wait_ready
    ;;
stop)
    if running; then
        kill "$(cat "$state/pid")"
        for _ in $(seq 50); do running || break; sleep 0.1; done
        running && kill -9 "$(cat "$state/pid")"
        echo "event hubs: stopped"
    fi
    rm -f "$state/pid"
    ;;
status)
    if running; then
        echo "event hubs: running, $(grep -m1 '^ready ' "$state/log" || echo 'not ready')"
    else
        echo "event hubs: not running"
        exit 1
    fi
    ;;
*)
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
