# What the scripts of the three local clouds have in common; each sets these and then sources it:
#
#   cloud    its name, for messages
#   mark     a word in the command line of its process
#   where    where it answers, for people
#   state    directory for log and process id
#   usage    the script itself, whose first comment is its help
#   launch   replaces the shell by the cloud's process
#   ready    whether the cloud answers
#
# shellcheck shell=bash disable=SC2154

running() {
    local pid
    pid=$(cat "$state/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null || return 1
    # After a restart of the machine the number may be another program's.
    ! command -v ps >/dev/null || [[ $(ps -p "$pid" -o args=) == *"$mark"* ]]
}

start() {
    if ! running; then
        mkdir -p "$state"
        : >"$state/log"
        if ready; then
            echo "$cloud: something else answers at $where; stop it, or choose other ports" >&2
            exit 1
        fi
        launch >"$state/log" 2>&1 </dev/null &
        echo $! >"$state/pid"
    fi
    for _ in $(seq 1200); do
        if ready; then
            echo "$cloud: ready at $where"
            return
        fi
        # Not by its name: that is this script's until the cloud's process has taken its place.
        kill -0 "$(cat "$state/pid")" 2>/dev/null || break
        sleep 0.1
    done
    echo "$cloud: not ready; the end of its log:" >&2
    tail -n 20 "$state/log" >&2
    exit 1
}

stop() {
    if running; then
        kill "$(cat "$state/pid")"
        for _ in $(seq 100); do running || break; sleep 0.1; done
        running && kill -9 "$(cat "$state/pid")"
        echo "$cloud: stopped"
    fi
    rm -f "$state/pid"
}

status() {
    if running && ready; then
        echo "$cloud: ready at $where"
    else
        echo "$cloud: not running"
        exit 1
    fi
}

help() {
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "$usage" >&2
    exit 2
}
