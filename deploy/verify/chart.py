"""The chart, rendered with every file of deploy/chart/ci."""

import functools
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import importlib_resources
import jsonschema
import yaml
from referencing import Registry, Resource
from tools import KEDA, PROMETHEUS_OPERATOR, ROOT, Missing, Skipped, helm, module, promtool, run

CHART = ROOT / "deploy" / "chart"
# The oldest that the chart takes, and the newest whose schemas there are.
KUBERNETES = ["1.30.0", "1.37.0"]
STATEFUL = {"embedded", "existing", "mesh"}
TLS = {"admin", "closed", "existing-tls"}
REFUSED = [
    ("embedded", ["replicas=2"], "replicas: a state in a file has one replica"),
    ("embedded", ["keda.enabled=true"], "keda: a state in a file has one replica"),
    ("embedded", ["state=shared"], "leave out the former"),
    ("queues", ["config.admin.listen=0.0.0.0:80"], "config.admin.listen: the chart sets it"),
    ("queues", ["config.admin=off"], "config.admin: the chart has it listen"),
    ("queues", ["config.drain.grace=60s"], "config.drain: use drainGraceSeconds"),
    ("queues", ["existingConfigMap=carrier"], "either config or existingConfigMap"),
    ("queues", ["config=null"], "what shall the daemon do"),
    ("queues", ["config=a: b: c"], "config: no YAML"),
    ("queues", ["replica=2"], "replica"),
    ("queues", ["files.eventferry\\.yaml=x"], "eventferry.yaml"),
    ("existing", ["state=auto"], "say embedded, shared or none"),
    ("existing", ["admin.scheme=https"], "/admin/scheme"),
    ("admin", ["admin.scheme=HTTP"], "config has admin.tls"),
    ("existing-tls", ["admin.scheme=auto", "monitoring.serviceMonitor.tlsConfig.serverName=x"], "the admin listener speaks HTTP"),
    ("closed", ["monitoring.serviceMonitor.authorization=null"], "config.admin.open closes metrics"),
    ("closed", ["monitoring.serviceMonitor.authorization.credentials.secret=x"], "additional properties 'secret'"),
    ("closed", ["monitoring.serviceMonitor.authorization.credentials.key=null"], "/authorization/credentials/key"),
    ("closed", ["monitoring.serviceMonitor.authorization.credentials=null"], "/authorization/credentials"),
    ("closed", ["monitoring.serviceMonitor.tlsConfig.server=x"], "additional properties 'server'"),
    ("keda-blob", ["serviceAccount.azureClientId="], "serviceAccount.azureClientId"),
    ("keda-blob", ["config.azure=null"], "no storage account"),
    ("keda-blob", ["config.sources.clicks.storage_queue.queue=${QUEUE}"], "config.sources.clicks refers to the environment"),
    ("keda-redis", ["keda.prometheus="], "where is Prometheus?"),
    ("keda-redis", ["keda.minReplicas=0"], "so leave 1"),
    ("keda-sqs", ["config.aws=null"], "config.sources.orders has no aws.region"),
    ("keda-by-hand", ["keda.triggers=null"], "the chart cannot look into existingConfigMap"),
]
SCALERS = {
    "aws-sqs-queue": ["aws_sqs_queue_scaler.go"],
    "azure-queue": ["azure_queue_scaler.go"],
    "azure-eventhub": ["azure_eventhub_scaler.go", "azure/azure_eventhub.go"],
    "prometheus": ["prometheus_scaler.go"],
}


def checks(binary):
    try:
        helm()
        _custom()
    except Missing as missing:
        yield "the chart renders", Skipped(missing)
        return
    for file in sorted((CHART / "ci").glob("*.yaml")):
        case = file.stem
        yield f"{case}: helm lint", _said(helm(), "lint", "--strict", CHART, "--values", file, "--kube-version", KUBERNETES[0])
        for version in KUBERNETES:
            manifests, problems = _rendered(file, version)
            yield f"{case}: renders for {version}", problems
            yield f"{case}: is what Kubernetes {version} and its operators know", [
                problem for manifest in manifests for problem in _invalid(manifest, version)
            ]
        yield f"{case}: holds to what the chart promises", list(_promises(case, manifests))
        if any(it["kind"] == "ConfigMap" for it in manifests):
            yield f"{case}: the daemon can use its configuration", _unusable(binary, manifests)
        for rule in (it for it in manifests if it["kind"] == "PrometheusRule"):
            try:
                yield f"{case}: the alarms are those of the file, and one is about this release alone", _alarms(rule["spec"], manifests)
            except Missing as missing:
                yield f"{case}: the alarms", Skipped(missing)
    for file in sorted((ROOT / "config").glob("*.yaml")):
        settings = yaml.load(file.read_text(), yaml.CSafeLoader)
        if "admin" not in settings and "drain" not in settings:
            yield f"{file.name} as it is: the chart takes it", _said(helm(), "template", "x", CHART, "--set-file", f"config={file}", "--kube-version", KUBERNETES[0])
    for case, sets, told in REFUSED:
        values = [part for it in sets for part in ("--set", it)]
        done = run(helm(), "template", "x", CHART, "--values", CHART / "ci" / f"{case}.yaml", "--kube-version", KUBERNETES[0], *values)
        refused = done.returncode and told in done.stdout
        yield f"{case} with {sets[0]} is refused", [] if refused else [f"expected: {told}", *done.stdout.splitlines()[:5]]


def _said(*command, **options) -> list:
    done = run(*command, **options)
    return done.stdout.splitlines() if done.returncode else []


def _rendered(file, version):
    done = run(helm(), "template", "carrier", CHART, "--values", file, "--namespace", "prod", "--kube-version", version)
    if done.returncode:
        return [], done.stdout.splitlines()
    return [it for it in yaml.load_all(done.stdout, yaml.CSafeLoader) if it], []


@functools.cache
def _custom() -> dict:
    """The schemas of the operators' own kinds, closed: a field that they do not name is a mistake."""
    found = {}
    for place in (
        module(KEDA) / "config/crd/bases",
        module(PROMETHEUS_OPERATOR) / "example/prometheus-operator-crd",
    ):
        for name in ("scaledobjects", "triggerauthentications", "servicemonitors", "prometheusrules"):
            for file in place.glob(f"*_{name}.yaml"):
                spec = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]
                for version in spec["versions"]:
                    schema = _closed(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft202012Validator(schema)
    return found


def _closed(schema):
    if isinstance(schema, list):
        return [_closed(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _closed(it) for name, it in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@functools.cache
def _kubernetes(version: str, api: str, kind: str):
    folder = importlib_resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    file = folder / f"{kind.lower()}-{group}.json"
    if not file.is_file():
        return None
    return jsonschema.Draft202012Validator(json.loads(file.read_text()), registry=_definitions(folder))


@functools.cache
def _definitions(folder) -> Registry:
    return Resource.from_contents(json.loads((folder / "_definitions.json").read_text())) @ Registry()


def _invalid(manifest, version):
    api, kind = manifest["apiVersion"], manifest["kind"]
    validator = _custom().get((api, kind)) or _kubernetes(version, api, kind)
    if validator is None:
        yield f"{api} {kind}: unknown"
        return
    for error in validator.iter_errors(manifest):
        yield f"{kind} at {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def _promises(case, manifests):
    of = {kind: [it for it in manifests if it["kind"] == kind] for kind in {it["kind"] for it in manifests}}
    wanted = "StatefulSet" if case in STATEFUL else "Deployment"
    if wanted not in of:
        yield f"should be a {wanted}"
        return
    (workload,) = of[wanted]
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {it["name"]: it.get("value") for it in container["env"]}
    grace = int(environment["EVENTFERRY__DRAIN__GRACE"].removesuffix("s"))
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if pod["terminationGracePeriodSeconds"] < grace + sleep + 5:
        yield "is killed before it has drained"
    inside = container["securityContext"]
    if not (pod["securityContext"]["runAsNonRoot"] and inside["readOnlyRootFilesystem"]):
        yield "runs as root, or can write to its image"
    if inside["capabilities"] != {"drop": ["ALL"]} or inside["allowPrivilegeEscalation"]:
        yield "may become more than it is"
    probes = [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
    if probes != ["/livez", "/readyz"]:
        yield f"is asked for {probes}"
    schemes = {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    endpoints = [it for monitor in of.get("ServiceMonitor", []) for it in monitor["spec"]["endpoints"]]
    schemes |= {it.get("scheme", "http").upper() for it in endpoints}
    if schemes != {"HTTPS" if case in TLS else "HTTP"}:
        yield f"is asked over {schemes}"
    if case == "closed":
        (endpoint,) = endpoints
        if endpoint.get("authorization") != {"credentials": {"name": "eventferry-metrics", "key": "token"}}:
            yield "Prometheus has no token"
        if "serverName" not in endpoint["tlsConfig"] or endpoint["tlsConfig"].get("insecureSkipVerify"):
            yield "Prometheus gives its token to anybody"
    if [mount for mount in container["volumeMounts"] if mount["name"] == "config" and "subPath" in mount]:
        yield "a file that is mounted with subPath never changes"
    selector = workload["spec"]["selector"]["matchLabels"].items()
    if not selector <= workload["spec"]["template"]["metadata"]["labels"].items():
        yield "does not select its own pods"
    replicas = workload["spec"].get("replicas", 2)
    if (replicas > 1) != ("PodDisruptionBudget" in of):
        yield "a disruption budget is for more than one replica"
    for scaled in of.get("ScaledObject", []):
        yield from _triggers(scaled, manifests)
        if scaled["spec"]["scaleTargetRef"]["name"] != workload["metadata"]["name"]:
            yield "scales something else"
    for rule in of.get("PrometheusRule", []):
        for alarm in rule["spec"]["groups"][0]["rules"]:
            if not alarm["annotations"]["runbook_url"].startswith("https://wiki.example.com/eventferry/docs/troubleshoot.md#"):
                yield f"{alarm['alert']}: leads to {alarm['annotations']['runbook_url']}"


def _alarms(spec, manifests) -> list:
    """Those of the file. That nobody is there is about this release where our own monitor labels it,
    and is nothing to be told where that is usual."""
    of_file, rendered = (
        {rule["alert"]: {name: content for name, content in rule.items() if name != "annotations"} for rule in groups[0]["rules"]}
        for groups in (yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"], spec["groups"])
    )
    changed = {name for name in of_file.keys() | rendered.keys() if of_file.get(name) != rendered.get(name)}
    is_ours = any(it["kind"] == "ServiceMonitor" for it in manifests)
    is_usual = any(it["kind"] == "ScaledObject" and it["spec"]["minReplicaCount"] == 0 for it in manifests)
    problems = [f"{name} is not what the file has" for name in sorted(changed - {"EventferryAbsent"})]
    if ("EventferryAbsent" in rendered) == is_usual or ("EventferryAbsent" in changed) != (is_ours or is_usual):
        problems.append("EventferryAbsent is not about what can be known")
    if not is_ours:
        return problems
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "rendered.yaml").write_text(yaml.safe_dump(spec))
        shutil.copy(CHART / "absent.test.yaml", place)
        return problems + _said(promtool(), "test", "rules", "absent.test.yaml", cwd=place)


def _triggers(scaled, manifests):
    """Only settings that the scaler reads, and credentials that are there."""
    here = {it["metadata"]["name"] for it in manifests if it["kind"] == "TriggerAuthentication"}
    for trigger in scaled["spec"]["triggers"]:
        files = (module(KEDA) / "pkg" / "scalers" / file for file in SCALERS[trigger["type"]])
        known = set(re.findall(r'keda:"name=(\w+)', " ".join(file.read_text() for file in files)))
        yield from (f"{trigger['type']} has no {name}" for name in sorted(set(trigger["metadata"]) - known))
        reference = trigger.get("authenticationRef", {}).get("name")
        if reference and reference != "ours" and reference not in here:
            yield f"there is no TriggerAuthentication {reference}"
        if trigger["type"] == "azure-eventhub":
            names = [trigger["metadata"][name] for name in ("eventHubNamespace", "eventHubName")]
            if [name.lower() for name in names] != names or "." in names[0]:
                yield f"KEDA would look for checkpoints under {names}"


def _unusable(binary, manifests) -> list:
    """As the pod has it: with its files and its variables, secrets made up."""
    (files,) = [it["data"] for it in manifests if it["kind"] == "ConfigMap" and "eventferry.yaml" in it["data"]]
    (workload,) = [it for it in manifests if it["kind"] in ("Deployment", "StatefulSet")]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    environment = {it["name"]: it.get("value", "made-up") for it in container["env"]}
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_text(content)
        environment = {"PATH": os.environ["PATH"]} | environment
        return _said(binary, "check", "--config", Path(place) / "eventferry.yaml", env=environment)
