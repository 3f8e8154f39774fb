#!/usr/bin/env bash
# LocalStack (SNS, SQS) on this machine, without Docker: installs it, starts it, waits until it is
# ready, seeds it, stops it.
#
#   localstack/localstack.sh install|start|seed|stop|status
#
# LOCALSTACK_PORT   default 4566
# LOCALSTACK_SEED   queues, topics and subscriptions to make, default localstack/seed.json
# LOCALSTACK_STATE  where log and process id are kept, default .local/localstack; another
#                   directory and another port make a second one beside the first
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
port=${LOCALSTACK_PORT:-4566}
seed=${LOCALSTACK_SEED:-$root/localstack/seed.json}
state=${LOCALSTACK_STATE:-$root/.local/localstack}
venv=$root/.local/localstack-venv
wanted=$root/localstack/requirements.txt

running() { [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null && is_ours "$(cat "$state/pid")"; }
# After a restart of the machine the number may be another program's.
is_ours() {
    command -v ps >/dev/null || return 0
    case "$(ps -p "$1" -o args=)" in *localstack*) ;; *) return 1 ;; esac
}
ready() { "$venv/bin/python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/_localstack/health', timeout=1)" 2>/dev/null; }

install() {
    cmp -s "$wanted" "$venv/installed.txt" && return
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        { echo "localstack: needs Python 3.10 or later as python3" >&2; exit 1; }
    echo "localstack: installing into .local/localstack-venv (about a minute, the first time)"
    python3 -m venv "$venv" ||
        { echo "localstack: needs the venv module of Python (Debian: apt-get install python3-venv)" >&2; exit 1; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

start() {
    install
    if ! running; then
        mkdir -p "$state/home"
        # A home of its own: a failed start leaves a stale plug-in cache in the user's.
        HOME=$state/home XDG_CACHE_HOME=$state/home/.cache LOCALSTACK_VOLUME_DIR=$state/volume \
            GATEWAY_LISTEN=127.0.0.1:$port SERVICES=sqs,sns EAGER_SERVICE_LOADING=1 \
            SKIP_SSL_CERT_DOWNLOAD=1 DISABLE_EVENTS=1 \
            nohup "$venv/bin/python" -m localstack.runtime.main >"$state/log" 2>&1 </dev/null &
        echo $! >"$state/pid"
    fi
    for _ in $(seq 300); do
        if ready; then
            echo "localstack: ready at http://127.0.0.1:$port"
            return
        fi
        running || break
        sleep 0.1
    done
    echo "localstack: not ready; the end of its log:" >&2
    tail -n 20 "$state/log" >&2
    exit 1
}

case ${1:-} in
install)
    install
    ;;
start)
    start
    "$venv/bin/python" "$root/localstack/seed.py" "http://127.0.0.1:$port" "$seed"
    ;;
seed)
    install
    "$venv/bin/python" "$root/localstack/seed.py" "http://127.0.0.1:$port" "$seed"
    ;;
stop)
    if running; then
        kill "$(cat "$state/pid")"
        for _ in $(seq 100); do running || break; sleep 0.1; done
        running && kill -9 "$(cat "$state/pid")"
        echo "localstack: stopped"
    fi
    rm -f "$state/pid"
    ;;
status)
    if running && ready; then
        echo "localstack: ready at http://127.0.0.1:$port"
    else
        echo "localstack: not running"
        exit 1
    fi
    ;;
*)
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
