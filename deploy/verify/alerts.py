"""The alarms, each made to fire, and the dashboard."""

import json
import re
import tempfile
from pathlib import Path

import yaml
from tools import ROOT, Missing, Skipped, anchors, promtool, run, text, unknown_metrics

CHART = ROOT / "deploy" / "chart"


def checks(_binary):
    rules = yaml.safe_load(text("deploy/chart/alerts.yaml"))["groups"][0]["rules"]
    yield "each alarm asks for metrics that there are", [
        f"{rule['alert']}: {name}" for rule in rules for name in unknown_metrics(rule["expr"])
    ]
    yield "each alarm leads to a page", list(_runbooks(rules))
    yield "each alarm is made to fire, and kept from it", list(_tested(rules))
    dashboard = json.loads(text("deploy/chart/dashboard.json"))
    yield "the dashboard is whole", list(_dashboard(dashboard))
    try:
        yield "Prometheus takes the alarms", _said("check", "rules", CHART / "alerts.yaml")
        yield "the alarms fire as they should", _said("test", "rules", CHART / "alerts.test.yaml")
        yield "Prometheus takes the queries of the dashboard", _queries(dashboard)
    except Missing as missing:
        yield "Prometheus takes the alarms", Skipped(missing)


def _said(*command) -> list:
    done = run(promtool(), *command, cwd=CHART)
    return done.stdout.splitlines() if done.returncode else []


def _runbooks(rules):
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        if anchor not in anchors(page):
            yield f"{rule['alert']}: {page} has no heading for #{anchor}"


def _tested(rules):
    wanted = {(rule["alert"], fires) for rule in rules for fires in (True, False)}
    for test in yaml.safe_load(text("deploy/chart/alerts.test.yaml"))["tests"]:
        for case in test["alert_rule_test"]:
            wanted.discard((case["alertname"], bool(case["exp_alerts"])))
    yield from (f"{alert}: no test in which it {'fires' if fires else 'is silent'}" for alert, fires in sorted(wanted))


def _targets(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel, target["expr"]


def _dashboard(dashboard):
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            yield f"{panel['title']}: wider than the page"
    for panel, expression in _targets(dashboard):
        yield from (f"{panel['title']}: no metric {name}" for name in unknown_metrics(expression))
    for variable in dashboard["templating"]["list"]:
        yield from (f"${variable['name']}: no metric {name}" for name in unknown_metrics(str(variable["query"])))


def _queries(dashboard) -> list:
    """As rules, because all versions of promtool parse those; with variables as Grafana fills them in."""
    filled = [
        re.sub(r"\$\w+", lambda it: "5m" if it[0] == "$__rate_interval" else ".+", expression)
        for _, expression in _targets(dashboard)
    ]
    rules = [{"record": f"panel:{at}", "expr": expression} for at, expression in enumerate(filled)]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "panels.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        return _said("check", "rules", file)
