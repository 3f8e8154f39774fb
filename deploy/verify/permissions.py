"""What deploy/iam grants is what the pages of the connectors ask for: no more and no less."""

import json
import re

from tools import ROOT, text

AWS = ROOT / "deploy" / "iam" / "aws"
# Where each action has to stand, by the page that says so: policy, page, row of its table.
ASKED = [
    ("sqs-source", "docs/connectors/sqs.md", "Source"),
    ("sqs-sink", "docs/connectors/sqs.md", "Sink"),
    ("sns-sink", "docs/connectors/sns.md", "Sink"),
    ("claim-check-writer", "docs/sizes.md", "`s3`"),
]
BOTH = [("sns-source", "docs/connectors/sns.md", ["Source"]), ("sns-source-create", "docs/connectors/sns.md", ["Source", "Source with `create: true`"])]
ROLES = {
    "Azure Event Hubs Data Receiver": "docs/connectors/event_hubs.md",
    "Azure Event Hubs Data Sender": "docs/connectors/event_hubs.md",
    "Storage Queue Data Contributor": "docs/connectors/storage_queue.md",
    "Storage Queue Data Message Sender": "docs/connectors/storage_queue.md",
    "Storage Blob Data Contributor": "docs/connectors/storage_queue.md",
    "Storage Blob Data Reader": "docs/sizes.md",
    "Storage Queue Data Reader": "docs/install.md",
}


def checks(_binary):
    files = sorted(AWS.glob("*.json"))
    yield "each policy is one", [problem for file in files for problem in _policy(file)]
    for policy, page, row in ASKED:
        yield f"{policy}.json grants what {page} asks for", list(_compared(policy, _asked(page, row)))
    source = _asked("docs/connectors/sqs.md", "Source")
    for policy, page, rows in BOTH:
        asked = source.union(*(_asked(page, row) for row in rows))
        yield f"{policy}.json grants what {page} asks for", list(_compared(policy, asked))
    dead_letters = _asked("docs/dead-letters.md", "SQS") | {"sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:SendMessage"}
    yield "dead-letters.json grants what docs/dead-letters.md asks for", list(_compared("dead-letters", dead_letters))
    listed = json.loads(text("deploy/iam/azure/roles.json"))
    yield "the roles of Azure are those that the pages name", list(_roles(listed))


def _policy(file):
    policy = json.loads(file.read_text())
    if policy.get("Version") != "2012-10-17":
        yield f"{file.name}: no version"
    for statement in policy["Statement"]:
        if set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"} or statement["Effect"] != "Allow":
            yield f"{file.name}: {statement.get('Sid')} is no statement that allows"
        if any("*" in action for action in statement["Action"]):
            yield f"{file.name}: {statement['Sid']} grants more than it names"
        # AWS has no resource for these alone.
        if statement["Resource"] == "*" and set(statement["Action"]) - {"sns:ListTopics"}:
            yield f"{file.name}: {statement['Sid']} is for everything"


def _granted(policy: str) -> set:
    statements = json.loads((AWS / f"{policy}.json").read_text())["Statement"]
    return {action for statement in statements for action in statement["Action"] if not action.startswith("kms:")}


def _asked(page: str, row: str) -> set:
    """The actions in the row of a page's table."""
    rows = [line for line in text(page).splitlines() if line.startswith(f"| {row} |")]
    return {action for line in rows for action in re.findall(r"`((?:sqs|sns|s3|sts):\w+)`", line)}


def _compared(policy, asked):
    granted = _granted(policy)
    if not asked:
        yield "the page says nothing that this check can read"
    yield from (f"{action} is not granted" for action in sorted(asked - granted))
    yield from (f"{action} is granted, and nobody asks for it" for action in sorted(granted - asked))


def _roles(listed):
    for entry in listed:
        page = ROLES.get(entry["role"])
        if page is None:
            yield f"{entry['role']} is named on no page"
        elif entry["role"] not in text(page):
            yield f"{page} does not name {entry['role']}"
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", entry["id"]):
            yield f"{entry['role']}: {entry['id']} is no id of a role"
    yield from (f"{role} is missing" for role in sorted(ROLES.keys() - {entry["role"] for entry in listed}))
