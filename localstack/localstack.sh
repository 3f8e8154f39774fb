#!/usr/bin/env bash
# LocalStack (SNS, SQS, S3) on this machine, without Docker: installs it, starts it, waits until it is
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

cloud=localstack mark=localstack where=http://127.0.0.1:$port usage=$0

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

run_seed() { "$venv/bin/python" "$root/localstack/seed.py" "$where" "$seed"; }

launch() {
    mkdir -p "$state/home"
    # A home of its own: a failed start leaves a stale plug-in cache in the user's.
    export HOME=$state/home XDG_CACHE_HOME=$state/home/.cache LOCALSTACK_VOLUME_DIR=$state/volume
    export GATEWAY_LISTEN=127.0.0.1:$port SERVICES=sqs,sns,s3 EAGER_SERVICE_LOADING=1
    export SKIP_SSL_CERT_DOWNLOAD=1 DISABLE_EVENTS=1
    exec nohup "$venv/bin/python" -m localstack.runtime.main
}

# shellcheck source=../local-cloud.sh
source "$root/local-cloud.sh"

case ${1:-} in
install) install ;;
start) install; start; run_seed ;;
seed) install; run_seed ;;
stop) stop ;;
status) status ;;
*) help ;;
esac
