"""The description of the admin API, as a daemon serves it, held against what OpenAPI 3.1 says of itself."""

import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator
from tools import free_port

PATIENCE_S = 30


def checks(binary):
    described = _described(binary)
    yield "the admin API describes itself", [] if isinstance(described, dict) else [described]
    if isinstance(described, dict):
        yield "the description is OpenAPI 3.1", [
            f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
            for error in OpenAPIV31SpecValidator(described).iter_errors()
        ]


def _described(binary):
    """The description, or what went wrong."""
    config = {
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "sources": {"near": {"memory": {"queue": "a"}}},
        "sinks": {"far": {"memory": {"queue": "b"}}},
        "routes": [{"name": "over", "from": "near", "to": {"all": ["far"]}}],
        "unmatched": "drop",
    }
    with tempfile.TemporaryDirectory() as place:
        config["state"] = {"embedded": {"path": f"{place}/state"}}
        file, log = Path(place) / "eventferry.yaml", Path(place) / "log"
        file.write_text(json.dumps(config))
        daemon = subprocess.Popen([binary, "run", "--config", file], stderr=log.open("w"))
        try:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end and daemon.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://{config['admin']['listen']}/openapi.json", timeout=5) as answer:
                        return json.load(answer)
                except OSError:
                    time.sleep(0.05)
            return f"it does not answer: {log.read_text()[-500:]}"
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE_S)
