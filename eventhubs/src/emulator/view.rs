//! What the control API shows and takes: events and the state of the emulator as JSON.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use base64::{Engine, prelude::BASE64_STANDARD};
use fe2o3_amqp_types::messaging::{ApplicationProperties, Body, Data, MessageId, Properties};
use fe2o3_amqp_types::primitives::{Binary, OrderedMap, SimpleValue, Value as AmqpValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    core::Core,
    event::{self, AnyMessage},
    fault::Fault,
    namespace::Hub,
    partition::StoredEvent,
    roster::Link,
};

/// An event as it lies in the log: the oracle of every test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Id of its partition.
    pub partition: String,
    /// Its number.
    pub sequence_number: i64,
    /// Its offset.
    pub offset: String,
    /// Milliseconds since 1970, by the service's clock.
    pub enqueued_ms: i64,
    /// Its partition key.
    pub partition_key: Option<String>,
    /// Its message id, as text.
    pub message_id: Option<String>,
    /// Its body, when that is data, in base64.
    pub body_base64: Option<String>,
    /// Its body, when that is a value or a sequence.
    pub body_value: Option<Value>,
    /// Its application properties.
    pub properties: BTreeMap<String, Value>,
}

impl EventView {
    /// The bytes of a body that is data.
    pub fn body(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.body_base64.as_ref()?).ok()
    }

    pub(crate) fn of(partition: u32, stored: &StoredEvent) -> Self {
        // Every event was decoded when it came in.
        let message = event::decode(&stored.encoded).unwrap_or_else(|_| event::bare(Body::Empty));
        let (body_base64, body_value) = match &message.body {
            Body::Data(sections) => {
                let bytes: Vec<u8> =
                    sections.iter().flat_map(|data| data.0.iter().copied()).collect();
                (Some(BASE64_STANDARD.encode(bytes)), None)
            }
            Body::Value(value) => (None, Some(json_of(&value.0))),
            Body::Sequence(lists) => {
                (None, Some(lists.iter().flat_map(|list| list.0.iter().map(json_of)).collect()))
            }
            Body::Empty => (None, None),
        };
        let properties = message.application_properties.iter().flat_map(|properties| &properties.0);
        Self {
            partition: partition.to_string(),
            sequence_number: stored.stamp.sequence_number,
            offset: stored.stamp.offset.to_string(),
            enqueued_ms: stored.stamp.enqueued_ms,
            partition_key: stored.partition_key.as_ref().map(ToString::to_string),
            message_id: event::message_id(&message),
            body_base64,
            body_value,
            properties: properties
                .map(|(name, value)| (name.clone(), json_of(&AmqpValue::from(value.clone()))))
                .collect(),
        }
    }
}

/// An event to put into the log from outside.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seed {
    /// Its body as text.
    pub body: Option<String>,
    /// Its body as any bytes, in base64.
    pub body_base64: Option<String>,
    /// Its message id.
    pub message_id: Option<String>,
    /// Its application properties; all are text.
    pub properties: BTreeMap<String, String>,
}

impl Seed {
    /// An event with these bytes.
    pub fn new(body: impl AsRef<[u8]>) -> Self {
        Self { body_base64: Some(BASE64_STANDARD.encode(body)), ..Self::default() }
    }

    /// `None`: the base64 is none.
    pub(crate) fn into_message(self) -> Option<AnyMessage> {
        let body = match self.body_base64 {
            Some(text) => BASE64_STANDARD.decode(text).ok()?,
            None => self.body.unwrap_or_default().into_bytes(),
        };
        let properties = self.properties.into_iter();
        let properties: OrderedMap<String, SimpleValue> =
            properties.map(|(name, value)| (name, SimpleValue::String(value))).collect();
        Some(AnyMessage {
            properties: self.message_id.map(|id| Properties {
                message_id: Some(MessageId::String(id)),
                ..Properties::default()
            }),
            application_properties: (!properties.is_empty())
                .then_some(ApplicationProperties(properties)),
            ..event::bare(Body::Data(vec![Data(Binary::from(body))].into()))
        })
    }
}

fn json_of(value: &AmqpValue) -> Value {
    match value {
        AmqpValue::Null => Value::Null,
        AmqpValue::Bool(value) => json!(value),
        AmqpValue::Ubyte(value) => json!(value),
        AmqpValue::Ushort(value) => json!(value),
        AmqpValue::Uint(value) => json!(value),
        AmqpValue::Ulong(value) => json!(value),
        AmqpValue::Byte(value) => json!(value),
        AmqpValue::Short(value) => json!(value),
        AmqpValue::Int(value) => json!(value),
        AmqpValue::Long(value) => json!(value),
        AmqpValue::Float(value) => json!(value.into_inner()),
        AmqpValue::Double(value) => json!(value.into_inner()),
        AmqpValue::String(value) => json!(value),
        AmqpValue::Symbol(value) => json!(value.as_str()),
        AmqpValue::Binary(value) => json!({ "binary": BASE64_STANDARD.encode(value) }),
        AmqpValue::Timestamp(value) => json!({ "timestamp": value.milliseconds() }),
        AmqpValue::List(values) => values.iter().map(json_of).collect(),
        AmqpValue::Map(entries) => {
            let entries = entries.iter();
            Value::Object(entries.map(|(key, value)| (key_of(key), json_of(value))).collect())
        }
        other => json!(format!("{other:?}")),
    }
}

fn key_of(key: &AmqpValue) -> String {
    match key {
        AmqpValue::String(text) => text.clone(),
        AmqpValue::Symbol(text) => text.to_string(),
        other => format!("{other:?}"),
    }
}

/// The emulator as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct StateView {
    /// The hubs and how full their partitions are.
    pub hubs: Vec<HubView>,
    /// The links that are attached.
    pub links: Vec<LinkView>,
    /// The faults that are still to strike.
    pub faults: Vec<Fault>,
    /// How it behaves.
    pub settings: super::Settings,
}

/// A hub.
#[derive(Debug, Clone, Serialize)]
pub struct HubView {
    /// Its name.
    pub name: String,
    /// Its consumer groups beside `$Default`.
    pub consumer_groups: Vec<String>,
    /// Its partitions in order.
    pub partitions: Vec<PartitionView>,
}

/// A partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionView {
    /// The oldest event that is kept.
    pub begin_sequence_number: i64,
    /// The newest event; -1 when there was never one.
    pub last_sequence_number: i64,
    /// The newest event; "-1" when there was never one.
    pub last_offset: String,
}

/// A link.
#[derive(Debug, Clone, Serialize)]
pub struct LinkView {
    /// Number of its connection.
    pub conn: u64,
    /// Number of the link.
    pub link_id: u64,
    /// Its name, chosen by the client.
    pub name: String,
    /// Container id of the client.
    pub client_container: Option<String>,
    /// What it is for.
    pub kind: Option<super::LinkKind>,
    /// Its hub.
    pub hub: Option<String>,
    /// Its consumer group.
    pub group: Option<String>,
    /// Id of its partition.
    pub partition: Option<String>,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// Its link properties, as text.
    pub properties: String,
    /// Events that passed.
    pub events: u64,
    /// The newest event that was delivered; -1 when there is none.
    pub last_delivered: i64,
}

impl StateView {
    pub(crate) fn of(core: &Core) -> Self {
        Self {
            hubs: core.namespace.hubs().iter().map(|hub| HubView::of(hub)).collect(),
            links: core.roster.links().iter().map(|link| LinkView::of(link)).collect(),
            faults: core.faults.list(),
            settings: core.settings(),
        }
    }
}

impl HubView {
    fn of(hub: &Hub) -> Self {
        let partitions = (0..hub.partition_count()).filter_map(|index| hub.partition(index));
        Self {
            name: hub.config.name.clone(),
            consumer_groups: hub.config.consumer_groups.clone(),
            partitions: partitions
                .map(|partition| {
                    let extent = partition.extent();
                    PartitionView {
                        begin_sequence_number: extent.begin,
                        last_sequence_number: extent.last_sequence_number(),
                        last_offset: extent.last_offset(),
                    }
                })
                .collect(),
        }
    }
}

impl LinkView {
    fn of(link: &Link) -> Self {
        let place = link.place.clone();
        Self {
            conn: place.conn,
            link_id: link.id,
            name: link.name.clone(),
            client_container: place.client_container,
            kind: place.link,
            hub: place.hub,
            group: place.group,
            partition: place.partition,
            epoch: link.epoch,
            properties: link.properties.clone(),
            events: link.events.load(Ordering::Relaxed),
            last_delivered: link.last_delivered.load(Ordering::Relaxed),
        }
    }
}
