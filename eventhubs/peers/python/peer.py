"""The official Python SDK as a foreign peer: one JSON request a line in, one JSON answer a line out.

The protocol is described in ../README.md. Started with the emulator's host:port as its argument.
"""

import base64
import datetime
import json
import queue
import sys
import threading

import azure.eventhub._pyamqp._transport as transport
from azure.eventhub import (
    EventData,
    EventHubConsumerClient,
    EventHubProducerClient,
)
from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore

# Where the loopback device's segments are larger than 32767 bytes, the SDK cannot copy the
# socket's options.
transport._AbstractTransport._set_socket_options = lambda *_: None


def condition_of(error):
    for candidate in (error, getattr(error, "error", None), getattr(error, "__cause__", None)):
        condition = getattr(candidate, "condition", None)
        if condition is not None:
            return condition.decode() if isinstance(condition, bytes) else str(getattr(condition, "value", condition))
    return type(error).__name__


def failure(error):
    return {"error": {"condition": condition_of(error), "message": str(error)}}


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def event_out(event):
    return {
        "sequence_number": event.sequence_number,
        "offset": event.offset,
        "enqueued_ms": round(event.enqueued_time.timestamp() * 1000),
        "partition_key": text(event.partition_key),
        "message_id": text(event.message_id),
        "body": base64.b64encode(b"".join(event.body)).decode(),
        "properties": {text(k): text(v) for k, v in (event.properties or {}).items()},
    }


def event_in(event):
    data = EventData(base64.b64decode(event["body"]))
    data.message_id = event["message_id"]
    data.properties = event["properties"]
    return data


class Subscription:
    """A receiver that runs until it is closed; events and errors wait in a queue."""

    def __init__(self, client, request):
        self.client = client
        self.arrived = queue.Queue()
        options = position(request["from"])
        if request.get("epoch") is not None:
            options["owner_level"] = request["epoch"]
        self.thread = threading.Thread(
            target=client.receive,
            kwargs=dict(
                on_event=lambda _, event: self.arrived.put(event_out(event)) if event else None,
                on_error=lambda _, error: self.arrived.put(failure(error)),
                partition_id=request["partition"],
                **options,
            ),
            daemon=True,
        )
        self.thread.start()

    def read(self, count, seconds):
        events = []
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
        while len(events) < count:
            left = (deadline - datetime.datetime.now()).total_seconds()
            try:
                item = self.arrived.get(timeout=max(left, 0.001))
            except queue.Empty:
                break
            if "error" in item:
                return {**item, "events": events}
            events.append(item)
        return {"events": events}

    def close(self):
        self.client.close()
        self.thread.join(5)


class Processor:
    """Reads its share of a hub, with a store of checkpoints in blobs."""

    def __init__(self, client):
        self.client = client
        self.namespace = client._address.hostname
        self.arrived = queue.Queue()
        self.last = {}
        # One thread takes turns among the partitions, and waits at each that is idle: an event a turn
        # would be a few a second.
        self.thread = threading.Thread(
            target=client.receive_batch,
            kwargs=dict(on_event_batch=self.take, on_error=self.fail, starting_position="-1"),
            daemon=True,
        )
        self.thread.start()

    def take(self, context, events):
        for event in events:
            self.last[context.partition_id] = (context, event)
            self.arrived.put({**event_out(event), "partition": context.partition_id})

    def fail(self, _, error):
        # Another reader may have the partition for a while; the SDK tries again.
        print(f"processor: {error}", file=sys.stderr, flush=True)

    read = Subscription.read

    def checkpoint(self):
        # The thread that receives goes on meanwhile.
        for context, event in list(self.last.values()):
            context.update_checkpoint(event)

    def close(self):
        self.client.close()
        self.thread.join(20)


def blob_store(request):
    storage = request["storage"]
    return BlobCheckpointStore.from_connection_string(storage["connection_string"], storage["container"])


def position(start):
    if "sequence_number" in start:
        value = start["sequence_number"]
    elif "enqueued_ms" in start:
        value = datetime.datetime.fromtimestamp(start["enqueued_ms"] / 1000, datetime.timezone.utc)
    else:
        value = start["offset"]
    return {"starting_position": value, "starting_position_inclusive": start.get("inclusive", False)}


class Peer:
    def __init__(self, address):
        self.connection_string = (
            f"Endpoint=sb://{address};SharedAccessKeyName=x;SharedAccessKey=y;UseDevelopmentEmulator=true"
        )
        self.producers = {}
        self.subscriptions = {}

    def producer(self, hub):
        if hub not in self.producers:
            self.producers[hub] = EventHubProducerClient.from_connection_string(
                self.connection_string, eventhub_name=hub, retry_total=3, retry_backoff_factor=0.1
            )
        return self.producers[hub]

    def properties(self, request):
        producer = self.producer(request["hub"])
        hub = producer.get_eventhub_properties()
        partitions = [producer.get_partition_properties(p) for p in hub["partition_ids"]]
        return {
            "name": hub["eventhub_name"],
            "partition_ids": hub["partition_ids"],
            "partitions": [
                {
                    "id": p["id"],
                    "begin": p["beginning_sequence_number"],
                    "last": p["last_enqueued_sequence_number"],
                    "last_offset": p["last_enqueued_offset"],
                    "is_empty": p["is_empty"],
                }
                for p in partitions
            ],
        }

    def send(self, request):
        producer = self.producer(request["hub"])
        route = {}
        if request.get("partition") is not None:
            route["partition_id"] = request["partition"]
        if request.get("partition_key") is not None:
            route["partition_key"] = request["partition_key"]
        events = [event_in(event) for event in request["events"]]
        if request.get("single"):
            for event in events:
                producer.send_event(event, **route)
        else:
            batch = producer.create_batch(**route)
            for event in events:
                batch.add(event)
            producer.send_batch(batch)
        return {}

    def open(self, request):
        client = EventHubConsumerClient.from_connection_string(
            self.connection_string,
            consumer_group=request["group"],
            eventhub_name=request["hub"],
            retry_total=request.get("retries", 3),
            retry_backoff_factor=0.1,
        )
        self.subscriptions[request["name"]] = Subscription(client, request)
        return {}

    def process(self, request):
        client = EventHubConsumerClient.from_connection_string(
            self.connection_string,
            consumer_group=request["group"],
            eventhub_name=request["hub"],
            checkpoint_store=blob_store(request),
            load_balancing_interval=1,
            load_balancing_strategy="greedy",
            partition_ownership_expiration_interval=request["expiry_s"],
            retry_total=3,
            retry_backoff_factor=0.1,
        )
        processor = self.subscriptions[request["name"]] = Processor(client)
        return {"namespace": processor.namespace}

    def checkpoint(self, request):
        self.subscriptions[request["name"]].checkpoint()
        return {}

    def stored(self, request):
        store, names = blob_store(request), (request["namespace"], request["hub"], request["group"])
        return {
            "owners": {o["partition_id"]: o["owner_id"] for o in store.list_ownership(*names)},
            "checkpoints": {
                c["partition_id"]: {"sequence_number": c["sequence_number"], "offset": c["offset"]}
                for c in store.list_checkpoints(*names)
            },
        }

    def read(self, request):
        return self.subscriptions[request["name"]].read(request["count"], request["timeout_ms"] / 1000)

    def close(self, request):
        self.subscriptions.pop(request["name"]).close()
        return {}


def main():
    peer = Peer(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, request["op"])(request)
        except Exception as error:  # Whatever it is, the test decides whether it was right.
            answer = failure(error)
        print(json.dumps(answer), flush=True)


main()
