#!/usr/bin/env python3
"""What an event costs a daemon, from hub to hub, in CPU time: with 1 % of traces and without.

    cargo build --release --locked --package eventferry
    cargo build --locked --workspace --bin eventhubs-emulator
    benches/relay.py [EVENTS [PAIRS]]

The emulator serves both hubs, and a collector here takes what is traced. Counting begins when a tenth is
through: what it costs to start is not what an event costs. Runs with and without tracing take turns, and
their order is turned around each time, for machines that warm up.
"""

import http.server
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", pathlib.Path(__file__).parent.parent / "target"))
DAEMON, EMULATOR = TARGET / "release/eventferry", TARGET / "debug/eventhubs-emulator"
CHUNK, PARTITIONS = 1000, 4
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def ask(url, data=None):
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=60).read().decode()


def answers(url):
    try:
        ask(url)
        return True
    except OSError:
        return False


def fill(control, events):
    body = json.dumps({"device": "d-1", "pad": "x" * 900})
    for first in range(0, events, CHUNK):
        numbers = range(first, min(first + CHUNK, events))
        seeds = [{"body": body, "message_id": f"m-{number}"} for number in numbers]
        partition = str(first // CHUNK % PARTITIONS)
        ask(f"{control}/append", {"hub": "near", "partition": partition, "events": seeds})


def microseconds(hubs, collector, events, traced):
    """Of CPU for each event."""
    with tempfile.TemporaryDirectory() as work:
        port, file = free_port(), pathlib.Path(work, "relay.yaml")
        hub = {"connection_string": "${HUBS}"}
        config = {
            "state": {"embedded": {"path": f"{work}/state"}},
            "admin": f"127.0.0.1:{port}",
            "unmatched": "drop",
            "sources": {"near": {"event_hubs": hub | {"hub": "near", "start": "earliest"}}},
            "sinks": {"far": {"event_hubs": hub | {"hub": "far"}}},
            "routes": [{"name": "relay", "from": "near", "to": {"all": ["far"]}}],
        }
        if traced:
            config["otlp"] = {"endpoint": collector, "protocol": "http", "metrics": "off", "logs": False, "traces": {"share": "1%"}}
        file.write_text(json.dumps(config))
        env = os.environ | {"HUBS": hubs, "RUST_LOG": "error"}
        daemon = subprocess.Popen([DAEMON, "run", "--config", file], env=env)
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            warm, used = through(daemon, url, events // 10)
            all, used_by_then = through(daemon, url, events)
            return (used_by_then - used) / (all - warm) * 1e6
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()


def through(daemon, url, events):
    """Waits until as many have been delivered. How many they are by then, and the seconds of CPU that it took."""
    while daemon.poll() is None:
        found = answers(url) and re.search(r'^eventferry_settled_total{outcome="delivered",source="near"} (\d+)$', ask(url), re.M)
        if found and int(found[1]) >= events:
            stat = pathlib.Path(f"/proc/{daemon.pid}/stat").read_text()
            user, system = stat.rsplit(")", 1)[1].split()[11:13]
            return int(found[1]), (int(user) + int(system)) / TICKS
        time.sleep(0.02)
    sys.exit("relay: the daemon has ended")


def main(events=300_000, pairs=24):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = f"http://127.0.0.1:{server.server_address[1]}"
    port, control = free_port(), free_port()
    entities = [{"Name": name, "PartitionCount": str(PARTITIONS), "ConsumerGroups": []} for name in ("near", "far")]
    seed = {"UserConfig": {"NamespaceConfig": [{"Type": "EventHub", "Name": "relay", "Entities": entities}]}}
    with tempfile.TemporaryDirectory() as work:
        pathlib.Path(work, "seed.json").write_text(json.dumps(seed))
        command = [EMULATOR, "--port", str(port), "--control-port", str(control), "--seed", f"{work}/seed.json"]
        emulator = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            control = f"http://127.0.0.1:{control}"
            while not answers(f"{control}/health"):
                time.sleep(0.05)
            fill(control, events)
            key = "SharedAccessKeyName=relay;SharedAccessKey=relay"
            hubs = f"Endpoint=sb://127.0.0.1:{port};{key};UseDevelopmentEmulator=true;"
            took = {False: [], True: []}
            microseconds(hubs, collector, events, False)
            for pair in range(pairs):
                for traced in (False, True) if pair % 2 == 0 else (True, False):
                    took[traced].append(microseconds(hubs, collector, events, traced))
            more = [traced / plain - 1 for plain, traced in zip(took[False], took[True])]
            middle, error = statistics.mean(more), statistics.stdev(more) / len(more) ** 0.5
            print(f"untraced {statistics.median(took[False]):.2f} us, 1 % traced {statistics.median(took[True]):.2f} us (medians)")
            print(f"{100 * middle:.1f} % more, with a standard error of {100 * error:.1f} (mean of {pairs} pairs)")
        finally:
            emulator.kill()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
