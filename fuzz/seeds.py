#!/usr/bin/env python3
"""Writes what each fuzz target begins with into corpus/: the tables of cases that the tests run, the
worked examples of docs/transforms.md, and an envelope of each kind."""

import base64
import hashlib
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLOUD_EVENT = {
    "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.placed",
    "subject": "orders/1", "time": "2026-11-21T10:00:00.5Z", "partitionkey": "c-1",
    "datacontenttype": "application/json", "tenant": "acme", "data": {"n": 1.5},
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
NOTIFICATION = {
    "Type": "Notification", "MessageId": "m-9", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
    "Subject": "hello", "Timestamp": "2026-11-21T10:00:00.000Z", "Message": "{\"n\": 1}",
    "MessageAttributes": {
        "tenant": {"Type": "String", "Value": "acme"},
        "raw": {"Type": "Binary.gif", "Value": "AAEC"},
        "eventferry": {"Type": "String", "Value": "{\"hops\":1,\"types\":{\"tenant\":\"string\"}}"},
    },
}
EVENT_BRIDGE = {
    "version": "0", "id": "e-1", "detail-type": "order.placed", "source": "shop",
    "account": "123456789012", "time": "2026-11-21T12:00:00Z", "region": "eu-west-1",
    "resources": ["arn:x"], "detail": {"amount": 7},
}
CARRIED = {
    "id": "i", "source": "/s", "type": "t", "subject": "s", "time": "2026-11-21T10:00:00Z",
    "content_type": "text/plain", "key": "k", "hops": 2, "body": "base64",
    "types": {"n": "int"}, "more": {"flag": ["bool", "true"]},
}


def patterns():
    """The patterns are in YAML or JSON; a list of events is an event of many."""
    table = (ROOT / "src/route/pattern/cases.yaml").read_text()
    pattern = ""
    for line in table.splitlines():
        name, _, text = line.strip().partition(": ")
        if name == "- pattern":
            pattern = text
        elif name in ("yes", "no"):
            yield f"{pattern}\0{text}"
        elif line.startswith("  - "):
            yield f"{line.removeprefix('  - ')}\0{{}}"
    aws = ROOT.parent / "shared/cases/event-patterns/eventbridge.json"
    for case in json.loads(aws.read_text()) if aws.exists() else []:
        yield f"{json.dumps(case['pattern'])}\0{json.dumps(case['event'])}"


def transforms():
    page = (ROOT / "docs/transforms.md").read_text()
    example = r"^### .*?\n```yaml\n(.*?)```.*?```json\n(.*?)```"
    for steps, event in re.findall(example, page, re.MULTILINE | re.DOTALL):
        yield f"{steps}\0{event}"


def envelopes():
    text = json.dumps(CLOUD_EVENT)
    yield from map(json.dumps, (CLOUD_EVENT, NOTIFICATION, EVENT_BRIDGE))
    yield json.dumps({**NOTIFICATION, "Message": json.dumps(NOTIFICATION)})
    yield json.dumps({**NOTIFICATION, "Message": text})
    yield json.dumps({**CLOUD_EVENT, "eventferry": json.dumps({**CARRIED, "body": None})})
    yield f"{text}\0{json.dumps({**CARRIED, 'body': 'empty'})}"
    yield f"{text}\0{json.dumps({**CARRIED, 'body': None, 'fit': 'claim_check'})}"


def cloudevents():
    binary = base64.b64encode(bytes(range(256))).decode()
    without = {name: value for name, value in CLOUD_EVENT.items() if name != "data"}
    others = (
        without,
        {**without, "data_base64": binary},
        {**without, "datacontenttype": "text/plain", "data": "plain"},
        {**without, "data": None, "type": "eventferry.untyped"},
    )
    yield from map(json.dumps, (CLOUD_EVENT, *others))
    yield json.dumps([CLOUD_EVENT, *others])


for target in (patterns, transforms, envelopes, cloudevents):
    folder = ROOT / "fuzz/corpus" / target.__name__
    folder.mkdir(parents=True, exist_ok=True)
    for seed in target():
        (folder / f"seed-{hashlib.sha256(seed.encode()).hexdigest()[:16]}").write_text(seed)
