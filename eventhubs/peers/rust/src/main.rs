//! The official Rust SDK as a foreign peer: one JSON request a line in, one JSON answer a line out.
//!
//! The protocol is described in `../README.md`. Started with the emulator's host:port.

#![expect(clippy::disallowed_methods, reason = "lives as long as the test that started it")]

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use azure_messaging_eventhubs::{
    ConsumerClient, EventDataBatchOptions, OpenReceiverOptions, ProducerClient, RetryOptions,
    SendEventOptions, StartLocation, StartPosition,
    models::{AmqpSimpleValue, EventData, MessageId, ReceivedEventData},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A token that the emulator takes, as it takes every one.
#[derive(Debug)]
struct AnyToken;

#[async_trait::async_trait]
impl TokenCredential for AnyToken {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let expires = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        Ok(AccessToken::new("a token", expires))
    }
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Request {
    Properties { hub: String },
    Send(Publish),
    Open(Open),
    Read { name: String, count: usize, timeout_ms: u64 },
    Close { name: String },
}

#[derive(Deserialize)]
struct Publish {
    hub: String,
    partition: Option<String>,
    partition_key: Option<String>,
    #[serde(default)]
    single: bool,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Open {
    name: String,
    hub: String,
    group: String,
    partition: String,
    from: Start,
    epoch: Option<i64>,
}

#[derive(Deserialize)]
struct Start {
    offset: Option<String>,
    sequence_number: Option<i64>,
    enqueued_ms: Option<u64>,
    #[serde(default)]
    inclusive: bool,
}

#[derive(Deserialize, Serialize)]
struct Event {
    #[serde(default)]
    sequence_number: Option<i64>,
    #[serde(default)]
    offset: Option<String>,
    #[serde(default)]
    enqueued_ms: Option<u64>,
    #[serde(default)]
    partition_key: Option<String>,
    message_id: Option<String>,
    body: String,
    properties: BTreeMap<String, Value>,
}

/// What a receiver's task hands over.
type Arrived = mpsc::Receiver<Result<Event, String>>;

struct Subscription {
    arrived: Arrived,
    task: tokio::task::JoinHandle<()>,
}

struct Peer {
    address: String,
    producers: BTreeMap<String, ProducerClient>,
    subscriptions: BTreeMap<String, Subscription>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let address = std::env::args().nth(1).ok_or("the emulator's host:port is missing")?;
    let mut peer = Peer { address, producers: BTreeMap::new(), subscriptions: BTreeMap::new() };
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let answer = match peer.answer(request).await {
            Ok(answer) => answer,
            Err(error) => failure(&format!("{error:?}")),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    // What is still open would wait for answers that nobody needs.
    std::process::exit(0);
}

/// The SDK hides the condition in its text.
fn failure(text: &str) -> Value {
    json!({ "error": { "condition": "Error", "message": text } })
}

fn retries() -> RetryOptions {
    RetryOptions { max_retries: 3, ..RetryOptions::default() }
}

impl Peer {
    async fn answer(&mut self, request: Request) -> Result<Value, Failure> {
        match request {
            Request::Properties { hub } => match self.properties(&hub).await {
                // Once in a while the SDK uses a session that it has not begun yet, and stays so.
                Err(error) if error.to_string().contains("Illegal session state") => {
                    self.producers.remove(&hub);
                    self.properties(&hub).await
                }
                answered => answered,
            },
            Request::Send(send) => {
                let hub = send.hub.clone();
                let sent = self.send(send).await;
                if sent.is_err() {
                    // Its connection may be gone, and stays so.
                    self.producers.remove(&hub);
                }
                sent
            }
            Request::Open(open) => self.open(open).await,
            Request::Read { name, count, timeout_ms } => {
                let subscription = self.subscriptions.get_mut(&name).ok_or("no such receiver")?;
                Ok(read(&mut subscription.arrived, count, Duration::from_millis(timeout_ms)).await)
            }
            Request::Close { name } => {
                let subscription = self.subscriptions.remove(&name).ok_or("no such receiver")?;
                subscription.task.abort();
                Ok(json!({}))
            }
        }
    }

    async fn producer(&mut self, hub: &str) -> Result<&ProducerClient, Failure> {
        if !self.producers.contains_key(hub) {
            let producer = ProducerClient::builder()
                .with_custom_endpoint(format!("amqp://{}", self.address))
                .with_retry_options(retries())
                .open("127.0.0.1", hub, Arc::new(AnyToken))
                .await?;
            self.producers.insert(hub.to_owned(), producer);
        }
        self.producers.get(hub).ok_or_else(|| "no producer".into())
    }

    async fn properties(&mut self, hub: &str) -> Result<Value, Failure> {
        let producer = self.producer(hub).await?;
        let properties = producer.get_eventhub_properties().await?;
        let mut partitions = Vec::new();
        for id in &properties.partition_ids {
            let partition = producer.get_partition_properties(id).await?;
            partitions.push(json!({
                "id": partition.id,
                "begin": partition.beginning_sequence_number,
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

    async fn send(&mut self, send: Publish) -> Result<Value, Failure> {
        let producer = self.producer(&send.hub).await?;
        let events = send.events.into_iter().map(event_data).collect::<Result<Vec<_>, _>>()?;
        if send.single {
            for event in events {
                let options = SendEventOptions { partition_id: send.partition.clone() };
                producer.send_event(event, Some(options)).await?;
            }
            return Ok(json!({}));
        }
        let options = EventDataBatchOptions {
            partition_id: send.partition,
            partition_key: send.partition_key,
            ..EventDataBatchOptions::default()
        };
        let batch = producer.create_batch(Some(options)).await?;
        for event in events {
            if !batch.try_add_event_data(event, None)? {
                return Err("the batch is full".into());
            }
        }
        producer.send_batch(batch, None).await?;
        Ok(json!({}))
    }

    async fn open(&mut self, open: Open) -> Result<Value, Failure> {
        let consumer = ConsumerClient::builder()
            .with_consumer_group(open.group)
            .with_custom_endpoint(format!("amqp://{}", self.address))
            .with_retry_options(retries())
            .open("127.0.0.1", open.hub, Arc::new(AnyToken))
            .await?;
        let options = OpenReceiverOptions {
            owner_level: open.epoch,
            start_position: Some(open.from.into_position()?),
            ..OpenReceiverOptions::default()
        };
        let receiver = consumer.open_receiver_on_partition(open.partition, Some(options)).await?;
        let (sender, arrived) = mpsc::channel(1000);
        let task = tokio::spawn(async move {
            // The client must live as long as its receiver.
            let _consumer = consumer;
            let mut stream = std::pin::pin!(receiver.stream_events());
            while let Some(item) = stream.next().await {
                let item = item.map(event_out).map_err(|error| format!("{error:?}"));
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        });
        self.subscriptions.insert(open.name, Subscription { arrived, task });
        Ok(json!({}))
    }
}

async fn read(arrived: &mut Arrived, count: usize, timeout: Duration) -> Value {
    let mut events = Vec::new();
    let deadline = tokio::time::Instant::now() + timeout;
    while events.len() < count {
        match tokio::time::timeout_at(deadline, arrived.recv()).await {
            Err(_) => break,
            Ok(Some(Ok(event))) => events.push(event),
            Ok(Some(Err(text))) => {
                let mut answer = failure(&text);
                answer["events"] = json!(events);
                return answer;
            }
            Ok(None) => {
                let mut answer = failure("the stream has ended");
                answer["events"] = json!(events);
                return answer;
            }
        }
    }
    json!({ "events": events })
}

impl Start {
    fn into_position(self) -> Result<StartPosition, Failure> {
        let location = match self {
            Self { sequence_number: Some(number), .. } => StartLocation::SequenceNumber(number),
            Self { enqueued_ms: Some(millis), .. } => {
                StartLocation::EnqueuedTime(UNIX_EPOCH + Duration::from_millis(millis))
            }
            Self { offset: Some(offset), .. } => match offset.as_str() {
                "-1" => StartLocation::Earliest,
                "@latest" => StartLocation::Latest,
                _ => StartLocation::Offset(offset),
            },
            _ => return Err("a position without a value".into()),
        };
        Ok(StartPosition { location, inclusive: self.inclusive })
    }
}

fn event_data(event: Event) -> Result<EventData, Failure> {
    let mut builder = EventData::builder().with_body(BASE64_STANDARD.decode(event.body)?);
    if let Some(id) = event.message_id {
        builder = builder.with_message_id(MessageId::String(id));
    }
    for (name, value) in event.properties {
        builder = match value {
            Value::String(text) => builder.add_property(name, text),
            Value::Number(number) => builder.add_property(name, number.as_i64().unwrap_or(0)),
            Value::Bool(flag) => builder.add_property(name, flag),
            _ => return Err("a property of a kind that no test needs".into()),
        };
    }
    Ok(builder.build())
}

fn event_out(received: ReceivedEventData) -> Event {
    let event = received.event_data();
    let properties = event.properties().into_iter().flatten();
    Event {
        sequence_number: received.sequence_number(),
        offset: received.offset().clone(),
        enqueued_ms: received.enqueued_time().map(millis),
        partition_key: received.partition_key().clone(),
        message_id: event.message_id().map(id_text),
        body: BASE64_STANDARD.encode(event.body().unwrap_or_default()),
        properties: properties.map(|(name, value)| (name.clone(), json_of(value))).collect(),
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn id_text(id: &MessageId) -> String {
    match id {
        MessageId::String(text) => text.clone(),
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(uuid) => uuid.to_string(),
        MessageId::Binary(bytes) => BASE64_STANDARD.encode(bytes),
    }
}

fn json_of(value: &AmqpSimpleValue) -> Value {
    match value {
        AmqpSimpleValue::String(text) => json!(text),
        AmqpSimpleValue::Long(number) => json!(number),
        AmqpSimpleValue::Int(number) => json!(number),
        AmqpSimpleValue::Boolean(flag) => json!(flag),
        other => json!(format!("{other:?}")),
    }
}
