"""The image's file system, laid out by the script that the Dockerfile runs, and the daemon in it: as
nobody, with nothing else there and nothing to write to but its volume, as the chart runs it.

That a stop under load ends within its grace and loses nothing is shown by tests/it/daemon.rs.
"""

import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from tools import ROOT, Skipped, free_port, run, text

PATIENCE_S = 60
# No service of the world has this name; the image finds it in its hosts, as it would in Kubernetes.
NAME = "queue.example"


def checks(binary):
    dockerfile = text("deploy/image/Dockerfile")
    last = dockerfile.rpartition("\nFROM ")[2]
    yield "the image is made of nothing but what root.sh lays out", [
        line for line in ("scratch\n", "COPY --from=build /image/ /\n", "USER 65532:65532\n") if line not in last
    ] + re.findall(r"^(?:ADD|RUN) .*", last, re.MULTILINE) + [
        line for line in re.findall(r"^COPY .*", last, re.MULTILINE) if "--from=build /image/ /" not in line
    ]
    if not _may_change_root():
        yield "the daemon runs in the image", Skipped("needs root, or sudo without a password, and unshare")
        return
    # What the daemon has written is not ours to remove where we are not root.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        place = Path(place)
        certificates = _authority(place)
        root = place / "root"
        laid_out = run(ROOT / "deploy/image/root.sh", binary, root, env=os.environ | {"CERTIFICATES": certificates["bundle"]})
        yield "the image can be laid out", laid_out.stdout.splitlines() if laid_out.returncode else []
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
        yield "the image holds the daemon, its libraries and nothing else", list(_strangers(root))
        yield "the daemon runs in it, keeps its state, and ends when told to", list(_lives(place, root))
        if certificates["key"]:
            yield "the daemon finds names there, and trusts the authorities of the image", list(_connects(place, root, certificates))
        else:
            yield "the daemon trusts the authorities of the image", Skipped("there is no openssl here")


def _as_root() -> list:
    return [] if os.getuid() == 0 else ["sudo", "--non-interactive", "--preserve-env"]


def _may_change_root() -> bool:
    tried = shutil.which("unshare") and run(*_as_root(), "unshare", "--mount", "true")
    return bool(tried) and tried.returncode == 0


def _strangers(root):
    found = {str(file.relative_to(root)) for file in root.rglob("*") if not file.is_dir()}
    wanted = {"usr/bin/eventferry", "etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/group", "etc/hosts", "etc/nsswitch.conf"}
    yield from (f"{file} is missing" for file in sorted(wanted - found))
    libraries = "c|m|gcc_s|dl|rt|pthread"
    # The image is built without the feature eventhubs-sdk; the daemon of the tests has it, and with it OpenSSL.
    if b"azure_messaging_eventhubs" in (root / "usr/bin/eventferry").read_bytes():
        libraries += "|ssl|crypto"
    for file in sorted(found - wanted):
        if not re.search(rf"/(ld-linux[-a-z0-9]*|lib({libraries}))\.so\.\d+$", file):
            yield f"{file} has no business there"


class Daemon:
    """The daemon in the image, its root read-only, its volume and its configuration mounted."""

    def __init__(self, place: Path, root: Path, config: dict, environment: dict):
        self.admin = free_port()
        (place / "config").mkdir(exist_ok=True)
        (place / "config/eventferry.yaml").write_text(json.dumps(config))
        volume = place / "volume"
        volume.mkdir(exist_ok=True)
        as_root = _as_root()
        subprocess.run([*as_root, "chown", "65532:65532", volume], check=True)
        mounts = f"""set -eu
            mount --bind "{root}" "{root}"
            mount --bind "{place}/config" "{root}/etc/eventferry"
            mount -o remount,bind,ro "{root}/etc/eventferry"
            mount --bind "{volume}" "{root}/var/lib/eventferry"
            mount -o remount,bind,ro "{root}"
            exec chroot --userspec=65532:65532 "{root}" /usr/bin/eventferry run"""
        environment = environment | {
            "PATH": os.environ["PATH"],
            "EVENTFERRY_CONFIG": "/etc/eventferry/eventferry.yaml",
            "EVENTFERRY__ADMIN__LISTEN": f"127.0.0.1:{self.admin}",
            "EVENTFERRY__DRAIN__GRACE": "5s",
            "EVENTFERRY__STATE__EMBEDDED__PATH": "/var/lib/eventferry/state",
        }
        self.log = place / "log"
        with self.log.open("w") as log:
            command = [*as_root, "unshare", "--mount", "--propagation", "private", "sh", "-c", mounts]
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)

    def get(self, page: str):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{page}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def wait(self, what, until):
        """Nothing, or what was not seen in time together with the log."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.process.poll() is None:
            if until():
                return []
            time.sleep(0.05)
        return [f"not seen: {what}", *self.log.read_text().splitlines()[-10:]]

    def stop(self):
        self.process.terminate()
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return ["does not end"]
        return [f"ends with {code}", *self.log.read_text().splitlines()[-10:]] if code else []


def _lives(place, root):
    memory = {"memory": {"queue": "a"}}
    config = {
        "sources": {"near": memory},
        "sinks": {"far": {"memory": {"queue": "b"}}},
        "routes": [{"name": "over", "from": "near", "to": {"all": ["far"]}}],
        "unmatched": "drop",
    }
    daemon = Daemon(place, root, config, {})
    yield from daemon.wait("/readyz answers 200", lambda: daemon.get("/readyz") == 200)
    if daemon.process.poll() is None:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        if not _as_root() and "Uid:\t65532\t65532\t65532\t65532" not in status:
            yield "is somebody else"
        if daemon.get("/livez") != 200:
            yield "/livez does not answer"
    yield from daemon.stop()
    if not list((place / "volume/state").glob("*")):
        yield "its state is not in the volume"


def _connects(place, root, certificates):
    """An AWS service whose certificate only the image's bundle vouches for."""
    called = threading.Event()

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            called.set()
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["certificate"], certificates["key"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "aws": {"region": "eu-west-1", "endpoint": f"https://{NAME}:{server.server_port}"},
        "sources": {"near": {"sqs": {"queue": "near"}}},
        "sinks": {"far": {"memory": {"queue": "b"}}},
        "routes": [{"name": "over", "from": "near", "to": {"all": ["far"]}}],
        "unmatched": "drop",
    }
    daemon = Daemon(place, root, config, {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up"})
    yield from daemon.wait("a request to the service", called.is_set)
    yield from daemon.stop()
    server.shutdown()


def _authority(place) -> dict:
    """A certificate authority for one name, or the machine's own bundle where openssl is missing."""
    if not shutil.which("openssl"):
        return {"bundle": "/etc/ssl/certs/ca-certificates.crt", "key": None}
    ca, ca_key, key, request, certificate = (place / name for name in ("ca", "ca.key", "key", "request", "certificate"))
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=authority", "-days", "2"],
        ["req", *new_key, "-keyout", key, "-out", request, "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"],
        ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-copy_extensions", "copy", "-out", certificate, "-days", "2"],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return {"bundle": str(ca), "key": key, "certificate": certificate}
