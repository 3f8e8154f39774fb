//! Our client as one of the peers.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use eventhubs::{
    client::{
        Backoff, Client, ConnectionString, Error, EventData, MessageId, Options, ReceivedEvent,
        Receiver, ReceiverOptions, SenderOptions, SimpleValue, Target,
    },
    emulator::Emulator,
    filter::Position,
};
use serde_json::{Value, json};

pub(crate) struct Own {
    client: Client,
    receivers: BTreeMap<String, Receiver>,
}

impl Own {
    pub(crate) fn new(emulator: &Emulator) -> Self {
        let string: ConnectionString = emulator.connection_string("hub").parse().unwrap();
        let backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(100) };
        let options = Options {
            backoff,
            idle_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
            ..Options::default()
        };
        let client = Client::new(string.endpoint, string.auth, options);
        Self { client, receivers: BTreeMap::new() }
    }

    pub(crate) async fn answer(&mut self, request: Value) -> Value {
        let result = match request["op"].as_str().unwrap() {
            "properties" => self.properties(text(&request, "hub")).await,
            "send" => self.send(&request).await,
            "open" => self.open(&request).await,
            "read" => return self.read(&request).await,
            _ => {
                self.receivers.remove(text(&request, "name")).unwrap().close().await;
                Ok(json!({}))
            }
        };
        result.unwrap_or_else(|error| failure(&error))
    }

    async fn properties(&self, hub: &str) -> Result<Value, Error> {
        let hub = self.client.hub(hub);
        let properties = hub.properties().await?;
        let mut partitions = Vec::new();
        for id in &properties.partition_ids {
            let partition = hub.partition_properties(id).await?;
            partitions.push(json!({
                "id": partition.id,
                "begin": partition.begin_sequence_number,
                "last": partition.last_enqueued_sequence_number,
                "last_offset": partition.last_enqueued_offset,
                "is_empty": partition.is_empty,
            }));
        }
        Ok(json!({
            "name": properties.name,
            "partition_ids": properties.partition_ids,
            "partitions": partitions,
        }))
    }

    async fn send(&self, request: &Value) -> Result<Value, Error> {
        let options = SenderOptions { timeout: Duration::from_secs(5), ..SenderOptions::default() };
        let sender = self.client.hub(text(request, "hub")).sender(options);
        let target = match (request["partition"].as_str(), request["partition_key"].as_str()) {
            (Some(id), _) => Target::Partition(id.to_owned()),
            (None, Some(key)) => Target::Key(key.to_owned()),
            (None, None) => Target::RoundRobin,
        };
        let mut batch = sender.batch(target).await?;
        for event in request["events"].as_array().unwrap() {
            assert!(batch.try_add(&event_in(event))?, "the batch is full");
        }
        sender.send(&batch).await?;
        Ok(json!({}))
    }

    async fn open(&mut self, request: &Value) -> Result<Value, Error> {
        let mut options =
            ReceiverOptions::new(text(request, "partition"), position(&request["from"]));
        options.consumer_group = text(request, "group").to_owned();
        options.epoch = request["epoch"].as_i64();
        let receiver = self.client.hub(text(request, "hub")).receiver(options).await?;
        self.receivers.insert(text(request, "name").to_owned(), receiver);
        Ok(json!({}))
    }

    async fn read(&mut self, request: &Value) -> Value {
        let receiver = self.receivers.get_mut(text(request, "name")).unwrap();
        let count = request["count"].as_u64().unwrap() as usize;
        let wait = Duration::from_millis(request["timeout_ms"].as_u64().unwrap());
        let deadline = tokio::time::Instant::now() + wait;
        let mut events: Vec<Value> = Vec::new();
        while events.len() < count {
            let left = deadline - tokio::time::Instant::now();
            match receiver.receive(count - events.len(), left).await {
                Ok(received) if received.is_empty() => break,
                Ok(received) => events.extend(received.iter().map(event_out)),
                Err(error) => {
                    let mut answer = failure(&error);
                    answer["events"] = json!(events);
                    return answer;
                }
            }
        }
        json!({ "events": events })
    }
}

fn text<'a>(request: &'a Value, name: &str) -> &'a str {
    request[name].as_str().unwrap()
}

fn failure(error: &Error) -> Value {
    json!({ "error": { "condition": format!("{:?}", error.kind()), "message": error.to_string() } })
}

fn position(from: &Value) -> Position {
    let inclusive = from["inclusive"].as_bool().unwrap_or(false);
    if let Some(number) = from["sequence_number"].as_i64() {
        return Position::SequenceNumber { number, inclusive };
    }
    if let Some(millis) = from["enqueued_ms"].as_i64() {
        return Position::EnqueuedTime { millis, inclusive };
    }
    match text(from, "offset") {
        "-1" => Position::Earliest,
        "@latest" => Position::Latest,
        offset => Position::Offset { offset: offset.to_owned(), inclusive },
    }
}

fn event_in(event: &Value) -> EventData {
    let mut data = EventData::from(BASE64_STANDARD.decode(text(event, "body")).unwrap());
    data.message_id = event["message_id"].as_str().map(|id| MessageId::String(id.to_owned()));
    let properties = event["properties"].as_object().unwrap().iter();
    data.properties = properties.map(|(name, value)| (name.clone(), simple(value))).collect();
    data
}

fn simple(value: &Value) -> SimpleValue {
    match value {
        Value::String(text) => SimpleValue::String(text.clone()),
        Value::Bool(flag) => SimpleValue::Bool(*flag),
        number => SimpleValue::Long(number.as_i64().unwrap()),
    }
}

fn event_out(event: &ReceivedEvent) -> Value {
    let time = event.enqueued_time.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let properties = event.properties.iter();
    let properties: BTreeMap<_, _> =
        properties.map(|(name, value)| (name.clone(), json_of(value))).collect();
    let message_id = match &event.message_id {
        Some(MessageId::String(id)) => Some(id.clone()),
        other => other.as_ref().map(|id| format!("{id:?}")),
    };
    json!({
        "sequence_number": event.sequence_number,
        "offset": event.offset,
        "enqueued_ms": time.as_millis() as u64,
        "partition_key": event.partition_key,
        "message_id": message_id,
        "body": BASE64_STANDARD.encode(&event.body),
        "properties": properties,
    })
}

fn json_of(value: &SimpleValue) -> Value {
    match value {
        SimpleValue::String(text) => json!(text),
        SimpleValue::Bool(flag) => json!(flag),
        SimpleValue::Long(number) => json!(number),
        SimpleValue::Int(number) => json!(number),
        SimpleValue::Double(number) => json!(number.into_inner()),
        other => json!(format!("{other:?}")),
    }
}
