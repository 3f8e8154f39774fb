#!/usr/bin/env python3
"""What an event costs a daemon, from hub to hub: in CPU time, and in instructions with traces and without.

    cargo build --release --locked --package eventferry
    cargo build --locked --workspace --bin eventhubs-emulator
    benches/relay.py [EVENTS [RUNS]]

The emulator serves both hubs, and a collector here takes what is traced. The time is that of one machine
and of what else it does; what a few spans in a hundred events add is less than that wavers. So these are
counted in instructions, which nothing else on the machine changes (by Valgrind: apt-get install valgrind).
Both are of what comes on top of the first events: what it costs to start is not what an event costs.
"""

import http.server
import json
import os
import pathlib
import re
import shutil
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
SHARES = (None, "1%", "10%")
# Events of a short and of a long run whose instructions are counted.
COUNTED = (8_000, 40_000)
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


class Daemon:
    """One that carries all that there is from hub to hub."""

    def __init__(self, hubs, collector=None, share=None, under=()):
        self.work = tempfile.TemporaryDirectory()
        port, file = free_port(), pathlib.Path(self.work.name, "relay.yaml")
        hub = {"connection_string": "${HUBS}"}
        config = {
            "state": {"embedded": {"path": f"{self.work.name}/state"}},
            "admin": f"127.0.0.1:{port}",
            "unmatched": "drop",
            "sources": {"near": {"event_hubs": hub | {"hub": "near", "start": "earliest"}}},
            "sinks": {"far": {"event_hubs": hub | {"hub": "far"}}},
            "routes": [{"name": "relay", "from": "near", "to": {"all": ["far"]}}],
        }
        if share:
            config["otlp"] = {"endpoint": collector, "protocol": "http", "metrics": "off", "logs": False, "traces": {"share": share}}
        file.write_text(json.dumps(config))
        env = os.environ | {"HUBS": hubs, "RUST_LOG": "error"}
        self.metrics = f"http://127.0.0.1:{port}/metrics"
        self.process = subprocess.Popen([*under, DAEMON, "run", "--config", file], env=env, stderr=subprocess.PIPE, text=True)

    def through(self, events):
        """Waits until as many have been delivered, and says how many they are by then."""
        while self.process.poll() is None:
            found = answers(self.metrics) and re.search(r'^eventferry_settled_total{outcome="delivered",source="near"} (\d+)$', ask(self.metrics), re.M)
            if found and int(found[1]) >= events:
                return int(found[1])
            time.sleep(0.02)
        sys.exit(f"relay: the daemon has ended: {self.process.stderr.read()[-500:]}")

    def cpu(self):
        """Seconds of CPU that it has taken."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def end(self, by=signal.SIGTERM):
        """What it has said."""
        self.process.send_signal(by)
        said = self.process.communicate()[1]
        self.work.cleanup()
        return said


def microseconds(hubs, events):
    """Of CPU for each event."""
    daemon = Daemon(hubs)
    warm, used = daemon.through(events // 10), daemon.cpu()
    all, used_by_then = daemon.through(events), daemon.cpu()
    daemon.end(signal.SIGKILL)
    return (used_by_then - used) / (all - warm) * 1e6


def instructions(hubs, fill_to, collector, share):
    """For each event that a long run has more than a short one."""
    counted = []
    for events in COUNTED:
        fill_to(events)
        with tempfile.TemporaryDirectory() as out:
            daemon = Daemon(hubs, collector, share, ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}/calls"])
            daemon.through(events)
            counted.append(int(re.search(r"Collected : (\d+)", daemon.end())[1]))
    return (counted[1] - counted[0]) / (COUNTED[1] - COUNTED[0])


def main(events=300_000, runs=9):
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
            key = "SharedAccessKeyName=relay;SharedAccessKey=relay"
            hubs = f"Endpoint=sb://127.0.0.1:{port};{key};UseDevelopmentEmulator=true;"

            def fill_to(wanted):
                ask(f"{control}/hubs/near/recreate", {})
                fill(control, wanted)

            if shutil.which("valgrind"):
                plain, *traced = (instructions(hubs, fill_to, collector, share) for share in SHARES)
                print(f"{plain:,.0f} instructions an event")
                for share, count in zip(SHARES[1:], traced):
                    print(f"{share} traced: {100 * (count / plain - 1):.1f} % more")
            else:
                print("no instructions are counted: there is no valgrind")
            fill_to(events)
            took = [microseconds(hubs, events) for _ in range(1 + runs)][1:]
            print(f"{statistics.median(took):.1f} us of CPU an event (median of {runs} runs, {min(took):.1f} to {max(took):.1f})")
        finally:
            emulator.kill()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
