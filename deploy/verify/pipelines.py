"""The pipelines for clones on GitHub and Azure DevOps, held against the schemas of both."""

import re
import sys
from pathlib import Path

import yaml
from tools import ROOT, run, text

PIPELINES = [
    (".github/workflows/test.yml", "vendor.github-workflows"),
    (".github/workflows/release.yml", "vendor.github-workflows"),
    ("deploy/azure-pipelines.yml", "vendor.azure-pipelines"),
]


def checks(_binary):
    checker = Path(sys.prefix) / "bin" / "check-jsonschema"
    for file, schema in PIPELINES:
        done = run(checker, "--regex-variant", "nonunicode", "--builtin-schema", schema, ROOT / file)
        yield f"{file} is a pipeline", done.stdout.splitlines() if done.returncode else []
        yield f"{file} has scripts that can be run", list(_scripts(file))
        yield f"{file} runs what there is", list(_targets(file))


def _steps(node):
    if isinstance(node, dict):
        script = node.get("run") or node.get("bash") or node.get("script")
        if isinstance(script, str):
            yield script
        for it in node.values():
            yield from _steps(it)
    elif isinstance(node, list):
        for it in node:
            yield from _steps(it)


def _scripts(file):
    for script in _steps(yaml.safe_load(text(file))):
        # What the service fills in before the shell sees it.
        done = run("bash", "-n", input=re.sub(r"\$\{\{.*?\}\}|\$\([\w.]+\)", "x", script))
        if done.returncode:
            yield done.stdout.strip()


def _targets(file):
    makefile = text("Makefile")
    for script in _steps(yaml.safe_load(text(file))):
        for target in re.findall(r"^make ([\w-]+)", script, re.MULTILINE):
            if f"\n{target}:" not in makefile:
                yield f"there is no `make {target}`"
        for path in re.findall(r"\b(?:deploy|\.ci)/[\w./-]+", script):
            if not (ROOT / path).exists():
                yield f"there is no {path}"
