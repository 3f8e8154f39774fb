//! Between AMQP messages and the events of the log.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fe2o3_amqp::Sendable;
use fe2o3_amqp_types::messaging::{
    Body, Data, DeliveryAnnotations, Message, MessageAnnotations,
    annotations::{AnnotationKey, OwnedKey},
    message::__private::{Deserializable, Serializable},
};
use fe2o3_amqp_types::primitives::{Timestamp, Value};
use serde::Serialize;

use super::partition::{Extent, NewEvent, StoredEvent};
use crate::{annotation, link::BATCH_MESSAGE_FORMAT};

/// Any AMQP message.
pub(crate) type AnyMessage = Message<Body<Value>>;

/// What one transfer publishes.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) partition_key: Option<Arc<str>>,
    pub(crate) events: Vec<NewEvent>,
    /// Of the first event, for the journal.
    pub(crate) message_id: Option<String>,
}

/// A transfer that is not a publication.
#[derive(Debug, thiserror::Error)]
#[error("the transfer is not an event or a batch of events")]
pub(crate) struct NotAPublication(#[from] serde_amqp::Error);

/// A message that has a body and nothing else.
pub(crate) fn bare(body: Body<Value>) -> AnyMessage {
    Message {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: None,
        application_properties: None,
        body,
        footer: None,
    }
}

pub(crate) fn decode(encoded: &[u8]) -> Result<AnyMessage, serde_amqp::Error> {
    serde_amqp::from_slice::<Deserializable<AnyMessage>>(encoded).map(|message| message.0)
}

pub(crate) fn encode(message: &AnyMessage) -> Result<Bytes, serde_amqp::Error> {
    let mut bytes = BytesMut::new();
    let mut serializer = serde_amqp::ser::Serializer::new((&mut bytes).writer());
    Serializable(message).serialize(&mut serializer)?;
    Ok(bytes.freeze())
}

/// Takes a transfer apart. The partition key is that of the envelope, else of the first event.
pub(crate) fn unpack(
    message_format: Option<u32>,
    mut message: AnyMessage,
) -> Result<Publication, NotAPublication> {
    let key = partition_key(&message);
    if message_format != Some(BATCH_MESSAGE_FORMAT) {
        message.delivery_annotations = None;
        let event = NewEvent { partition_key: key.clone(), encoded: encode(&message)? };
        let message_id = message_id(&message);
        return Ok(Publication { partition_key: key, events: vec![event], message_id });
    }
    let sections = match message.body {
        Body::Data(sections) => sections,
        _ => {
            let text = "the body of a batch is data sections";
            return Err(NotAPublication(serde::de::Error::custom(text)));
        }
    };
    let mut publication = Publication {
        partition_key: key,
        events: Vec::with_capacity(sections.len()),
        message_id: None,
    };
    for (index, Data(section)) in sections.into_iter().enumerate() {
        let inner = decode(&section)?;
        let inner_key = partition_key(&inner);
        if index == 0 {
            publication.message_id = message_id(&inner);
            publication.partition_key = publication.partition_key.or_else(|| inner_key.clone());
        }
        let partition_key = inner_key.or_else(|| publication.partition_key.clone());
        let encoded = Bytes::from(section.into_vec());
        publication.events.push(NewEvent { partition_key, encoded });
    }
    Ok(publication)
}

/// The event as a receiver gets it: what the publisher wrote, with the service's annotations in
/// place of any that the publisher made up.
pub(crate) fn stamp(
    event: &StoredEvent,
    metrics: Option<Metrics>,
) -> Result<Sendable<Body<Value>>, serde_amqp::Error> {
    let mut message = decode(&event.encoded)?;
    let annotations = message.message_annotations.get_or_insert_with(MessageAnnotations::default);
    let mut set = |name: &str, value: Value| {
        annotations.0.insert(OwnedKey::from(name), value);
    };
    set(annotation::SEQUENCE_NUMBER, Value::Long(event.stamp.sequence_number));
    set(annotation::OFFSET, Value::String(event.stamp.offset.to_string()));
    set(annotation::ENQUEUED_TIME, timestamp(event.stamp.enqueued_ms));
    if let Some(key) = &event.partition_key {
        set(annotation::PARTITION_KEY, Value::String(key.to_string()));
    }
    message.delivery_annotations = metrics.map(Metrics::into_annotations);
    Ok(Sendable::builder().message(message).build())
}

/// The end of the partition, for receivers that asked to hear of it with every event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metrics {
    pub(crate) extent: Extent,
    /// The service's clock, in milliseconds since 1970.
    pub(crate) now: i64,
}

impl Metrics {
    fn into_annotations(self) -> DeliveryAnnotations {
        let mut annotations = DeliveryAnnotations::default();
        let mut set = |name: &str, value: Value| {
            annotations.0.insert(OwnedKey::from(name), value);
        };
        let last = self.extent.last_sequence_number();
        set(annotation::LAST_ENQUEUED_SEQUENCE_NUMBER, Value::Long(last));
        set(annotation::LAST_ENQUEUED_OFFSET, Value::String(self.extent.last_offset()));
        set(annotation::LAST_ENQUEUED_TIME, timestamp(self.extent.last_enqueued_ms()));
        set(annotation::RUNTIME_INFO_RETRIEVAL_TIME, timestamp(self.now));
        annotations
    }
}

/// A point in time, given in milliseconds since 1970.
pub(crate) fn timestamp(millis: i64) -> Value {
    Value::Timestamp(Timestamp::from_milliseconds(millis))
}

pub(crate) fn message_id(message: &AnyMessage) -> Option<String> {
    use fe2o3_amqp_types::messaging::MessageId;
    match message.properties.as_ref()?.message_id.as_ref()? {
        MessageId::String(id) => Some(id.clone()),
        MessageId::Ulong(id) => Some(id.to_string()),
        MessageId::Uuid(id) => Some(uuid::Uuid::from_bytes(*id.as_inner()).to_string()),
        MessageId::Binary(id) => Some(format!("{id:02x?}")),
    }
}

fn partition_key(message: &AnyMessage) -> Option<Arc<str>> {
    let annotations = message.message_annotations.as_ref()?;
    match annotations.0.get(&annotation::PARTITION_KEY as &dyn AnnotationKey)? {
        Value::String(key) => Some(key.as_str().into()),
        Value::Symbol(key) => Some(key.as_str().into()),
        _ => None,
    }
}
