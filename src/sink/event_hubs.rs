//! Writes to an event hub.
//!
//! A batch is stored in one partition, as a whole or not at all. Events are grouped by the
//! partition that their key belongs to, computed as the service computes it, so that batches stay
//! full however many keys there are; each event carries its key all the same.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use eventhubs::{
    client::{Error, ErrorKind, EventData, MessageId, SenderOptions, Target, bytes_in_batch},
    limits, partition_key,
};
use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Labels, Limits, Nature, Order, Outgoing, Sink};
use crate::{
    cloud::{
        Context, azure,
        event_hubs::{
            Access, CORRELATION_ID, fault, property,
            transport::{Hub, Sender, Transport},
        },
    },
    config::{secret::Secret, units::Span},
    event::{Event, Value},
    fault::{Fault, Verdict},
    metadata::{Packed, amqp_properties},
};

/// An event hub to write to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EventHubsSink")]
pub struct Config {
    /// The namespace, as `demo` or `demo.servicebus.windows.net`; signs in with the credential of
    /// `azure`. Needs the role *Azure Event Hubs Data Sender*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A connection string with the right *Send*, instead of `namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<Secret>,
    /// `amqp://HOST:PORT` of an emulator, or `amqps://HOST:PORT` of a private end point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The hub.
    pub hub: String,
    /// How to reach Azure, where it differs from the file's `azure`.
    #[serde(default)]
    pub azure: azure::Config,
    /// Which client speaks to the hub.
    #[serde(default, skip_serializing_if = "Transport::is_own")]
    pub client: Transport,
    /// The id of the one partition to write to. Without it, each event goes to the partition of
    /// its key, and events without a key go wherever the service likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// How long a batch may take, from the wait for its turn to the service's answer.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

/// Events in one request. The service counts bytes; this bounds what is lost to one refusal.
const BATCH_EVENTS: usize = 500;
/// What the SDK takes for stored and is not.
const GIVEN_BACK: &str = "events that the service gives back (released or modified): the official \
                          SDK reports them as stored";
/// Requests under way at once.
const IN_FLIGHT: usize = 8;

struct HubSink {
    hub: Arc<dyn Hub>,
    sender: Box<dyn Sender>,
    partitions: Vec<String>,
    fixed: Option<String>,
    bytes_max: usize,
}

impl Config {
    fn access(&self) -> Access<'_> {
        Access {
            namespace: self.namespace.as_deref(),
            connection_string: self.connection_string.as_ref(),
            endpoint: self.endpoint.as_deref(),
            hub: &self.hub,
            azure: &self.azure,
            client: self.client,
        }
    }

    /// What is wrong with the settings, field by field.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        self.access().problems()
    }

    /// What is known before the hub is asked.
    pub(super) fn nature(&self) -> Nature {
        Nature {
            what: "an event hub",
            keeps_order: true,
            event_bytes: usize::try_from(limits::MAX_MESSAGE_BYTES).unwrap_or(usize::MAX),
            needs_key: false,
            attributes: None,
            in_flight: IN_FLIGHT,
            loses: (self.client == Transport::Sdk).then_some(GIVEN_BACK),
        }
    }

    /// The event as the message of a hub.
    pub(super) fn pack(event: &Event) -> Result<Packed, Fault> {
        let attributes = amqp_properties(event);
        let body = event.body.clone();
        let mut packed = Packed { body, attributes, bytes: 0 };
        let data = event_data(event, &packed);
        packed.bytes = bytes_in_batch(&data, &Target::RoundRobin)
            .map_err(|error| Fault::new(Verdict::Reject, "encode event", "invalid", error))?;
        Ok(packed)
    }

    /// What stands in the message beside body and properties.
    pub(super) fn labels(&self, event: &Event) -> Labels {
        let texts = [
            ("message id", Some(&*event.id)),
            ("subject", event.subject.as_deref()),
            ("content type", event.content_type.as_deref().filter(|text| text.is_ascii())),
            ("partition key", short_key(event)),
            ("partition", self.partition.as_deref()),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, text?.to_owned()))).collect()
    }

    /// Connects, and asks the hub for its partitions and its limit.
    pub(super) async fn sink(&self, context: &Context) -> Result<Arc<dyn Sink>, Fault> {
        let hub = self.access().hub(context)?;
        let properties =
            hub.properties().await.map_err(|error| fault("read hub properties", error))?;
        if let Some(fixed) = &self.partition
            && !properties.partition_ids.contains(fixed)
        {
            let cause = format!("hub {} has no partition {fixed}", self.hub);
            return Err(Fault::stop("open hub", "not_found", cause));
        }
        // Each group of a request is a batch of its own, and all of them may be under way.
        let in_flight_max = IN_FLIGHT * properties.partition_ids.len().max(1);
        let sender = hub.sender(SenderOptions { timeout: *self.timeout, in_flight_max });
        let anywhere = match &self.partition {
            Some(id) => Target::Partition(id.clone()),
            None => Target::RoundRobin,
        };
        let bytes_max = sender.batch_bytes_max(&anywhere).await;
        Ok(Arc::new(HubSink {
            bytes_max: bytes_max.map_err(|error| fault("attach sender", error))?,
            partitions: properties.partition_ids,
            fixed: self.partition.clone(),
            sender,
            hub,
        }))
    }
}

impl HubSink {
    fn target(&self, event: &Event) -> Target {
        if let Some(id) = &self.fixed {
            return Target::Partition(id.clone());
        }
        match (&event.key, u32::try_from(self.partitions.len())) {
            (Some(key), Ok(count @ 1..)) => {
                let index = partition_key::partition_of(key, count);
                Target::Partition(self.partitions[index as usize].clone())
            }
            _ => Target::RoundRobin,
        }
    }

    /// Sends the events of one target, in order, and answers for each. A batch that is refused for
    /// what is in it is sent again one by one, so that only the culprit suffers, and what is behind
    /// it in its key waits: it may not overtake. Once an event fails in another way, nothing after
    /// it is sent.
    async fn send_in_order(
        &self,
        target: &Target,
        keys: &[Option<&str>],
        events: &[EventData],
    ) -> Vec<Result<(), Fault>> {
        let mut answers = Vec::with_capacity(events.len());
        let mut refused = HashSet::new();
        let mut at_once = usize::MAX;
        while answers.len() < events.len() {
            let (key, rest) = (keys[answers.len()], &events[answers.len()..]);
            if key.is_some_and(|key| refused.contains(key)) {
                answers.push(Err(Fault::behind("send")));
                continue;
            }
            let part = &rest[..rest.len().min(at_once)];
            match self.sender.send(target, part).await {
                Ok(sent) => answers.extend(std::iter::repeat_n((), sent).map(Ok)),
                Err(error) if !is_for_content(&error) => {
                    let rest = &keys[answers.len()..];
                    answers.extend(rest.iter().map(|key| match key {
                        Some(key) if refused.contains(key) => Err(Fault::behind("send")),
                        _ => Err(fault("send", error.clone())),
                    }));
                }
                Err(_) if part.len() > 1 => at_once = 1,
                Err(error) => {
                    refused.extend(key);
                    answers.push(Err(fault("send", error)));
                }
            }
        }
        answers
    }
}

#[async_trait]
impl Sink for HubSink {
    fn limits(&self) -> Limits {
        Limits {
            events: BATCH_EVENTS,
            bytes: self.bytes_max,
            event_bytes: self.bytes_max,
            order: Order::Together,
            in_flight: IN_FLIGHT,
        }
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Config::pack(event)
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        let mut groups: HashMap<Target, Group<'_>> = HashMap::new();
        for (index, Outgoing { event, packed, .. }) in batch.iter().enumerate() {
            let Group { indexes, keys, events } = groups.entry(self.target(event)).or_default();
            indexes.push(index);
            keys.push(event.key.as_deref());
            events.push(event_data(event, packed));
        }
        let sent = groups.into_iter().map(|(target, Group { indexes, keys, events })| async move {
            (indexes, self.send_in_order(&target, &keys, &events).await)
        });
        let mut answers: Vec<_> = batch.iter().map(|_| Ok(())).collect();
        for (indexes, results) in join_all(sent).await {
            for (index, result) in indexes.into_iter().zip(results) {
                answers[index] = result;
            }
        }
        answers
    }

    async fn probe(&self) -> Result<(), Fault> {
        let properties = self.hub.properties().await;
        properties.map(drop).map_err(|error| fault("read hub properties", error))
    }
}

/// What of a batch goes to one target: places in the batch, keys and messages.
#[derive(Default)]
struct Group<'b> {
    indexes: Vec<usize>,
    keys: Vec<Option<&'b str>>,
    events: Vec<EventData>,
}

/// Whether a batch was refused for what it holds.
fn is_for_content(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Rejected | ErrorKind::TooLarge | ErrorKind::Invalid)
}

/// The key as a message carries it. A longer one still decides the partition, and travels with our
/// own metadata.
fn short_key(event: &Event) -> Option<&str> {
    event.key.as_deref().filter(|key| key.chars().count() <= limits::MAX_PARTITION_KEY_CHARS)
}

/// The AMQP message of an event. Id, subject and content type have fields of their own there, and
/// so has a correlation id that came from another hub. A content type is a symbol, which is ASCII:
/// any other text travels with our own metadata.
fn event_data(event: &Event, packed: &Packed) -> EventData {
    let mut data = EventData {
        body: packed.body.clone(),
        message_id: Some(MessageId::String(event.id.to_string())),
        subject: event.subject.as_deref().map(str::to_owned),
        content_type: event
            .content_type
            .as_deref()
            .filter(|text| text.is_ascii())
            .map(str::to_owned),
        partition_key: short_key(event).map(str::to_owned),
        ..EventData::default()
    };
    for (name, value) in &packed.attributes {
        match value {
            Value::String(id) if &**name == CORRELATION_ID => {
                data.correlation_id = Some(MessageId::String(id.to_string()));
            }
            value => data.properties.push((name.to_string(), property(value))),
        }
    }
    data
}
