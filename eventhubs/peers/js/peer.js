// The official JavaScript SDK as a foreign peer: one JSON request a line in, one JSON answer a line
// out. The protocol is described in ../README.md. Started with the emulator's host:port.

const readline = require("node:readline");
const { EventHubProducerClient, EventHubConsumerClient, earliestEventPosition } = require("@azure/event-hubs");
const { BlobCheckpointStore } = require("@azure/eventhubs-checkpointstore-blob");
const { ContainerClient } = require("@azure/storage-blob");

const [address] = process.argv.slice(2);
const connectionString = `Endpoint=sb://${address};SharedAccessKeyName=x;SharedAccessKey=y;UseDevelopmentEmulator=true`;
const retryOptions = { maxRetries: 3, retryDelayInMs: 100, timeoutInMs: 5000 };

const producers = new Map();
const subscriptions = new Map();

function failure(error) {
  return { error: { condition: String(error.code || error.name || "Error"), message: String(error.message) } };
}

function producer(hub) {
  if (!producers.has(hub)) {
    producers.set(hub, new EventHubProducerClient(connectionString, hub, { retryOptions }));
  }
  return producers.get(hub);
}

function eventOut(event) {
  return {
    sequence_number: event.sequenceNumber,
    offset: event.offset,
    enqueued_ms: event.enqueuedTimeUtc.getTime(),
    partition_key: event.partitionKey ?? null,
    message_id: event.messageId === undefined ? null : String(event.messageId),
    body: Buffer.from(event.body).toString("base64"),
    properties: event.properties ?? {},
  };
}

function eventIn(event) {
  return { body: Buffer.from(event.body, "base64"), messageId: event.message_id, properties: event.properties };
}

function position(from) {
  const isInclusive = from.inclusive ?? false;
  if ("sequence_number" in from) return { sequenceNumber: from.sequence_number, isInclusive };
  if ("enqueued_ms" in from) return { enqueuedOn: from.enqueued_ms, isInclusive };
  return { offset: from.offset, isInclusive };
}

/** A receiver that runs until it is closed; events and errors wait in a queue. */
class Subscription {
  constructor(request) {
    this.queue = [];
    this.wake = () => {};
    this.start(request);
  }

  push(item) {
    this.queue.push(item);
    this.wake();
  }

  start(request) {
    this.client = new EventHubConsumerClient(request.group, connectionString, request.hub, {
      retryOptions: { ...retryOptions, maxRetries: request.retries ?? 3 },
    });
    this.subscription = this.client.subscribe(
      request.partition,
      {
        processEvents: async (events) => events.forEach((event) => this.push(eventOut(event))),
        processError: async (error) => this.push(failure(error)),
      },
      {
        startPosition: position(request.from),
        maxBatchSize: 100,
        maxWaitTimeInSeconds: 1,
        // Else a body that happens to be JSON comes as something that is not bytes.
        skipParsingBodyAsJson: true,
        ...(request.epoch == null ? {} : { ownerLevel: request.epoch }),
      },
    );
  }

  async read(count, timeoutMs) {
    const events = [];
    const deadline = Date.now() + timeoutMs;
    while (events.length < count) {
      if (this.queue.length === 0) {
        const left = deadline - Date.now();
        if (left <= 0) break;
        await new Promise((resolve) => {
          const timer = setTimeout(resolve, left);
          this.wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        continue;
      }
      const item = this.queue.shift();
      if (item.error) return { ...item, events };
      events.push(item);
    }
    return { events };
  }

  async close() {
    await this.subscription.close();
    await this.client.close();
  }
}

function blobStore({ storage }) {
  return new BlobCheckpointStore(new ContainerClient(storage.connection_string, storage.container));
}

/** Reads its share of a hub, with a store of checkpoints in blobs. */
class Processor extends Subscription {
  start(request) {
    this.last = new Map();
    this.client = new EventHubConsumerClient(request.group, connectionString, request.hub, blobStore(request), {
      retryOptions,
      loadBalancingOptions: {
        strategy: "greedy",
        updateIntervalInMs: 1000,
        partitionOwnershipExpirationIntervalInMs: request.expiry_s * 1000,
      },
    });
    this.subscription = this.client.subscribe(
      {
        processEvents: async (events, context) => {
          for (const event of events) {
            this.last.set(context.partitionId, [context, event]);
            this.push({ ...eventOut(event), partition: context.partitionId });
          }
        },
        // Another reader may have the partition for a while; the SDK tries again.
        processError: async (error) => console.error(`processor: ${error.message}`),
      },
      {
        startPosition: earliestEventPosition,
        maxBatchSize: 100,
        maxWaitTimeInSeconds: 1,
        skipParsingBodyAsJson: true,
      },
    );
  }

  async checkpoint() {
    for (const [context, event] of this.last.values()) await context.updateCheckpoint(event);
  }
}

const operations = {
  async properties({ hub }) {
    const client = producer(hub);
    const properties = await client.getEventHubProperties();
    const partitions = [];
    for (const id of properties.partitionIds) {
      const p = await client.getPartitionProperties(id);
      partitions.push({
        id: p.partitionId,
        begin: p.beginningSequenceNumber,
        last: p.lastEnqueuedSequenceNumber,
        last_offset: p.lastEnqueuedOffset,
        is_empty: p.isEmpty,
      });
    }
    return { name: properties.name, partition_ids: properties.partitionIds, partitions };
  },
  async send({ hub, partition, partition_key, events, single }) {
    const route = {
      ...(partition == null ? {} : { partitionId: partition }),
      ...(partition_key == null ? {} : { partitionKey: partition_key }),
    };
    if (single) {
      // The SDK has no way to send an event outside a batch; this is its shortest one.
      for (const event of events) await producer(hub).sendBatch([eventIn(event)], route);
      return {};
    }
    const batch = await producer(hub).createBatch(route);
    for (const event of events) {
      if (!batch.tryAdd(eventIn(event))) throw new Error("the batch is full");
    }
    await producer(hub).sendBatch(batch);
    return {};
  },
  async open(request) {
    subscriptions.set(request.name, new Subscription(request));
    return {};
  },
  async process(request) {
    const processor = new Processor(request);
    subscriptions.set(request.name, processor);
    return { namespace: processor.client.fullyQualifiedNamespace };
  },
  async checkpoint({ name }) {
    await subscriptions.get(name).checkpoint();
    return {};
  },
  async stored(request) {
    const store = blobStore(request);
    const names = [request.namespace, request.hub, request.group];
    const owners = {};
    for (const { partitionId, ownerId } of await store.listOwnership(...names)) owners[partitionId] = ownerId;
    const checkpoints = {};
    for (const { partitionId, sequenceNumber, offset } of await store.listCheckpoints(...names)) {
      checkpoints[partitionId] = { sequence_number: sequenceNumber, offset: String(offset) };
    }
    return { owners, checkpoints };
  },
  async read({ name, count, timeout_ms }) {
    return subscriptions.get(name).read(count, timeout_ms);
  },
  async close({ name }) {
    await subscriptions.get(name).close();
    subscriptions.delete(name);
    return {};
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer;
    try {
      answer = await operations[request.op](request);
    } catch (error) {
      answer = failure(error);
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
}

main();
