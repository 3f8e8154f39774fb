"""Makes the queues, topics and subscriptions of a seed file: seed.py ENDPOINT SEED.

Everything in it may be there already. A name that ends in `.fifo` makes a FIFO queue or topic.
"""

import json
import sys

import boto3

endpoint, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    seed = json.load(file)


def client(service):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


sqs, sns = client("sqs"), client("sns")


def fifo(name, attribute):
    return {attribute: "true"} if name.endswith(".fifo") else {}


queues = {}
for name in seed.get("queues", []):
    url = sqs.create_queue(QueueName=name, Attributes=fifo(name, "FifoQueue"))["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    queues[name] = answer["Attributes"]["QueueArn"]
topics = {
    name: sns.create_topic(Name=name, Attributes=fifo(name, "FifoTopic"))["TopicArn"]
    for name in seed.get("topics", [])
}
for subscription in seed.get("subscriptions", []):
    sns.subscribe(
        TopicArn=topics[subscription["topic"]],
        Protocol="sqs",
        Endpoint=queues[subscription["queue"]],
        Attributes={"RawMessageDelivery": str(subscription.get("raw", True)).lower()},
    )
print(f"localstack: seeded {len(queues)} queues and {len(topics)} topics")
