"""Proves what is under deploy/ without a cluster: python3 deploy/verify BINARY

The chart is rendered with every file of deploy/chart/ci and held against the schemas of Kubernetes,
KEDA and the Prometheus operator; the daemon itself checks each configuration that comes out of it,
and runs in the file system of the image. Alarms are made to fire, the dashboard's queries parsed,
permissions compared with the pages of the connectors, pipelines with the schemas of their services,
the admin API's description with OpenAPI's own.

What it needs it installs under .local/deploy, from package registries alone; the second time it
takes seconds. What this machine cannot do is named as skipped.
"""

import os
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
import tools  # noqa: E402


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    binary = Path(sys.argv[1]).resolve()
    if not os.access(binary, os.X_OK):
        print(f"delivery: {binary} is no program; build it first: cargo build", file=sys.stderr)
        return 2
    tools.enter_environment()

    import alerts
    import api
    import chart
    import image
    import pages
    import permissions
    import pipelines

    results = {"passed": 0, "failed": 0, "skipped": 0}
    for part in (alerts, pages, api, chart, permissions, pipelines, image):
        begun = time.monotonic()
        for name, problems in part.checks(binary):
            outcome = "passed"
            if isinstance(problems, tools.Skipped):
                outcome, problems = "skipped", [str(problems)]
            elif problems:
                outcome = "failed"
            results[outcome] += 1
            if problems:
                print(f"{outcome}: {name}")
                print(*(f"    {problem}" for problem in problems), sep="\n")
        print(f"delivery: {part.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in results.items()))
    return 1 if results["failed"] else 0


sys.exit(main())
